"""Benchmarks of speed against peers, both in one run: `python -m benchmarks.NAME`.

The last line of output is JSON, {"benchmark": NAME, "ratios": {…}, …}. Only the ratios are
comparable, since machines differ and may be busy.
"""

import flap  # noqa: F401  before transformers, so that torchaudio imports with a CPU torch
