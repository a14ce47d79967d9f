"""Stage `tagging`: log-mels → the sound events that the tagger hears in each clip."""
