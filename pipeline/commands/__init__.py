"""Commands beside the stages: publish, compare, summary, and the paper's tables."""
