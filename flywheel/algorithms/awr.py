"""Advantage-weighted regression (Peng, Kumar, Zhang, Levine 2019; arXiv 1910.00177).

    L_V  = E_D[ (R - V(s))^2 ],  R the discounted return that the data went on to collect
    L_pi = -E_D[ min(exp(beta (R - V(s))), 20) log pi(a|s) ]

The simplest of the family: no critic of actions, no bootstrapping. Where a store mixes policies, R says what they went on to do
and not what the best would have. Differences from the official code: returns to the end of the episode instead of TD(0.95), one
Adam for both networks instead of momentum, and advantages that are not normalised over the batch, which would make beta depend on
the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import GaussianPolicy, GaussianPolicyConfig
from flywheel.algorithms.base import Sizes, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import ValueFunction

_LARGEST_WEIGHT = 20.0


@dataclass(frozen=True)
class AWRConfig(GaussianPolicyConfig):
    """Settings of advantage-weighted regression."""

    inverse_temperature: float = 1.0
    """beta: 0 imitates the data, larger values follow the returns."""
    learning_rate: float = 3e-4
    """Adam's step size, for both networks."""


class AWR(GaussianPolicy):
    """A value of the data's returns, and an actor that imitates what did better."""

    name = "awr"
    Config = AWRConfig
    needs_returns = True

    def __init__(self, config: AWRConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.value = ValueFunction(self.encoder.feature_dim, config.critic_layers)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations; raises `FlywheelError` for a batch without returns."""
        if batch.mc_return is None:
            raise FlywheelError("AWR needs the data's returns in the batch; use the relabelling 'task' or 'task_goal'.")
        features = self.encoder(batch.observation, batch.goal)
        advantage = batch.mc_return - self.value(features)
        weights = ops.advantage_weights(advantage, self.config.inverse_temperature, _LARGEST_WEIGHT)
        mean, log_std = self.actor(self.actor_features(batch.observation, batch.goal, features))
        log_prob = ops.gaussian_log_prob(mean, log_std, batch.action)
        self._metrics = {"advantage": advantage.detach().mean(), "weight": weights.mean()}
        return {"value": advantage.square().mean(), "actor": -(weights * log_prob).mean()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Both networks at one rate."""
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.value)]
