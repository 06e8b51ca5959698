"""Which float32 matrix multiplication torch uses, decided by measuring its error once."""

from __future__ import annotations

from functools import cache

import torch

TOLERANCE = 1e-5
"""Largest relative error that still counts as float32: measured are 3e-7 to 7e-7, and bfloat16 makes about 3e-3."""


@cache
def choose_matmul_precision() -> str:
    """Set torch's float32 matmul precision to "medium" if that stays at float32's accuracy here, else to "highest"; return it.

    "medium" permits bfloat16, but on CPUs without it torch then only changes library (MKL to oneDNN), which
    doubles the speed on some (AMD with AVX-512) at unchanged accuracy. Where bfloat16 is really used, the probe sees it.
    """
    torch.set_float32_matmul_precision("medium")
    if matmul_error() > TOLERANCE:
        torch.set_float32_matmul_precision("highest")
    return torch.get_float32_matmul_precision()


def matmul_error() -> float:
    """The largest error of a 256^3 float32 product, plain and batched, against float64, relative to its largest entry."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, 256, 256, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    errors = [(torch.bmm(left, right) - exact).abs().max(), (torch.mm(left[0], right[0]) - exact[0]).abs().max()]
    return float(max(errors) / exact.abs().max())
