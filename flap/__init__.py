"""FLAP: Fast Language-Audio Pre-training as a staged, reproducible pipeline.

One folder a stage (`sources`, `audio`, `tagger`, …) beside `model` (the paper) and
`training` (the mechanics). See README.md for the graph.

`from flap import FlapModel, FlapProcessor` is all that using a trained model takes; it also
registers FLAP with the Auto classes of transformers.
"""

import importlib
from typing import Any

from flap import torchaudio_on_cpu

torchaudio_on_cpu.install()

_LAZY = {  # torch and transformers load with the first of them, not with every stage's --help
    "FlapConfig": "flap.model.flap",
    "FlapModel": "flap.model.flap",
    "FlapFeatureExtractor": "flap.processor.processor",
    "FlapProcessor": "flap.processor.processor",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'flap' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)
