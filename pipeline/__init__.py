"""One module a stage: read parameters and tables, call flap, write tables."""
