"""One module for each stage: read parameters and tables, call flap, write tables."""
