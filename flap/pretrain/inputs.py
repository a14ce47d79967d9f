"""Windows, captions and masks → keyword arguments of `FlapModel`."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from flap.model.flap_config import FlapConfig
from flap.model.text_encoder import tokenize
from flap.model.windows import WindowBatch


@dataclass(frozen=True)
class InputBuilder:
    tokenizer: PreTrainedTokenizerBase
    config: FlapConfig
    device: torch.device

    def build(
        self, windows: WindowBatch, captions: list[str], keep_BK: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Arguments of `FlapModel.forward` as tensors on `device`.

        Args:
            captions: one for each window; an empty list leaves out the text inputs.
            keep_BK: mask from `flap.model.masking`; None for no mask.
        """
        inputs = {"input_features": windows.mel_BCTF, "is_longer": windows.longer_B}
        if captions:
            inputs |= tokenize(self.tokenizer, captions, self.config.max_text_tokens)
        if keep_BK is not None:
            inputs["keep"] = keep_BK
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}
