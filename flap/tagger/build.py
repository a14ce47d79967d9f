"""The tagger before fine-tuning: with random weights, or with those of a released checkpoint."""

import torch

from flap.core.errors import UserError
from flap.model.config import EncoderConfig
from flap.model.device import default_device
from flap.model.import_weights import ImportReport, import_weights
from flap.model.masking import check_mask
from flap.model.tagger import Tagger
from flap.tagger.config import TaggerConfig


def build(
    config: TaggerConfig, encoder: EncoderConfig, n_classes: int
) -> tuple[Tagger, ImportReport | None]:
    """The tagger on its device, and a report on each imported tensor.

    Raises:
        UserError: the mask does not fit the encoder, the weights cannot be imported, or the head
            would have neither imported weights nor training.
    """
    check_mask(config.mask, encoder.grid, "tagger.mask", must_hide=False)
    torch.manual_seed(config.seed)
    tagger = Tagger(encoder, n_classes).eval()
    report = import_weights(tagger, config.weights) if config.weights else None
    if not config.epochs and (report is None or "head.weight" in report.fresh):
        raise UserError(
            "tagger.weights: with tagger.epochs 0, this must name a fine-tuned tagger with its head"
        )
    return tagger.to(default_device()), report
