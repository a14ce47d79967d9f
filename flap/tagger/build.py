"""The tagger before fine-tuning: from scratch, or from a released checkpoint."""

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
    """The tagger on its device, and what became of each imported tensor.

    Raises:
        UserError: it is not to be trained, and its head is not imported either.
    """
    check_mask(config.mask, encoder.grid, "tagger.mask", must_hide=False)
    torch.manual_seed(config.seed)
    tagger = Tagger(encoder, n_classes).eval()
    report = import_weights(tagger, config.weights) if config.weights else None
    if not config.epochs and (report is None or "head.weight" in report.fresh):
        raise UserError(
            "tagger.epochs is 0, so tagger.weights must name a fine-tuned tagger with its head"
        )
    return tagger.to(default_device()), report
