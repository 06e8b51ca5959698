"""The matrix-multiplication probe: whatever it decides, products stay at float32's accuracy."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from flywheel.core import precision


def test_the_chosen_precision_is_float32s() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        precision.choose_matmul_precision.cache_clear()
        assert precision.choose_matmul_precision() in ("medium", "highest")
        assert precision.matmul_error() < precision.TOLERANCE
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_probe_sees_bfloat16() -> None:
    left, right = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    exact = left.double() @ right.double()
    rounded = left.bfloat16().float() @ right.bfloat16().float()
    assert float((rounded - exact).abs().max() / exact.abs().max()) > 50 * precision.TOLERANCE


@pytest.mark.parametrize(("tolerance", "expected"), [(1.0, "medium"), (0.0, "highest")])
def test_the_decision_follows_the_measured_error(tolerance: float, expected: str) -> None:
    code = f"from flywheel.core import precision as p; p.TOLERANCE = {tolerance}; print(p.choose_matmul_precision())"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.split() == [expected]
