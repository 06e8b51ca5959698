"""From observations to features. Normalisation statistics are buffers, so that a served policy cannot forget them (A20.17)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flywheel.core.errors import FlywheelError


class StateEncoder(nn.Module):
    """Normalises the state, and the goal's beside it: {"state": (B, D)} -> (B, F) with F = D, or 2 D with a goal."""

    mean: Tensor
    std: Tensor

    def __init__(self, state_dim: int, goal_conditioned: bool) -> None:
        super().__init__()
        self.goal_conditioned = goal_conditioned
        self.feature_dim = state_dim * (2 if goal_conditioned else 1)
        self.register_buffer("mean", torch.zeros(state_dim))
        self.register_buffer("std", torch.ones(state_dim))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Normalise by (state - mean) / std from now on, each (D,); raises `FlywheelError` unless std is finite and positive."""
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise FlywheelError("Normalisation needs a finite mean and a finite, positive standard deviation of the state.")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None = None) -> Tensor:
        """(B, F); raises `FlywheelError` where a goal is needed and missing, and ignores one that is not needed."""
        state = self._normalise(observation["state"])
        if not self.goal_conditioned:
            return state
        if goal is None:
            raise FlywheelError("This network is goal-conditioned and was given no goal; put a goal relabeler in front.")
        return torch.cat([state, self._normalise(goal["state"])], dim=-1)

    def _normalise(self, state: Tensor) -> Tensor:
        return (state - self.mean) / self.std
