"""FLAP: Fast Language-Audio Pre-training as a staged, reproducible pipeline.

One folder a stage (`sources`, `audio`, `tagger`, …) beside `model` (the paper) and
`training` (the mechanics). See README.md for the graph.
"""

from flap import torchaudio_on_cpu

torchaudio_on_cpu.install()
