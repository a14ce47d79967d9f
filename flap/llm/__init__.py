"""The language model: its name → a local checkpoint directory that vLLM can serve."""
