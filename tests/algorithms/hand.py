"""Networks of one state and one action dimension whose outputs are known, and a batch of three rows, for losses by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from flywheel.algorithms.base import Sizes
from flywheel.core.batch import Batch
from flywheel.networks.critics import Critic, ValueFunction

SIZES, HIDDEN = Sizes(1, 1), (1,)
_SHIFT = 8.0
"""Keeps the one hidden unit above zero, where relu is linear."""

S, A, R = np.array([0.1, 0.2, 0.3]), np.array([0.5, -0.6, 0.0]), np.array([0.0, 1.0, 0.25])
DISCOUNT, FOLLOWING, RETURN = np.array([0.9, 0.0, 0.9]), np.array([0.4, -0.2, 0.6]), np.array([2.0, -1.0, 0.4])
"""The second row is terminal."""


def three_rows() -> Batch:
    def column(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)[:, None]

    flat = [torch.tensor(values, dtype=torch.float32) for values in (R, DISCOUNT, RETURN)]
    return Batch({"state": column(S)}, column(A), flat[0], flat[1], {"state": column(FOLLOWING)}, mc_return=flat[2])


@torch.no_grad()
def set_critic(critic: Critic, at_zero: Sequence[float], slopes: Sequence[float]) -> None:
    """Set member k to Q_k(s, a) = at_zero[k] + s + slopes[k] a."""
    first = critic.hidden[0]
    first.weight[:, 0] = 1.0
    first.weight[:, 1, 0] = torch.tensor(slopes)
    first.bias.fill_(_SHIFT)
    critic.output.weight.fill_(1.0)
    critic.output.bias[:, 0, 0] = torch.tensor(at_zero) - _SHIFT


def q(at_zero: Sequence[float], slopes: Sequence[float], state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """What `set_critic` makes of it: states (B,) and actions (B,) or (B, N) -> (K, B) or (K, B, N)."""
    state = state.reshape(-1, *[1] * (np.ndim(action) - 1))
    return np.stack([zero + state + slope * action for zero, slope in zip(at_zero, slopes, strict=True)])


@torch.no_grad()
def set_value(value: ValueFunction, at_zero: float) -> None:
    """V(s) = at_zero + s."""
    value.hidden.layers[0].weight.fill_(1.0)
    value.hidden.layers[0].bias.fill_(_SHIFT)
    value.output.weight.fill_(1.0)
    value.output.bias.fill_(at_zero - _SHIFT)


@torch.no_grad()
def set_actor(actor: nn.Module, mean: float, log_std: float = 0.0) -> None:
    """The same action distribution in every state; `mean` is before the tanh, which all actors have."""
    for parameter in actor.parameters():
        parameter.zero_()
    actor.mean.bias.fill_(mean)
    if isinstance(spread := getattr(actor, "log_std", None), nn.Linear):
        spread.bias.fill_(log_std)
    elif spread is not None:
        spread.fill_(log_std)


def normal(*shape: int) -> np.ndarray:
    """The next draws of torch's global generator."""
    return torch.randn(*shape).numpy().astype(np.float64)
