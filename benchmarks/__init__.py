"""Speed against peers, side by side in one run: `python -m benchmarks.NAME`.

Each ends with one line of JSON, {"benchmark": NAME, "ratios": {…}, …}. Only ratios count:
machines differ, and this one may be busy.
"""

import flap  # noqa: F401  before transformers, so that torchaudio loads on a CPU torch
