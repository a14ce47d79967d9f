"""Stages of experiments/dvc.yaml: the parameters of every run, and the page of results."""
