"""Goal-conditioned implicit Q-learning (Kostrikov et al. 2021, with goals), as OGBench has it.

    L_V  = E[ |tau - 1(u < 0)| u^2 ],  u = min_k Qbar_k(s, a, g) - V(s, g)
    L_Q  = E[ (r + gamma V(s', g) - Q_k(s, a, g))^2 ]
    L_pi = -E[min_k Q_k(s, mu(s, g), g)] / E[|Q|] - alpha E[log pi(a|s, g)]     (ddpgbc)
         | -E[ min(exp(alpha (min_k Q_k - V)), 100) log pi(a|s, g) ]             (awr)

The critics' goals and the actor's are drawn apart, rewards are -1 until the goal and 0 there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import ActorLoss, ascent_with_imitation, weighted_imitation
from flywheel.algorithms._goal import GoalAgent, GoalConfig
from flywheel.algorithms.base import Sizes, frozen, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Critic, ValueFunction
from flywheel.networks.initialise import glorot


@dataclass(frozen=True)
class GCIQLConfig(GoalConfig):
    """Settings of goal-conditioned implicit Q-learning."""

    expectile: float = 0.9
    """tau in (0.5, 1): how close V comes to the best action's value in the data."""
    actor_loss: ActorLoss = "ddpgbc"
    """Follow the critic's gradient and imitate (ddpgbc), or imitate with weights (awr)."""
    alpha: float = 0.3
    """ddpgbc: the weight of imitation (OGBench: 0.003 for the point maze, 0.3 for the ant, 1 for manipulation); awr: the inverse
    temperature (10 is usual). The setting that matters most."""
    target_rate: float = 0.005
    """How far the target critic moves towards the critic at each update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.expectile < 1.0:
            raise FlywheelError(f"The expectile must lie between 0 and 1 (0.9 is usual), not {self.expectile}.")


class GCIQL(GoalAgent):
    """Expectile value, twin critics, and an actor that follows them."""

    name = "gciql"
    Config = GCIQLConfig

    def __init__(self, config: GCIQLConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.critic = glorot(Critic(self.encoder.feature_dim, sizes.action, config.critic_layers))
        self.value = glorot(ValueFunction(self.encoder.feature_dim, config.critic_layers))
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        features, next_features = self.features(batch)
        with torch.no_grad():
            target_q = self.target_critic(features, batch.action).amin(dim=0)
            next_value = self.value(next_features)
        q = self.critic(features, batch.action)
        advantage = target_q - self.value(features)
        self._metrics = {"q": q.detach().mean(), "advantage": advantage.detach().mean()}
        return {
            "value": ops.expectile_loss(advantage, self.config.expectile),
            "critic": ops.squared_td_loss(q, ops.td_target(batch.reward, batch.discount, next_value)),
            "actor": self._actor_loss(batch),
        }

    def _actor_loss(self, batch: Batch) -> Tensor:
        seen, features = self.aimed(batch)
        mean, log_std = self.actor(seen)
        log_prob = ops.gaussian_log_prob(mean, log_std, batch.action)
        if self.config.actor_loss == "awr":
            with torch.no_grad():
                advantage = self.critic(features, batch.action).amin(dim=0) - self.value(features)
            return weighted_imitation(log_prob, advantage, self.config.alpha)
        with frozen(self.critic):
            q = self.critic(features, mean.clamp(-1.0, 1.0)).amin(dim=0)
        return ascent_with_imitation(q, log_prob, self.config.alpha)

    def after_step(self) -> None:
        """Move the target critic and the average actor."""
        super().after_step()
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All three networks at one rate."""
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.critic, self.value)]

    def synchronise_targets(self) -> None:
        """Set the target critic to the critic, the average actor to the actor."""
        super().synchronise_targets()
        self.target_critic.load_state_dict(self.critic.state_dict())
