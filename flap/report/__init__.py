"""What every stage left behind, as one self-contained HTML page."""
