"""Behaviour cloning: L = -E_D[log pi(a|s)], and with a goal -E_D[log pi(a|s, g)], g the actor's (goal-conditioned BC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import GaussianPolicy, GaussianPolicyConfig
from flywheel.algorithms.base import Sizes, group
from flywheel.core.batch import Batch


@dataclass(frozen=True)
class BCConfig(GaussianPolicyConfig):
    """Settings of behaviour cloning."""

    learning_rate: float = 3e-4
    """Adam's step size."""


class BC(GaussianPolicy):
    """Behaviour cloning by maximum likelihood of a Gaussian."""

    name = "bc"
    Config = BCConfig
    values = False

    def __init__(self, config: BCConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean negative log likelihood of the data's actions."""
        mean, log_std = self.actor(self.actor_features(batch.observation, batch.goal_of_actor))
        self._metrics = {"log_std": log_std.detach().mean()}
        return {"actor": -ops.gaussian_log_prob(mean, log_std, batch.action).mean()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The actor."""
        return [group(self.config.learning_rate, *self.encoders, self.actor)]
