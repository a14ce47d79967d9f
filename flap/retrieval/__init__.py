"""Stage `retrieval`: a model and a benchmark → the rank of every query, and scores."""
