"""Clips and captions → embeddings by any model, without masks.

Letters: B rows of a batch, C clips, M captions, E width of the shared space.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from flap.mels.reader import MelReader
from flap.model.saved import SavedFlap
from flap.model.text_encoder import tokenize
from flap.model.windows import WindowBatch, covering_windows, middle_windows


class Embedder(Protocol):
    """A model with an audio and a text encoder; a row's embedding does not depend on its batch."""

    def audio(self, clips: pd.DataFrame) -> torch.Tensor:
        """Embeddings (B, E), L2-normalised, of rows of `flap.mels.clips.usable_clips`."""

    def text(self, captions: list[str]) -> torch.Tensor:
        """Embeddings (B, E), L2-normalised, of captions."""


class FlapEmbedder:
    """FLAP on log-mels.

    Args:
        pooled: a clip's embedding is the mean over windows that cover it, not its middle window's.
    """

    def __init__(self, saved: SavedFlap, device: torch.device, *, pooled: bool = False) -> None:
        self._model, self._tokenizer, self._device = saved.model, saved.tokenizer, device
        self._model.to(device)  # type: ignore[arg-type]
        self._reader, self._pooled = MelReader(), pooled

    def audio(self, clips: pd.DataFrame) -> torch.Tensor:
        config, mels = self._model.config, self._reader.read_all(clips)
        if not self._pooled:
            return self._embed(middle_windows(mels, config.encoder.clip_frames, config.fusion))
        return torch.cat([self._embed_pooled(mel_TF) for mel_TF in mels])

    def text(self, captions: list[str]) -> torch.Tensor:
        tokens = tokenize(self._tokenizer, captions, self._model.config.max_text_tokens)
        inputs = {name: tensor.to(self._device) for name, tensor in tokens.items()}
        embedded = self._model.get_text_features(**inputs)
        assert embedded.pooler_output is not None
        return embedded.pooler_output

    def _embed(self, windows: WindowBatch) -> torch.Tensor:
        embedded = self._model.get_audio_features(
            windows.mel_BCTF.to(self._device), windows.longer_B.to(self._device)
        )
        assert embedded.pooler_output is not None
        return embedded.pooler_output

    def _embed_pooled(self, mel_TF: np.ndarray) -> torch.Tensor:
        """Mean embedding (1, E), L2-normalised, of the windows that cover one clip."""
        config = self._model.config
        windows = covering_windows(mel_TF, config.encoder.clip_frames, config.fusion)
        return normalize(self._embed(windows).mean(dim=0, keepdim=True), dim=-1)


def embed_clips(
    embedder: Embedder, clips: pd.DataFrame, batch: int, *, progress: bool = True
) -> np.ndarray:
    """Embeddings (C, E), float32; `clips` as `flap.mels.clips.usable_clips` gives them."""
    return _in_batches(
        lambda start: embedder.audio(clips.iloc[start : start + batch]),
        range(0, len(clips), batch),
        "embed audio" if progress else None,
    )


def embed_captions(
    embedder: Embedder, captions: Sequence[str], batch: int, *, progress: bool = True
) -> np.ndarray:
    """Embeddings (M, E), float32. Equal captions are embedded once, so their scores tie exactly."""
    distinct = sorted(set(captions))
    embedded = _in_batches(
        lambda start: embedder.text(distinct[start : start + batch]),
        range(0, len(distinct), batch),
        "embed text" if progress else None,
    )
    position = {caption: i for i, caption in enumerate(distinct)}
    return embedded[[position[caption] for caption in captions]]


@torch.inference_mode()
def _in_batches(
    embed: Callable[[int], torch.Tensor], starts: Sequence[int], what: str | None
) -> np.ndarray:
    bar = tqdm(starts, desc=what, unit="batch", disable=what is None)
    parts = [embed(start).float().cpu() for start in bar]
    return torch.cat(parts).numpy()
