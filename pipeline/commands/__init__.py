"""Commands that are not stages: publish, compare, summary."""
