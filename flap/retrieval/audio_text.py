"""Retrieval between the clips of a split and their captions → rows of RANKS.

Letters: C clips, M captions, E width of the embeddings.
"""

from collections.abc import Iterator

import pandas as pd
from scipy.sparse import csr_array

from flap.core.errors import UserError
from flap.core.shards import Row
from flap.model.device import default_device
from flap.retrieval.config import RetrievalConfig
from flap.retrieval.embed import Embedder, embed_captions, embed_clips
from flap.retrieval.positives import own_captions, shared_captions
from flap.retrieval.ranks import rank_right_answers
from flap.retrieval.table import rank_rows


def rank_retrieval(
    name: str, clips: pd.DataFrame, embedder: Embedder, config: RetrievalConfig
) -> Iterator[Row]:
    """Rank all clips for every caption, and all captions for every clip.

    Clips without captions are left out.

    Args:
        name: the benchmark.
        clips: as `flap.mels.clips.usable_clips` gives them.

    Raises:
        UserError: no clip has a caption.
    """
    clips = clips[clips["captions"].map(len) > 0]
    if clips.empty:
        raise UserError(f"benchmarks.{name}: no clip has a caption")
    clip_ids = list(clips["clip_id"])
    captions = [caption for own in clips["captions"] for caption in own]
    numbered = [
        (clip_id, number)
        for clip_id, own in zip(clip_ids, clips["captions"], strict=True)
        for number in range(len(own))
    ]
    caption_ids = [f"{clip_id}#{number}" for clip_id, number in numbered]
    clip_of_caption = [clip_id for clip_id, _ in numbered]
    audio_CE = embed_clips(embedder, clips, config.batch)
    text_ME = embed_captions(embedder, captions, config.batch)
    right_answers = own_captions if config.positives == "own" else shared_captions
    right_CM, device = right_answers(list(clips["captions"])), default_device()
    right_MC = csr_array(right_CM.T)
    to_audio = rank_right_answers(text_ME, audio_CE, right_MC, device, progress=True)
    to_text = rank_right_answers(audio_CE, text_ME, right_CM, device, progress=True)
    yield from rank_rows(name, "text_to_audio", caption_ids, clip_of_caption, to_audio, len(clips))
    yield from rank_rows(name, "audio_to_text", clip_ids, clip_ids, to_text, len(captions))
