"""The demo corpus: generated soundscapes with captions and labels."""
