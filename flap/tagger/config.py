"""Section `tagger` of params.yaml; the encoder's sizes are in section `encoder`."""

from flap.config import Section
from flap.model.masking import MaskConfig


class TaggerConfig(Section):
    seed: int
    mask: MaskConfig  # tokens left out in training, as AudioMAE does in fine-tuning
    epochs: int
    batch: int
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: int
    shuffle_shards: int
    checkpoint_every: int  # steps
    holdout_split: str  # what mAP is measured on; never trained on
    loader_workers: int
