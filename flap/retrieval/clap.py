"""Recordings and captions → embeddings by a CLAP of transformers: the baseline LS-CLAP.

CLAP reads recordings, not MELS, because its front end differs from ours (48 kHz, 64 mel bins).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import ClapModel, ClapProcessor

from flap.audio.decode import decode
from flap.audio.read import read_recording
from flap.audio.rejected import Rejected
from flap.audio.resample import resample
from flap.core.errors import UserError, first_line
from flap.model.text_encoder import tokenize
from flap.retrieval.config import ReleasedClap

_MAX_TOKENS = 77  # as in LS-CLAP
_MAX_SECONDS = 3600.0  # bounds memory; shorter recordings are embedded whole


@dataclass(frozen=True)
class SavedClap:
    model: ClapModel
    processor: ClapProcessor


class ClapEmbedder:
    """A CLAP with or without fusion; a clip's embedding does not depend on its batch.

    Args:
        saved: as `load_clap` gives it.
        benchmark: the benchmark's name, for error messages.
    """

    def __init__(self, saved: SavedClap, benchmark: str, device: torch.device) -> None:
        self._model, self._benchmark, self._device = saved.model, benchmark, device
        self._model.to(device)  # type: ignore[arg-type]
        self._tokenizer = saved.processor.tokenizer
        self._extractor = saved.processor.feature_extractor
        audio_config: Any = saved.model.config.audio_config
        self._fused: bool = audio_config.enable_fusion

    def audio(self, clips: pd.DataFrame) -> torch.Tensor:
        """Embeddings (B, E), L2-normalised, of the recordings at `uri` or in a byte range of it.

        Raises:
            UserError: a recording that the stage `audio` read is missing or unreadable now.
        """
        ranges = clips.reindex(columns=["uri", "offset", "n_bytes"]).itertuples(index=False)
        features, longer = zip(*(self._features(*each) for each in ranges), strict=True)
        embedded = self._model.get_audio_features(
            torch.cat(features).to(self._device), torch.tensor(longer)[:, None].to(self._device)
        )
        return embedded.pooler_output

    def text(self, captions: list[str]) -> torch.Tensor:
        """Embeddings (B, E), L2-normalised; captions are cut at 77 tokens."""
        tokens = tokenize(self._tokenizer, captions, _MAX_TOKENS)
        inputs = {name: tensor.to(self._device) for name, tensor in tokens.items()}
        return self._model.get_text_features(**inputs).pooler_output

    def _features(self, uri: str, offset: float, n_bytes: float) -> tuple[torch.Tensor, bool]:
        """Log-mels (1, C, T, F) of a recording, C = 4 with fusion, else 1; and whether the
        recording is longer than the window.
        """
        samples, window = self._read(uri, offset, n_bytes), self._extractor.nb_max_samples
        if not self._fused:
            samples = _middle(samples, window)
        with _fixed_numpy_seed():
            features = self._extractor(
                samples,
                # The weights decide, as the saved front end may be that of the other variant.
                truncation="fusion" if self._fused else "rand_trunc",
                sampling_rate=self._extractor.sampling_rate,
                return_tensors="pt",
            )
        # The extractor's `is_longer` is not used: if no clip of a batch is longer, it marks one at
        # random, as LS-CLAP's training does. As in the extractor, lengths are compared in frames.
        hop = self._extractor.hop_length
        return features["input_features"], len(samples) // hop > window // hop

    def _read(self, uri: str, offset: float, n_bytes: float) -> np.ndarray:
        """Mono samples of the whole recording, at the extractor's rate."""
        start, size = (None if pd.isna(number) else int(number) for number in (offset, n_bytes))
        try:
            data = read_recording(uri, start, size, sys.maxsize)  # stage audio checked its size
            recording = decode(data, _MAX_SECONDS)
        except (OSError, Rejected) as error:
            raise UserError(
                f"benchmarks.{self._benchmark}: {uri}: stage audio read this recording, but it "
                f"cannot be read now ({error}); restore it, or run `dvc repro` to leave it out"
            ) from error
        return resample(recording.samples, recording.rate_hz, self._extractor.sampling_rate)


def load_clap(benchmark: str, chosen: ReleasedClap) -> SavedClap:
    """Load model and processor from a directory or the hub, in evaluation mode.

    Only safetensors are loaded, and no code of the repository runs.

    Args:
        benchmark: the benchmark's name, for error messages.

    Raises:
        UserError: loading failed, or weights of a ClapModel are missing.
    """
    key = f"benchmarks.{benchmark}.model.source"
    try:
        loaded: Any = ClapModel.from_pretrained(
            chosen.source,
            revision=chosen.revision,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        processor = ClapProcessor.from_pretrained(
            chosen.source, revision=chosen.revision, trust_remote_code=False
        )
    except Exception as error:  # a broken folder can raise any exception
        raise UserError(
            f"{key}: {_failure(chosen)} ({first_line(error)}); name a directory with a "
            "ClapModel as safetensors and its processor, or a name and revision on the hub"
        ) from error
    model, report = loaded
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        raise UserError(
            f"{key}: '{chosen.source}' lacks {len(report['missing_keys'])} weights of a ClapModel, "
            f"such as {missing}; name another source or download it again"
        )
    return SavedClap(model.eval(), processor)


def _failure(chosen: ReleasedClap) -> str:
    if Path(chosen.source).is_dir():
        return f"the directory '{chosen.source}' cannot be loaded"
    return (
        f"'{chosen.source}' is not a directory, and loading revision {chosen.revision} of it from "
        "the hub failed"
    )


def _middle(samples: np.ndarray, length: int) -> np.ndarray:
    """The middle `length` samples, or all if there are fewer; the extractor crops at random."""
    start = max(0, len(samples) - length) // 2
    return samples[start : start + length]


@contextmanager
def _fixed_numpy_seed() -> Iterator[None]:
    """Seed numpy's global generator within the block, and restore its state afterwards.

    The extractor draws the positions of fusion's three crops from that generator. With the same
    seed for each clip, they depend only on the clip's length.
    """
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
