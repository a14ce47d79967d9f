"""Stage `pretrain`: log-mels and captions → a FLAP model."""
