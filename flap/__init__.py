"""FLAP: Fast Language-Audio Pre-training as a staged, reproducible pipeline.

Each stage has a package (`sources`, `audio`, `tagger`, …). `model` is the model of the paper,
`training` the mechanics of training. README.md explains the graph.

To use a trained model, `from flap import FlapModel, FlapProcessor` is enough. This import also
registers FLAP with the Auto classes of transformers.
"""

import importlib
from typing import Any

from flap.core import torchaudio_on_cpu

torchaudio_on_cpu.install()

# Classes that load on first use, because torch and transformers are slow to import. The first use
# of one class loads all of them, so that all Auto classes know FLAP.
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
