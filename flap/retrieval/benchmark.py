"""One benchmark: a model and the clips of a split → rows of RANKS."""

from pathlib import Path

import numpy as np
import pandas as pd

from flap.model.device import default_device
from flap.model.saved import load_flap
from flap.retrieval.clap import ClapEmbedder, load_clap
from flap.retrieval.config import ReleasedClap, ScoredModel
from flap.retrieval.embed import Embedder, FlapEmbedder, embed_captions, embed_clips
from flap.retrieval.ranks import Ranks, audio_to_text_ranks, text_to_audio_ranks
from flap.shards import Row


def load_embedder(benchmark: str, model: ScoredModel, flap_folder: Path) -> Embedder:
    """The model that a benchmark names; `flap_folder` is where `pretrain` left ours.

    Raises:
        UserError: it cannot be had.
    """
    if isinstance(model, ReleasedClap):
        return ClapEmbedder(load_clap(benchmark, model), benchmark, default_device())
    return FlapEmbedder(load_flap(flap_folder), default_device())


def rank_benchmark(name: str, clips: pd.DataFrame, embedder: Embedder, batch: int) -> list[Row]:
    """Every caption against every clip and back; `clips` as `usable_clips` gives them."""
    captions = [caption for own in clips["captions"] for caption in own]
    clip_of_caption_M = np.repeat(np.arange(len(clips)), clips["captions"].map(len))
    audio_CE = embed_clips(embedder, clips, batch)
    text_ME = embed_captions(embedder, captions, batch)
    caption_ids = [
        f"{clip_id}#{position}"
        for clip_id, own in zip(clips["clip_id"], clips["captions"], strict=True)
        for position in range(len(own))
    ]
    to_audio = text_to_audio_ranks(text_ME, audio_CE, clip_of_caption_M)
    to_text = audio_to_text_ranks(audio_CE, text_ME, clip_of_caption_M)
    return [
        *_rows(name, "text_to_audio", caption_ids, to_audio),
        *_rows(name, "audio_to_text", list(clips["clip_id"]), to_text),
    ]


def _rows(benchmark: str, direction: str, query_ids: list[str], ranks: Ranks) -> list[Row]:
    return [
        {
            "benchmark": benchmark,
            "direction": direction,
            "query_id": query_id,
            "rank": int(rank),
            "ties": int(ties),
        }
        for query_id, rank, ties in zip(query_ids, ranks.rank, ranks.ties, strict=True)
    ]
