"""Clips and captions → embeddings by a FLAP model, without masks and without chance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from flap.clips import MelReader
from flap.model.flap import SavedFlap
from flap.model.text_encoder import tokenize


@torch.inference_mode()
def embed_clips(
    saved: SavedFlap, clips: pd.DataFrame, batch: int, device: torch.device
) -> np.ndarray:
    """Embeddings (C, E), float32, of the middle window of each clip.

    Args:
        clips: columns path and row, as `flap.clips.usable_clips` gives them.
    """
    model, reader = saved.model.to(device), MelReader(cached_row_groups=1)
    frames = model.audio_encoder.config.clip_frames
    parts = []
    for start in tqdm(range(0, len(clips), batch), desc="embed audio", unit="batch"):
        windows_BTF = reader.middle_windows(clips.iloc[start : start + batch], frames)
        parts.append(model.embed_audio(torch.from_numpy(windows_BTF).to(device)).float().cpu())
    return torch.cat(parts).numpy()


@torch.inference_mode()
def embed_captions(
    saved: SavedFlap, captions: Sequence[str], batch: int, device: torch.device
) -> np.ndarray:
    """Embeddings (M, E), float32. Equal captions are embedded once, so that they tie exactly."""
    model = saved.model.to(device)
    distinct = sorted(set(captions))
    max_tokens = model.model_config.text.max_tokens
    parts = []
    for start in tqdm(range(0, len(distinct), batch), desc="embed text", unit="batch"):
        tokens = tokenize(saved.tokenizer, distinct[start : start + batch], max_tokens)
        on_device = {name: tensor.to(device) for name, tensor in tokens.items()}
        parts.append(model.embed_text(on_device).float().cpu())
    position = {caption: i for i, caption in enumerate(distinct)}
    return torch.cat(parts).numpy()[[position[caption] for caption in captions]]
