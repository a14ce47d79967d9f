"""Learning rate as a pure function of the step."""

import math

import torch


def warmup_cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor of the peak rate: linear from 0 over the warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, peak: float, step: int, total_steps: int, warmup_steps: int
) -> None:
    """Set the rate of this step on all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = peak * warmup_cosine(step, total_steps, warmup_steps)
