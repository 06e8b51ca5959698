"""The cross-entropy method: maximise a value over actions by sampling (QT-Opt, Kalashnikov et al. 2018, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Found(NamedTuple):
    """Where the search ended."""

    mean: Tensor
    """(B, A) of the last elites."""
    std: Tensor
    """(B, A) of the last elites, as their maximum-likelihood Gaussian has it but for the division by one less."""
    best: Tensor
    """(B, A) the best candidate of the last round."""


def cross_entropy_method(
    value: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor, rounds: Iterable[Tensor], elites: int
) -> Found:
    """Fit a Gaussian to the best candidates, again and again.

    Args:
        value: Candidates (B, N, A) in [-1, 1] -> values (B, N).
        mean: (B, A) where to begin.
        std: (B, A) how widely.
        rounds: One standard normal draw per round, (N, A) or (B, N, A).
        elites: How many of the N the Gaussian is fitted to, at least 2.
    """
    best = mean
    for noise in rounds:
        candidates = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1.0, 1.0)
        order = value(candidates).topk(elites, dim=1).indices
        chosen = candidates.gather(1, order.unsqueeze(-1).expand(-1, -1, mean.shape[1]))
        mean, std, best = chosen.mean(dim=1), chosen.std(dim=1), chosen[:, 0]
    return Found(mean, std, best)


def fixed_noise(rounds: int, samples: int, action_dim: int) -> Tensor:
    """The same draws each time, (rounds, samples, A), with the Gaussian's mean among the candidates: for repeatable actions."""
    noise = torch.randn((rounds, samples, action_dim), generator=torch.Generator().manual_seed(0))
    noise[:, 0] = 0.0
    return noise
