"""Stage `tagger`: log-mels and labels → a sound-event tagger with an AudioSet head."""
