"""Seeds for independent random draws."""

import numpy as np


def derive_seed(*keys: int) -> int:
    """A 63-bit seed derived from `keys`; the same on every machine."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> np.uint64(1))
