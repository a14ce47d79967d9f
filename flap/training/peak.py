"""What a device could do at most: FLOP/s of dense products in bf16, which training uses on GPUs."""

import math
import os
import re

import torch

from flap.core.errors import UserError

_VARIABLE = "FLAP_PEAK_TFLOPS"
# TFLOP/s without sparsity, accumulated in float32, by the device's whole name without "NVIDIA":
# another form of a card (laptop, MIG share) is another device. From NVIDIA's datasheets of each
# card, RTX 4090 from the whitepaper of the Ada architecture; where a datasheet has the figure
# with sparsity alone, half of that. V100 has no bf16: its fp16.
_PEAK_TFLOPS = {
    r"(Tesla )?V100-SXM[23]-(16|32)GB": 125,
    r"(Tesla )?V100-PCIE-(16|32)GB": 112,
    r"A100-(SXM4|PCIE)-(40|80)GB": 312,
    r"A100 80GB PCIe": 312,
    r"A10": 125,
    r"L4": 121,
    r"L40S": 362,
    r"GeForce RTX 4090": 165.2,
    r"H100 80GB HBM3": 989.4,  # SXM
    r"H100 PCIe": 756,
    r"H200": 989.4,
    r"B200": 2250,
}


def peak_flops(device: torch.device) -> float:
    """FLOP/s of `device`: what FLAP_PEAK_TFLOPS says, else the known card's, NaN of any other.

    Raises:
        UserError: FLAP_PEAK_TFLOPS is no number above 0.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return 1e12 * _positive(named)
    if device.type != "cuda":
        return math.nan
    return 1e12 * _of_card(torch.cuda.get_device_name(device))


def _of_card(name: str) -> float:
    name = name.removeprefix("NVIDIA ")
    fits = (tflops for card, tflops in _PEAK_TFLOPS.items() if re.fullmatch(card, name))
    return next(fits, math.nan)


def _positive(named: str) -> float:
    try:
        tflops = float(named)
    except ValueError:
        tflops = math.nan
    if not 0 < tflops < math.inf:
        raise UserError(f"{_VARIABLE}={named}: expected TFLOP/s of one device, a number above 0")
    return tflops
