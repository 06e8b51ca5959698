"""Actors: features (B, F) -> mean and log standard deviation of a Gaussian over actions, each (B, A).

The densities are in `algorithms/ops.py`. Every actor's most likely action is `tanh` of the layer called `mean`, so that one can
be started from another; `UnitGaussianActor` has the layer itself, so that others start from it with smaller actions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flywheel.networks.initialise import glorot
from flywheel.networks.mlp import MLP, Layers


class GaussianActor(nn.Module):
    """A Gaussian with its mean inside [-1, 1], not squashed, and one log-std per action dimension for all states.

    As in the official IQL code: tanh on the mean, state-independent log-std, at least -5.
    """

    LOG_STD_RANGE = (-5.0, 2.0)

    def __init__(self, feature_dim: int, action_dim: int, layers: Layers) -> None:
        super().__init__()
        self.hidden = MLP(feature_dim, layers)
        self.mean = nn.Linear(layers.width, action_dim)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) -> mean (B, A) in [-1, 1], log-std (B, A)."""
        mean = torch.tanh(self.mean(self.hidden(features)))
        return mean, self.log_std.expand_as(mean)

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """After an optimizer step; a clamp in `forward` has no gradient at its ends, so the log-std would never come back."""
        self.log_std.clamp_(*self.LOG_STD_RANGE)


class UnitGaussianActor(nn.Module):
    """A Gaussian with any mean and a standard deviation of 1, as OGBench's agents have it: maximum likelihood is least squares.

    Its mean is clipped to the range of actions where it acts and where a critic values it, not where it learns.
    """

    INITIAL_SCALE = 0.01

    def __init__(self, feature_dim: int, action_dim: int, layers: Layers) -> None:
        super().__init__()
        self.hidden = MLP(feature_dim, layers)
        self.mean = nn.Linear(layers.width, action_dim)
        glorot(self.hidden)
        glorot(self.mean, self.INITIAL_SCALE)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) -> mean (B, A), log-std (B, A), which is 0."""
        mean: Tensor = self.mean(self.hidden(features))
        return mean, torch.zeros_like(mean, dtype=torch.float32)  # densities are float32 also where layers are not


class DeterministicActor(nn.Module):
    """One action per state (TD3)."""

    def __init__(self, feature_dim: int, action_dim: int, layers: Layers) -> None:
        super().__init__()
        self.hidden = MLP(feature_dim, layers)
        self.mean = nn.Linear(layers.width, action_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, A) in [-1, 1]."""
        return torch.tanh(self.mean(self.hidden(features)))


class TanhGaussianActor(nn.Module):
    """A Gaussian that is squashed by tanh afterwards (SAC, CQL); mean and log-std both depend on the state."""

    LOG_STD_RANGE = (-20.0, 2.0)

    def __init__(self, feature_dim: int, action_dim: int, layers: Layers) -> None:
        super().__init__()
        self.hidden = MLP(feature_dim, layers)
        self.mean = nn.Linear(layers.width, action_dim)
        self.log_std = nn.Linear(layers.width, action_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) -> mean (B, A) before the tanh, log-std (B, A) before the tanh."""
        hidden = self.hidden(features)
        return self.mean(hidden), self.log_std(hidden).clamp(*self.LOG_STD_RANGE)
