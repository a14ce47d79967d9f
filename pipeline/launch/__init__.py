"""Where pre-training runs: torchrun on one node or several, Slurm, Ray Train."""
