"""Corpora as CLIPS tables: one adapter a kind of corpus, one entry of `datasets` a corpus."""
