"""Forward and backward pass of the audio encoder: masked against unmasked, and against AST.

    python -m benchmarks.encoder [--depth 12] [--batch 2] [--seconds 45]

The encoder has blocks of ViT-B/16 and gets 10 s (512 tokens). By default it has fewer than
ViT-B's 12 blocks, since all blocks take the same time. Keys of `ratios` and expected values:

    masked     ours at 306 tokens (2-D 0.2/0.2) over ours at 512: at most 0.60
    vs_ast     ours at 512 over transformers' ASTModel with sdpa, 514 tokens: at most 1.00
    vs_eager   ours at 512 over transformers' ASTModel with eager attention: at most 0.85
"""

import os
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from transformers import ASTConfig, ASTModel

from benchmarks.interleaved import interleaved, ratio, report
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import EncoderConfig
from flap.model.masking import mask_2d


def main(
    depth: Annotated[int, typer.Option(help="blocks; ViT-B has 12")] = 2,
    batch: Annotated[int, typer.Option(help="clips of 10 s")] = 4,
    seconds: Annotated[float, typer.Option(help="time to measure for, after warming up")] = 45,
) -> None:
    """Time the audio encoder beside transformers' AST."""
    torch.manual_seed(0)
    config = EncoderConfig(
        clip_frames=1024,
        n_mels=128,
        mel_mean=-4.2677393,
        mel_std=4.5689974,
        patch=16,
        width=768,
        depth=depth,
        heads=12,
    )
    encoder = AudioEncoder(config)
    ast, eager = _ast(depth, "sdpa"), _ast(depth, "eager")
    mel_BTF = torch.randn(batch, 1024, 128)
    keep_BK = mask_2d(config.grid, 0.2, 0.2, batch, torch.Generator().manual_seed(0))
    taken = interleaved(
        {
            "ours": _step(encoder, lambda: encoder(mel_BTF.unsqueeze(1))),
            "masked": _step(encoder, lambda: encoder(mel_BTF.unsqueeze(1), keep_BK)),
            "ast": _step(ast, lambda: ast(mel_BTF).last_hidden_state),
            "eager": _step(eager, lambda: eager(mel_BTF).last_hidden_state),
        },
        seconds,
    )
    ratios = {
        "masked": ratio(taken, "masked", "ours"),
        "vs_ast": ratio(taken, "ours", "ast"),
        "vs_eager": ratio(taken, "ours", "eager"),
    }
    report(
        "encoder",
        ratios,
        depth=depth,
        batch=batch,
        rounds=len(taken["ours"]),
        cores=os.cpu_count(),
    )


def _ast(depth: int, attention: str) -> ASTModel:
    return ASTModel(
        ASTConfig(
            num_hidden_layers=depth,
            frequency_stride=16,
            time_stride=16,
            attn_implementation=attention,
        )
    ).train()


def _step(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        forward().mean().backward()

    return step


if __name__ == "__main__":
    typer.run(main)
