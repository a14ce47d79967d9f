"""Training state on disk: one file, whole or absent."""

from pathlib import Path

import torch
from torch import nn

from flap.shards import atomic_path


def save_checkpoint(
    path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """State after `step` steps. Data order, masks and rate are functions of the step."""
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    # Through a file of ours a full disk is an OSError; torch's own would be a RuntimeError.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore in place and return the number of steps done; 0 if there is no checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
