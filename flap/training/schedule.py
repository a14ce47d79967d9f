"""The learning rate as a function of the step."""

import math

import torch


def warmup_cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor of the peak rate: rises linearly to 1 in the warm-up, then falls to 0 as a cosine."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, peak: float, step: int, total_steps: int, warmup_steps: int
) -> None:
    """Set the learning rate of `step` in all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = peak * warmup_cosine(step, total_steps, warmup_steps)
