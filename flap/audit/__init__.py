"""Stage `audit`: leaks, duplicates, and missing or long captions over all corpora."""
