"""Commands for people, beside the stages: publish, compare, summary."""
