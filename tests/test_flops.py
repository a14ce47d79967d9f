"""Stage `flops`: the counts against the arithmetic of a ViT."""

import pytest
import torch

from flap.flops.count import encoder_gflops, flops_table
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import EncoderConfig

BASE = EncoderConfig(
    clip_frames=1024, n_mels=128, mel_mean=0, mel_std=1, patch=16, width=768, depth=12, heads=12
)
SMALL = BASE.model_copy(update={"width": 32, "depth": 2, "heads": 2})


def by_hand(config: EncoderConfig, batch: int, kept: int) -> float:
    """Giga multiply-adds of patches, qkv, attention, projection, MLP and norms (5 per value)."""
    d, n, all_tokens = config.width, kept + 1, config.grid[0] * config.grid[1]
    block = n * 12 * d * d + 2 * n * n * d
    norms = 5 * n * d * (2 * config.depth + 1)
    return batch * (all_tokens * config.patch**2 * d + config.depth * block + norms) / 1e9


@pytest.mark.parametrize("kept", [512, 307, 306])
def test_counts_match_the_arithmetic(kept: int) -> None:
    keep_BK = None if kept == 512 else torch.arange(kept).unsqueeze(0)
    found = encoder_gflops(AudioEncoder(SMALL), 2, keep_BK)
    assert found == pytest.approx(by_hand(SMALL, 2, kept), rel=0.01)


def test_gflops_fall_with_the_ratio() -> None:
    rows = flops_table(SMALL, 1, (0.2, 0.4))
    assert [(r["mask"], r["tokens"]) for r in rows] == [
        ("none", 512),
        ("1d", 409),
        ("1d", 307),
        ("2d", 306),
        ("2d", 38 * 4),
    ]
    for mask in ("1d", "2d"):
        costs = [row["gflops"] for row in rows if row["mask"] in ("none", mask)]
        assert costs == sorted(costs, reverse=True)


def test_vit_base_has_the_gflops_of_the_papers_figure_3() -> None:
    """Batch of 8 x 10 s, giga multiply-adds with attention, within half a percent."""
    rows = {(r["mask"], r["ratio"]): r for r in flops_table(BASE, 8, (0.2, 0.4))}
    for key, tokens, gflops in (
        (("none", 0.0), 512, 387.7),
        (("2d", 0.2), 306, 222.8),
        (("1d", 0.4), 307, 223.5),
    ):
        assert rows[key]["tokens"] == tokens
        assert rows[key]["gflops"] == pytest.approx(gflops, rel=0.005)
