"""Stage `retrieval`: a FLAP model and a benchmark → the rank of every query, and scores."""
