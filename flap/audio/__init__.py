"""Stage `audio`: recordings → full-length log-mels in Parquet, and a reject row for each failure."""
