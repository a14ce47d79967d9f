"""Seeds for independent draws, mixed from what they are for."""

import numpy as np


def seed_of(*parts: int) -> int:
    """A 63-bit seed; the same parts give the same seed on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
