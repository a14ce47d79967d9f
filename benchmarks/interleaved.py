"""Times alternatives in turn, so that other load on the machine affects all of them alike."""

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm


def interleaved(
    alternatives: Mapping[str, Callable[[], object]], seconds: float, min_rounds: int = 3
) -> dict[str, list[float]]:
    """Call all alternatives in each round, after an untimed warm-up round.

    The order in a round is random, since a call can profit from memory that the previous call
    released, or pay for it.

    Args:
        seconds: time to measure for.
        min_rounds: lower limit of the number of rounds.

    Returns:
        The seconds of each call of each alternative, in the order of rounds.
    """
    taken: dict[str, list[float]] = {name: [] for name in alternatives}
    for call in tqdm(alternatives.values(), "warm up", leave=False):
        call()
    end = time.perf_counter() + seconds
    order, draw = list(alternatives), random.Random(0)
    rounds = tqdm(desc="rounds", leave=False)
    while time.perf_counter() < end or rounds.n < min_rounds:
        draw.shuffle(order)
        for name in order:
            start = time.perf_counter()
            alternatives[name]()
            taken[name].append(time.perf_counter() - start)
        rounds.update()
    rounds.close()
    return taken


def ratio(taken: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    """Median over rounds of the time of `ours` divided by the time of `theirs`."""
    return statistics.median(a / b for a, b in zip(taken[ours], taken[theirs], strict=True))


def report(name: str, ratios: Mapping[str, float], **about: Any) -> None:
    """Print the last line of a benchmark."""
    rounded = {key: round(value, 4) for key, value in ratios.items()}
    print(json.dumps({"benchmark": name, "ratios": rounded} | about))
