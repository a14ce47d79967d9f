"""Prefect: the flow that runs the stages, its server and its worker."""
