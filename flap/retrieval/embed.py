"""Clips and captions → embeddings by a FLAP model, without masks and without chance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from flap.clips import MelReader
from flap.model.flap import SavedFlap
from flap.model.text_encoder import tokenize
from flap.model.windows import middle_windows


@torch.inference_mode()
def embed_clips(
    saved: SavedFlap, clips: pd.DataFrame, batch: int, device: torch.device
) -> np.ndarray:
    """Embeddings (C, E), float32, of the middle window of each clip.

    Args:
        clips: columns path and row, as `flap.clips.usable_clips` gives them.
    """
    model, reader = saved.model, MelReader(cached_row_groups=1)
    model.to(device)  # type: ignore[arg-type]
    frames, fusion = model.config.encoder.clip_frames, model.config.fusion
    parts = []
    for start in tqdm(range(0, len(clips), batch), desc="embed audio", unit="batch"):
        mels = reader.read_all(clips.iloc[start : start + batch])
        windows = middle_windows(mels, frames, fusion)
        embedded = model.get_audio_features(
            windows.mel_BCTF.to(device), windows.longer_B.to(device)
        )
        assert embedded.pooler_output is not None
        parts.append(embedded.pooler_output.float().cpu())
    return torch.cat(parts).numpy()


@torch.inference_mode()
def embed_captions(
    saved: SavedFlap, captions: Sequence[str], batch: int, device: torch.device
) -> np.ndarray:
    """Embeddings (M, E), float32. Equal captions are embedded once, so that they tie exactly."""
    model = saved.model
    model.to(device)  # type: ignore[arg-type]
    distinct = sorted(set(captions))
    max_tokens = model.config.max_text_tokens
    parts = []
    for start in tqdm(range(0, len(distinct), batch), desc="embed text", unit="batch"):
        tokens = tokenize(saved.tokenizer, distinct[start : start + batch], max_tokens)
        inputs = {name: tensor.to(device) for name, tensor in tokens.items()}
        embedded = model.get_text_features(**inputs)
        assert embedded.pooler_output is not None
        parts.append(embedded.pooler_output.float().cpu())
    position = {caption: i for i, caption in enumerate(distinct)}
    return torch.cat(parts).numpy()[[position[caption] for caption in captions]]
