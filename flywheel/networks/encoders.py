"""From observations to features. Normalisation statistics are buffers, so that a served policy cannot forget them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flywheel.core.errors import FlywheelError


class StateEncoder(nn.Module):
    """The normalised state, which of `tasks` tasks it is as one-hot, and the normalised goal: {"state": (B, D), "task": (B,)} ->
    (B, F) with F = D + tasks, and D more with a goal.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state_dim: int, goal_conditioned: bool, tasks: int = 0) -> None:
        super().__init__()
        self.goal_conditioned = goal_conditioned
        self.tasks = tasks
        self.feature_dim = state_dim * (2 if goal_conditioned else 1) + tasks
        self.register_buffer("mean", torch.zeros(state_dim))
        self.register_buffer("std", torch.ones(state_dim))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Normalise by (state - mean) / std from now on, each (D,); raises `FlywheelError` unless std is finite and positive."""
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise FlywheelError("Normalisation needs a finite mean and a finite, positive standard deviation of the state.")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None = None) -> Tensor:
        """(B, F); raises `FlywheelError` where a goal or a task is needed and missing, and ignores one that is not needed."""
        features = [self._normalise(observation["state"])]
        if self.tasks:
            if "task" not in observation:
                raise FlywheelError("This network is conditioned on a task and was given none; name one that it has learned.")
            features.append(nn.functional.one_hot(observation["task"], self.tasks).to(features[0].dtype))
        if self.goal_conditioned:
            if goal is None:
                raise FlywheelError("This network is goal-conditioned and was given no goal; put a goal relabeler in front.")
            features.append(self._normalise(goal["state"]))
        return torch.cat(features, dim=-1) if len(features) > 1 else features[0]

    def _normalise(self, state: Tensor) -> Tensor:
        return (state - self.mean) / self.std
