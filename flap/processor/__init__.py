"""Waveforms and captions → what a FLAP model takes, as a `transformers` processor."""
