"""Timing of alternatives in turn, so that whatever else the machine does hits all of them."""

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm


def interleaved(
    alternatives: Mapping[str, Callable[[], object]], seconds: float, least_rounds: int = 3
) -> dict[str, list[float]]:
    """Seconds of each call of each alternative, round by round, after one untimed round.

    Rounds go on until `seconds` are spent, and at least `least_rounds` times. The order is drawn
    anew for each: memory that one call gave back is paid for by the call that comes next.
    """
    taken: dict[str, list[float]] = {name: [] for name in alternatives}
    for call in tqdm(alternatives.values(), "warm up", leave=False):
        call()
    end = time.perf_counter() + seconds
    order, draw = list(alternatives), random.Random(0)
    rounds = tqdm(desc="rounds", leave=False)
    while time.perf_counter() < end or rounds.n < least_rounds:
        draw.shuffle(order)
        for name in order:
            start = time.perf_counter()
            alternatives[name]()
            taken[name].append(time.perf_counter() - start)
        rounds.update()
    rounds.close()
    return taken


def ratio(taken: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    """Median over rounds of our time over theirs in the same round."""
    return statistics.median(a / b for a, b in zip(taken[ours], taken[theirs], strict=True))


def report(name: str, ratios: Mapping[str, float], **about: Any) -> None:
    """The last line of a benchmark."""
    rounded = {key: round(value, 4) for key, value in ratios.items()}
    print(json.dumps({"benchmark": name, "ratios": rounded} | about))
