"""Stage `audio`: recordings → full-length log-mels in Parquet, and a reject for each failure."""
