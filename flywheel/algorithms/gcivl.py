"""Goal-conditioned implicit value learning, as OGBench has it: IQL's expectile without a critic of actions.

    u    = r + gamma min_k Vbar_k(s', g) - mean_k Vbar_k(s, g)
    L_V  = E[ |tau - 1(u < 0)| (r + gamma Vbar_k(s', g) - V_k(s, g))^2 ],  summed over k
    L_pi = -E[ min(exp(alpha (V(s', g) - V(s, g))), 100) log pi(a|s, g) ],  V the mean over k

Without actions a lucky next state counts as a good one, so it is optimistic where the dynamics are random.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import weighted_imitation
from flywheel.algorithms._goal import GoalAgent, GoalConfig
from flywheel.algorithms.base import Sizes, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Ensemble
from flywheel.networks.initialise import glorot


@dataclass(frozen=True)
class GCIVLConfig(GoalConfig):
    """Settings of goal-conditioned implicit value learning."""

    expectile: float = 0.9
    """tau in (0.5, 1): how close V comes to the best next state's value in the data."""
    alpha: float = 10.0
    """The inverse temperature of the actor's weights: 0 imitates the data, larger values follow the value."""
    target_rate: float = 0.005
    """How far the target value moves towards the value at each update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.expectile < 1.0:
            raise FlywheelError(f"The expectile must lie between 0 and 1 (0.9 is usual), not {self.expectile}.")


class GCIVL(GoalAgent):
    """Two expectile values and an actor that imitates with weights."""

    name = "gcivl"
    Config = GCIVLConfig
    actor_sees_next = True

    def __init__(self, config: GCIVLConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.value = glorot(Ensemble(self.encoder.feature_dim, config.critic_layers, 1))
        self.target_value = copy.deepcopy(self.value).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        features, next_features = self.features(batch)
        value = self.value(features).squeeze(-1)
        loss, advantage = implicit_value_loss(batch, value, *self._targets(features, next_features), self.config.expectile)
        self._metrics = {"value": value.detach().mean(), "advantage": advantage.mean()}
        return {"value": loss, "actor": self._actor_loss(batch)}

    def _targets(self, features: Tensor, next_features: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.target_value(features).squeeze(-1), self.target_value(next_features).squeeze(-1)

    def _actor_loss(self, batch: Batch) -> Tensor:
        seen, features = self.aimed(batch)
        with torch.no_grad():
            both = torch.cat([features, self.encoder(batch.next_observation, batch.goal_of_actor)])
            here, following = self.value(both).squeeze(-1).mean(dim=0).chunk(2)
        mean, log_std = self.actor(seen)
        log_prob = ops.gaussian_log_prob(mean, log_std, batch.action)
        return weighted_imitation(log_prob, following - here, self.config.alpha)

    def after_step(self) -> None:
        """Move the target value and the average actor."""
        super().after_step()
        ops.soft_update(self.target_value.parameters(), self.value.parameters(), self.config.target_rate)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Both networks at one rate."""
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.value)]

    def synchronise_targets(self) -> None:
        """Set the target value to the value, the average actor to the actor."""
        super().synchronise_targets()
        self.target_value.load_state_dict(self.value.state_dict())


def implicit_value_loss(
    batch: Batch, value: Tensor, target_value: Tensor, next_target_value: Tensor, expectile: float
) -> tuple[Tensor, Tensor]:
    """The loss L_V, a scalar, and u (B,), from V_k(s, g), Vbar_k(s, g) and Vbar_k(s', g), each (K, B).

    One weight for all members, by the sign of u, so that none of them is optimistic about its own errors.
    """
    following = ops.td_target(batch.reward, batch.discount, next_target_value.amin(dim=0))
    advantage = following - target_value.mean(dim=0)
    targets = batch.reward + batch.discount * next_target_value
    weight = torch.where(advantage < 0, 1.0 - expectile, expectile)
    return (weight * (targets - value).square()).mean(dim=1).sum(), advantage
