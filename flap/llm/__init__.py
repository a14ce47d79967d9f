"""Stage `llm`: the name of a language model → a local checkpoint directory for vLLM."""
