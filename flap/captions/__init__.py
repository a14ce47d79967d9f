"""Weak captions + detected sound events → enriched captions, by a language model, audited."""
