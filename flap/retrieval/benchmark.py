"""One benchmark: a model and the clips of a split → rows of RANKS."""

import numpy as np
import pandas as pd

from flap.model.device import default_device
from flap.model.flap import SavedFlap
from flap.retrieval.embed import embed_captions, embed_clips
from flap.retrieval.ranks import Ranks, audio_to_text_ranks, text_to_audio_ranks
from flap.shards import Row


def rank_benchmark(name: str, clips: pd.DataFrame, saved: SavedFlap, batch: int) -> list[Row]:
    """Every caption against every clip and back; `clips` as `usable_clips` gives them."""
    device = default_device()
    captions = [caption for own in clips["captions"] for caption in own]
    clip_of_caption_M = np.repeat(np.arange(len(clips)), clips["captions"].map(len))
    audio_CE = embed_clips(saved, clips, batch, device)
    text_ME = embed_captions(saved, captions, batch, device)
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
