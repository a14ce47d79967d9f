"""Stage `captions`: captions and detected sound events → enriched captions, each checked."""
