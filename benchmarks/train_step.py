"""A full training step: masked against unmasked, and against transformers' CLAP.

    python -m benchmarks.train_step [--width 384] [--depth 12] [--batch 8] [--seconds 45]

A step is the forward pass of audio and text encoder, the contrastive loss, the backward pass and
AdamW, on clips of 10 s. By default the encoders have the size of ViT-S, which two cores can run.
CLAP's audio encoder is an HTSAT with about as many parameters. Keys of `ratios` and their expected
values:

    masked      ours at 2-D 0.2/0.2 (306 of 512 tokens) over ours at all tokens: at most 0.65
    vs_hf_clap  ours at 2-D 0.2/0.2 over ClapModel on the same clips and captions
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from transformers import ClapConfig, ClapModel

from benchmarks.interleaved import interleaved, ratio, report
from flap.core.config import load_section
from flap.model.config import EncoderConfig, ModelConfig, ScratchText
from flap.model.flap import FlapModel, build_flap
from flap.model.text_encoder import build_tokenizer, tokenize
from flap.model.windows import WindowBatch
from flap.pretrain.config import PretrainConfig
from flap.pretrain.inputs import InputBuilder
from flap.pretrain.step import Step
from flap.training.batches import Batch
from flap.training.distributed import World
from flap.training.order import Pair
from flap.training.parallel import Replicated

CAPTION = "We can hear a dog that barks three times in the distance while a car passes, with wind."
MASKED = {"kind": "2d", "time_ratio": 0.2, "freq_ratio": 0.2, "members": "independent"}
VOCABULARY, CLAP_FRAMES, CLAP_BINS = 1500, 1001, 64


def main(
    width: Annotated[int, typer.Option(help="width of both encoders; a multiple of 64")] = 384,
    depth: Annotated[int, typer.Option(help="blocks of the audio encoder; text has half")] = 12,
    batch: Annotated[int, typer.Option(help="pairs of a batch")] = 8,
    seconds: Annotated[float, typer.Option(help="time to measure for, after warming up")] = 45,
) -> None:
    """Time steps of FLAP and of CLAP."""
    torch.manual_seed(0)
    text = text_config(width, depth // 2)
    tokenizer = build_tokenizer(text, [CAPTION])
    flap = build_model(encoder_config(width, depth), text)
    clap = ClapModel(_clap(width, depth // 2, len(tokenizer)))
    captions = [f"{CAPTION} {number}" for number in range(batch)]
    mel_B1TF = torch.randn(batch, 1, 1024, 128)
    taken = interleaved(
        {
            "masked": _Flap(flap, tokenizer, captions, mel_B1TF, MASKED),
            "unmasked": _Flap(flap, tokenizer, captions, mel_B1TF, {"kind": "none"}),
            "clap": _Clap(clap, tokenize(tokenizer, captions, text.max_tokens)),
        },
        seconds,
    )
    ratios = {
        "masked": ratio(taken, "masked", "unmasked"),
        "vs_hf_clap": ratio(taken, "masked", "clap"),
    }
    report(
        "train_step",
        ratios,
        seconds={name: round(min(times), 3) for name, times in taken.items()},
        parameters={"flap": _millions(flap), "clap": _millions(clap)},
        batch=batch,
        rounds=len(taken["masked"]),
        cores=os.cpu_count(),
    )


class _Flap:
    """A call trains the FLAP model for one step."""

    def __init__(
        self,
        model: FlapModel,
        tokenizer: Any,
        captions: list[str],
        mel_B1TF: torch.Tensor,
        mask: dict[str, Any],
    ) -> None:
        section = load_section(Path("params.yaml"), "pretrain", PretrainConfig).model_dump()
        section |= {"mask": mask, "batch": len(captions), "streams": 1, "views": 1}
        config = PretrainConfig.model_validate(section | {"reconstruction_weight": 0.0})
        clips = pd.DataFrame({"clip_id": captions, "captions": [[text] for text in captions]})
        alone = World(0, 1, torch.device("cpu"))
        inputs = InputBuilder(tokenizer, model.config, alone.device)
        self._step = Step(
            config, Replicated(model.train(), alone), inputs, clips, alone, total_steps=2**40
        )
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        windows = WindowBatch(mel_B1TF, torch.zeros(len(captions), dtype=torch.bool))
        self._batch = Batch(windows, [Pair(clip, 0, 0) for clip in range(len(captions))])
        self._number = 0

    def __call__(self) -> None:
        self._number += 1
        self._optimizer.zero_grad(set_to_none=True)
        self._step.backward(self._number, self._batches())
        self._optimizer.step()

    def _batches(self) -> Iterator[Batch]:
        yield self._batch


class _Clap:
    """A call trains the CLAP model for one step."""

    def __init__(self, model: ClapModel, tokens: dict[str, torch.Tensor]) -> None:
        self._model, self._tokens = model.train(), tokens
        self._mel = torch.randn(len(tokens["input_ids"]), 1, CLAP_FRAMES, CLAP_BINS)
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def __call__(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._model(input_features=self._mel, **self._tokens, return_loss=True).loss.backward()
        self._optimizer.step()


def encoder_config(width: int, depth: int) -> EncoderConfig:
    return EncoderConfig(
        clip_frames=1024,
        n_mels=128,
        mel_mean=-4.2677393,
        mel_std=4.5689974,
        patch=16,
        width=width,
        depth=depth,
        heads=width // 64,
    )


def text_config(width: int, depth: int) -> ScratchText:
    return ScratchText(
        kind="scratch",
        vocabulary=VOCABULARY,
        width=width,
        depth=depth,
        heads=width // 64,
        dropout=0.0,
        pooling="pooler",
        max_tokens=77,
    )


def build_model(encoder: EncoderConfig, text: ScratchText) -> FlapModel:
    section = load_section(Path("params.yaml"), "model", ModelConfig)
    model = section.model_copy(update={"text": text, "fusion": False, "embedding": 512})
    return build_flap(encoder, model, with_decoder=False)


def _clap(width: int, text_depth: int, vocabulary: int) -> ClapConfig:
    """A CLAP of this width; the last stage of HTSAT is eight times as wide as the first."""
    audio = {"patch_embeds_hidden_size": width // 4, "hidden_size": 2 * width}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": text_depth,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=512)


def _millions(model: torch.nn.Module) -> float:
    return round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1)


if __name__ == "__main__":
    typer.run(main)
