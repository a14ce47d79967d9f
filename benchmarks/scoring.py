"""Ranks by counting, against LS-CLAP's method: sorting the whole score matrix.

    python -m benchmarks.scoring [--clips 2000] [--seconds 20]

Random embeddings of width 512, five captions per clip, both directions. Keys of `ratios`, and
expected values:

    speedup         time of one argsort per caption slot in each direction, over ours: at least 8
    vs_sort_once    the same, but one argsort per clip serves all five captions
    extra_mb        our peak memory beyond the embeddings at 5,000 clips: under 100

The benchmark asserts that all methods give the same R@k.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy.sparse import csr_array

from benchmarks.interleaved import interleaved, ratio, report
from flap.retrieval.positives import own_captions
from flap.retrieval.ranks import rank_right_answers

_WIDTH, _CAPTIONS, _MEMORY_CLIPS, _RECALL_AT = 512, 5, 5000, (1, 5, 10)
Recalls = dict[str, float]


def main(
    clips: Annotated[int, typer.Option(help="clips, with five captions each")] = 2000,
    seconds: Annotated[float, typer.Option(help="measuring time, after warming up")] = 20,
    memory_clips: Annotated[int, typer.Option(help="clips for measuring memory")] = _MEMORY_CLIPS,
) -> None:
    """Time all methods on the same embeddings, and measure our memory in a new process."""
    audio_CE, text_ME = embeddings(clips)
    for once in (False, True):
        assert by_counting(audio_CE, text_ME) == by_sorting(audio_CE, text_ME, once=once)
    taken = interleaved(
        {
            "ours": lambda: by_counting(audio_CE, text_ME),
            "slots": lambda: by_sorting(audio_CE, text_ME, once=False),
            "once": lambda: by_sorting(audio_CE, text_ME, once=True),
        },
        seconds,
    )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        extra_mb = process.submit(_extra_mb, memory_clips).result()
    ratios = {
        "speedup": ratio(taken, "slots", "ours"),
        "vs_sort_once": ratio(taken, "once", "ours"),
        "extra_mb": extra_mb,
    }
    least = {name: round(min(times), 3) for name, times in taken.items()}
    report("scoring", ratios, seconds=least, clips=clips, rounds=len(taken["ours"]))


def embeddings(clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (C, E) of clips and (5 C, E) of captions, correlated with their clips."""
    rng = np.random.default_rng(0)
    audio_CE = rng.standard_normal((clips, _WIDTH), dtype=np.float32)
    text_ME = rng.standard_normal((clips * _CAPTIONS, _WIDTH), dtype=np.float32) * 8
    text_ME += np.repeat(audio_CE, _CAPTIONS, axis=0)
    return _normalised(audio_CE), _normalised(text_ME)


def _normalised(rows_XE: np.ndarray) -> np.ndarray:
    return rows_XE / np.linalg.norm(rows_XE, axis=1, keepdims=True)


def by_counting(audio_CE: np.ndarray, text_ME: np.ndarray) -> Recalls:
    """R@k of both directions, by counting."""
    own_CM = own_captions([[""] * _CAPTIONS] * len(audio_CE))
    to_audio = rank_right_answers(text_ME, audio_CE, csr_array(own_CM.T)).rank_Q
    to_text = rank_right_answers(audio_CE, text_ME, own_CM).rank_Q
    return _recalls(to_audio, to_text)


def by_sorting(audio_CE: np.ndarray, text_ME: np.ndarray, *, once: bool) -> Recalls:
    """R@k of both directions, by sorting the whole score matrix for each caption slot.

    Args:
        once: sort each clip's scores once for all slots.
    """
    audio, text = torch.from_numpy(audio_CE), torch.from_numpy(text_ME)
    per_audio_CM = audio @ text.T
    clips = torch.arange(len(audio))
    to_audio, to_text = [], []
    for slot in range(_CAPTIONS):
        per_text_CC = per_audio_CM[:, slot::_CAPTIONS].T
        order_CC = torch.argsort(per_text_CC, dim=1, descending=True)
        to_audio.append((order_CC == clips[:, None]).nonzero()[:, 1] + 1)
        if slot == 0 or not once:
            order_CM = torch.argsort(per_audio_CM, dim=1, descending=True)
        own_C1 = _CAPTIONS * clips[:, None] + slot
        to_text.append((order_CM == own_C1).nonzero()[:, 1] + 1)
    return _recalls(torch.cat(to_audio).numpy(), torch.stack(to_text).amin(dim=0).numpy())


def _recalls(to_audio: np.ndarray, to_text: np.ndarray) -> Recalls:
    ranks = {"text_to_audio": to_audio, "audio_to_text": to_text}
    return {f"{way} R@{k}": (r <= k).mean() for way, r in ranks.items() for k in _RECALL_AT}


def _extra_mb(clips: int) -> float:
    """The rise of this process's memory while it ranks; for a new process on Linux."""
    by_counting(*embeddings(10))  # libraries allocate their memory
    audio_CE, text_ME = embeddings(clips)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status_kib("VmRSS")
    by_counting(audio_CE, text_ME)
    return (_status_kib("VmHWM") - before) / 1000


def _status_kib(name: str) -> int:
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    typer.run(main)
