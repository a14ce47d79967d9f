"""FLAP: Fast Language-Audio Pre-training as a staged, reproducible pipeline.

One folder a stage (`sources`, `audio`, `tagger`, …) beside `model` (the paper) and
`training` (the mechanics). See README.md for the graph.

`from flap import FlapModel, FlapProcessor` is all that using a trained model takes; it also
registers FLAP with the Auto classes of transformers.
"""

import importlib
from typing import Any

from flap.core import torchaudio_on_cpu

torchaudio_on_cpu.install()

# All load with the first of them, so that all Auto classes know FLAP, but not with every
# stage's --help: torch and transformers are slow.
_LAZY = {
    "FlapConfig": "flap.model.flap_config",
    "FlapModel": "flap.model.flap",
    "FlapFeatureExtractor": "flap.processor.processor",
    "FlapProcessor": "flap.processor.processor",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'flap' has no attribute '{name}'")
    modules = {module: importlib.import_module(module) for module in _LAZY.values()}
    return getattr(modules[_LAZY[name]], name)
