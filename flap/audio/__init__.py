"""Stage `audio`: recordings → full-length log-mels in Parquet, and a reject row per failure."""
