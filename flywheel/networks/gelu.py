"""The tanh form of GELU (Hendrycks, Gimpel 2016; arXiv 1606.08415), which JAX has by default, without a tanh on a CPU.

    gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))

torch takes five times as long for a tanh as for a sigmoid there, and its GELU pays for one forward and for another backward.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_LINEAR = 2.0 * math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715 * _LINEAR


def gelu(features: Tensor) -> Tensor:
    """GELU of every element, of any shape; torch's ``gelu(x, approximate="tanh")`` but for rounding."""
    if features.device.type != "cpu" or features.dtype != torch.float32 or torch.compiler.is_compiling():
        return nn.functional.gelu(features, approximate="tanh")
    if torch.is_grad_enabled() and features.requires_grad:
        return cast(Tensor, _Gelu.apply(features))
    return _gate(features).mul_(features)


def _gate(features: Tensor) -> Tensor:
    """sigmoid(u), u = x (a + b x^2)."""
    return _of_square(features, _LINEAR, _CUBIC).mul_(features).sigmoid_()


def _of_square(features: Tensor, constant: float, factor: float) -> Tensor:
    return torch.addcmul(torch.full((), constant), features, features, value=factor)


class _Gelu(torch.autograd.Function):
    """Keeps the derivative, s + x s (1 - s) u' with s = sigmoid(u), instead of what it follows from: backward is one product."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        gate = _gate(features)
        value = features * gate
        change = _of_square(features, _LINEAR, 3.0 * _CUBIC).mul_(value)
        ctx.save_for_backward(torch.addcmul(change, change, gate, value=-1.0).add_(gate))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (derivative,) = ctx.saved_tensors
        return cast(Tensor, gradient * derivative)
