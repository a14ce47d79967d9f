"""MELS that do not lie where training runs: their heads, single rows, and copies within a bound."""
