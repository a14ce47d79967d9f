"""Corpora → CLIPS tables: an adapter for each format, an entry of `datasets` for each corpus."""
