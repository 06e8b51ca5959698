"""A sum over rows whose gradients are computed in the forward pass, chunk by chunk.

A network evaluated at tens of actions per state makes activations of many megabytes, which plain autograd writes to memory
in the forward pass and reads again in the backward pass. Chunks whose activations stay in a core's L2 cache are done with
forward and backward before they leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def chunked_sum(function: Callable[..., Tensor], parameters: Sequence[Tensor], rows: Sequence[Tensor], chunk: int) -> Tensor:
    """The sum of function(*rows[i : i + chunk]) over all chunks, a scalar, differentiable with respect to `parameters` alone.

    `function` gets a slice of each of `rows` (equal first axes) and returns the scalar sum over its rows.
    """
    if not torch.is_grad_enabled():
        return function(*rows)
    total: Tensor | None = None
    gradients: tuple[Tensor, ...] = ()
    for start in range(0, len(rows[0]), chunk):
        part = function(*(tensor[start : start + chunk] for tensor in rows))
        of_part = torch.autograd.grad(part, parameters)
        if total is None:
            total, gradients = part.detach(), of_part
        else:
            total += part.detach()
            torch._foreach_add_(gradients, of_part)
    result: Tensor = _WithGradients.apply(total, gradients, *parameters)
    return result


class _WithGradients(torch.autograd.Function):
    """A value whose gradients are known already; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul(ctx.gradients, scale)
