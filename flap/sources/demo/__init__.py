"""The demo corpus: soundscapes made by rule, with captions and labels."""
