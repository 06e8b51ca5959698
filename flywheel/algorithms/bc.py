"""Behaviour cloning: L = -E_D[log pi(a|s)], and with a goal -E_D[log pi(a|s, g)] (goal-conditioned BC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, group
from flywheel.core.batch import Batch
from flywheel.networks.actors import GaussianActor


@dataclass(frozen=True)
class BCConfig(AlgorithmConfig):
    """Settings of behaviour cloning."""

    learning_rate: float = 3e-4
    """Adam's step size."""


class BC(Algorithm):
    """Behaviour cloning by maximum likelihood of a Gaussian."""

    name = "bc"
    Config = BCConfig

    def __init__(self, config: BCConfig, state_dim: int, action_dim: int, goal_conditioned: bool) -> None:
        super().__init__(config, state_dim, action_dim, goal_conditioned)
        self.config = config
        self.actor = GaussianActor(self.encoder.feature_dim, action_dim, config.hidden)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean negative log likelihood of the data's actions."""
        mean, log_std = self.actor(self.encoder(batch.observation, batch.goal))
        self._metrics = {"log_std": log_std.detach().mean()}
        return {"actor": -ops.gaussian_log_prob(mean, log_std, batch.action).mean()}

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The mean, or a sample clipped to [-1, 1]."""
        mean, log_std = self.actor(self.encoder(observation, goal))
        return ops.gaussian_action(mean, log_std, deterministic)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The actor."""
        return [group(self.config.learning_rate, self.actor)]
