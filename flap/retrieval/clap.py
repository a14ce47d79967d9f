"""Recordings and captions → embeddings by a CLAP of transformers: the baseline LS-CLAP.

CLAP hears the recordings, not our log-mels: its front end is another (48 kHz, 64 bins).
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

_MAX_TOKENS = 77  # LS-CLAP's
_MAX_SECONDS = 3600.0  # a bound of memory; the baseline hears whole recordings


@dataclass(frozen=True)
class SavedClap:
    model: ClapModel
    processor: ClapProcessor


class ClapEmbedder:
    """A CLAP, fused or not, each clip embedded by itself whatever its batch.

    Args:
        saved: as `load_clap` gives it.
        benchmark: its name, for messages.
    """

    def __init__(self, saved: SavedClap, benchmark: str, device: torch.device) -> None:
        self._model, self._benchmark, self._device = saved.model, benchmark, device
        self._model.to(device)  # type: ignore[arg-type]
        self._tokenizer = saved.processor.tokenizer
        self._extractor = saved.processor.feature_extractor
        audio_config: Any = saved.model.config.audio_config
        self._fused: bool = audio_config.enable_fusion

    def audio(self, clips: pd.DataFrame) -> torch.Tensor:
        """(B, E), L2-normalised, of the recordings at `uri` or in a range of its bytes.

        Raises:
            UserError: a recording vanished or broke since the stage `audio` read it.
        """
        places = clips.reindex(columns=["uri", "offset", "n_bytes"]).itertuples(index=False)
        features, longer = zip(*(self._features(*place) for place in places), strict=True)
        embedded = self._model.get_audio_features(
            torch.cat(features).to(self._device), torch.tensor(longer)[:, None].to(self._device)
        )
        return embedded.pooler_output

    def text(self, captions: list[str]) -> torch.Tensor:
        """(B, E), L2-normalised; captions are cut at 77 tokens."""
        tokens = tokenize(self._tokenizer, captions, _MAX_TOKENS)
        inputs = {name: tensor.to(self._device) for name, tensor in tokens.items()}
        return self._model.get_text_features(**inputs).pooler_output

    def _features(self, uri: str, offset: float, n_bytes: float) -> tuple[torch.Tensor, bool]:
        """Log-mels (1, C, T, F) of a recording, C = 4 with fusion, and whether it is longer
        than the window.
        """
        samples, window = self._read(uri, offset, n_bytes), self._extractor.nb_max_samples
        if not self._fused:
            samples = _middle(samples, window)
        with _fixed_draws():
            features = self._extractor(
                samples,
                # The weights decide: a front end saved for the other variant would not fit them.
                truncation="fusion" if self._fused else "rand_trunc",
                sampling_rate=self._extractor.sampling_rate,
                return_tensors="pt",
            )
        # Not the extractor's `is_longer`: where no clip of a batch is longer, it names one at
        # random, as LS-CLAP's training does. Longer is counted in frames, as by the extractor.
        hop = self._extractor.hop_length
        return features["input_features"], len(samples) // hop > window // hop

    def _read(self, uri: str, offset: float, n_bytes: float) -> np.ndarray:
        """Mono samples of the whole recording, at the extractor's rate."""
        start, size = (None if pd.isna(number) else int(number) for number in (offset, n_bytes))
        try:
            data = read_recording(uri, start, size, sys.maxsize)  # stage audio took it: it fits
            recording = decode(data, _MAX_SECONDS)
        except (OSError, Rejected) as error:
            raise UserError(
                f"benchmarks.{self._benchmark}: {uri}: stage audio could read this recording, now "
                f"it cannot be read ({error}); put it back, or run `dvc repro`, which leaves it out"
            ) from error
        return resample(recording.samples, recording.rate_hz, self._extractor.sampling_rate)


def load_clap(benchmark: str, chosen: ReleasedClap) -> SavedClap:
    """Model and processor from a directory or the hub, for evaluation; no pickles, no code.

    Raises:
        UserError: neither gave them, or the weights are not those of a whole CLAP.
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
    except Exception as error:  # a broken or foreign folder may fail in any way
        raise UserError(
            f"{key}: {_failure(chosen)}; name a directory with a ClapModel as safetensors and its "
            f"processor, or a hub name and revision that the hub can give ({first_line(error)})"
        ) from error
    model, report = loaded
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        raise UserError(
            f"{key}: '{chosen.source}' has not the weights of a whole ClapModel, {missing} for one "
            "is missing; name another or fetch it anew"
        )
    return SavedClap(model.eval(), processor)


def _failure(chosen: ReleasedClap) -> str:
    if Path(chosen.source).is_dir():
        return f"the directory '{chosen.source}' cannot be loaded"
    return (
        f"'{chosen.source}' is no directory here and the hub did not give it at revision "
        f"{chosen.revision}"
    )


def _middle(samples: np.ndarray, length: int) -> np.ndarray:
    """The middle `length` samples of more; the extractor would crop them at random."""
    start = max(0, len(samples) - length) // 2
    return samples[start : start + length]


@contextmanager
def _fixed_draws() -> Iterator[None]:
    """numpy's global generator at a fixed seed, and afterwards as it was.

    The extractor places the three crops of fusion by that generator and offers no other way.
    Seeded anew for each clip, the places are a function of the clip's length alone.
    """
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
