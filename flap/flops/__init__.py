"""Stage `flops`: the FLOPs of the audio encoder under each mask; it needs no data."""
