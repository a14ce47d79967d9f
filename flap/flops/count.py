"""FLOPs of the audio encoder by fvcore: the x-axis of Figure 3 of the paper.

fvcore counts a multiply-add as one operation, as the paper does. It does not count fused attention,
so this module adds a handle for its two matrix products: B · heads · N² · 2 · (D / heads).
"""

from collections.abc import Sequence
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape

from flap.model.audio_encoder import AudioEncoder
from flap.model.config import EncoderConfig, Mask1D, Mask2D, NoMask
from flap.model.masking import check_mask, draw_mask, kept_tokens


def encoder_gflops(encoder: AudioEncoder, batch: int, keep_1K: torch.Tensor | None) -> float:
    """GFLOPs of one forward pass of `batch` windows, as `batch` times those of one window.

    Args:
        keep_1K: indices of the tokens that the mask keeps; None: no mask.
    """
    config = encoder.config
    mel_11TF = torch.zeros(1, 1, config.clip_frames, config.n_mels)
    inputs = (mel_11TF,) if keep_1K is None else (mel_11TF, keep_1K)
    analysis = FlopCountAnalysis(encoder.eval(), inputs)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_flops)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return batch * analysis.total() / 1e9


def flops_table(config: EncoderConfig, batch: int, ratios: Sequence[float]) -> list[dict[str, Any]]:
    """One row without a mask, then rows of 1-D and of 2-D masks at each ratio.

    Returns:
        Rows with keys mask, ratio, tokens (kept) and gflops.

    Raises:
        UserError: a ratio keeps no token.
    """
    encoder = AudioEncoder(config)
    masks: list[tuple[str, float, NoMask | Mask1D | Mask2D]] = [
        ("none", 0.0, NoMask(kind="none")),
        *(("1d", ratio, Mask1D(kind="1d", ratio=ratio)) for ratio in ratios),
        *(
            ("2d", r, Mask2D(kind="2d", time_ratio=r, freq_ratio=r, members="independent"))
            for r in ratios
        ),
    ]
    rows = []
    for name, ratio, mask in masks:
        check_mask(mask, config.grid, "flops.ratios", must_hide=False)
        keep_1K = draw_mask(mask, config.grid, 1, torch.Generator().manual_seed(0))
        gflops = round(encoder_gflops(encoder, batch, keep_1K), 4)
        tokens = kept_tokens(mask, config.grid)
        rows.append({"mask": name, "ratio": ratio, "tokens": tokens, "gflops": gflops})
    return rows


def _attention_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    batch, heads, queries, width = get_shape(inputs[0])
    keys, value_width = get_shape(inputs[1])[2], get_shape(inputs[2])[3]
    return batch * heads * queries * keys * (width + value_width)
