"""Search a folder of recordings by text.

    python examples/search.py FOLDER "a dog barks in the rain" [--model data/pretrain/model]

Needs the core install alone. A recording longer than the model's window is found by its middle.
"""

import argparse
from pathlib import Path

import soundfile
import torch

from flap import FlapModel, FlapProcessor

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}


def recordings_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


@torch.inference_mode()
def embed_audio(model: FlapModel, processor: FlapProcessor, path: Path) -> torch.Tensor:
    """(E,), L2-normalised."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    inputs = processor(audio=samples.mean(axis=1), sampling_rate=rate_hz)
    embedded = model.get_audio_features(**inputs).pooler_output
    assert embedded is not None
    return embedded[0]


@torch.inference_mode()
def embed_text(model: FlapModel, processor: FlapProcessor, text: str) -> torch.Tensor:
    """(E,), L2-normalised."""
    embedded = model.get_text_features(**processor(text=text)).pooler_output
    assert embedded is not None
    return embedded[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("text")
    parser.add_argument("--model", type=Path, default=Path("data/pretrain/model"))
    parser.add_argument("--best", type=int, default=5, help="recordings to print")
    args = parser.parse_args()
    paths = recordings_in(args.folder)
    if not paths:
        parser.error(f"{args.folder}: no recording ({', '.join(sorted(SUFFIXES))})")

    model = FlapModel.from_pretrained(args.model).eval()
    processor = FlapProcessor.from_pretrained(args.model)
    clips_CE = torch.stack([embed_audio(model, processor, path) for path in paths])
    similarity_C = clips_CE @ embed_text(model, processor, args.text)
    best = similarity_C.topk(min(args.best, len(paths)))
    for similarity, position in zip(best.values, best.indices, strict=True):
        print(f"{similarity:6.3f}  {paths[position]}")


if __name__ == "__main__":
    main()
