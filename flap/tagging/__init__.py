"""Stage `tagging`: log-mels → the sound events that the tagger detects in each clip."""
