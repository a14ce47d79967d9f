"""Commands beside the stages: publish, compare, summary."""
