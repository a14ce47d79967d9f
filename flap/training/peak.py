"""Peak FLOP/s of a device for dense bf16 matrix products, which GPUs train with."""

import math
import os
import re

import torch

from flap.core.errors import UserError

_VARIABLE = "FLAP_PEAK_TFLOPS"
# TFLOP/s without sparsity, accumulated in float32. A pattern must match the full device name after
# "NVIDIA", because variants of a card (laptop, MIG slice) have other peaks. Source: NVIDIA's
# datasheets; for the RTX 4090 the whitepaper of the Ada architecture. If a datasheet gives only
# the figure with sparsity, this table has half of it. The V100 lacks bf16, so its fp16 counts.
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
    """Peak FLOP/s of `device`: FLAP_PEAK_TFLOPS if it is set, else the table; NaN if unknown.

    Raises:
        UserError: FLAP_PEAK_TFLOPS is not a number above 0.
    """
    setting = os.environ.get(_VARIABLE)
    if setting:
        return 1e12 * _parse_tflops(setting)
    if device.type != "cuda":
        return math.nan
    return 1e12 * _card_tflops(torch.cuda.get_device_name(device))


def _card_tflops(name: str) -> float:
    name = name.removeprefix("NVIDIA ")
    matches = (tflops for card, tflops in _PEAK_TFLOPS.items() if re.fullmatch(card, name))
    return next(matches, math.nan)


def _parse_tflops(setting: str) -> float:
    try:
        tflops = float(setting)
    except ValueError:
        tflops = math.nan
    if not 0 < tflops < math.inf:
        raise UserError(f"{_VARIABLE}={setting}: expected a device's TFLOP/s, a number above 0")
    return tflops
