"""The `transformers` processor of FLAP: waveforms and captions → inputs of the model."""
