"""Stage `flops`: what the audio encoder costs under each mask, without any data."""
