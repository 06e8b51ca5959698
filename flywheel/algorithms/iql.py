"""Implicit Q-learning (Kostrikov, Nair, Levine 2021; arXiv 2110.06169).

    L_V  = E_D[ |tau - 1(u < 0)| u^2 ],  u = min_k Qbar_k(s, a) - V(s)          (eq. 5)
    L_Q  = E_D[ (r + gamma V(s') - Q_k(s, a))^2 ]                                (eq. 6)
    L_pi = -E_D[ min(exp(beta (min_k Qbar_k(s, a) - V(s))), 100) log pi(a|s) ]   (eq. 7: awr)
         | -E_D[ min_k Q_k(s, pi(s)) ] / E_D[|Q|] - w E_D[ log pi(a|s) ]         (ddpgbc)

tau is `expectile`, beta `inverse_temperature`, w `imitation_weight`, Qbar the target critic. With `imitate` successes
log pi(a|s) counts only where the data went on to collect a return, with weights of 1 in the mean. Defaults are the official
code's.
One difference: the actor's learning rate is constant, because a cosine decay is wrong where training goes on online.
The second form of L_pi asks the critic for a direction too, and gets more out of the same critic (Park, Frans, Levine, Kumar
2024, "Is value learning really the main bottleneck in offline RL?", and docs/results.md).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import (
    ActorLoss,
    GaussianPolicy,
    GaussianPolicyConfig,
    ascent_with_imitation,
    weighted_imitation,
)
from flywheel.algorithms.base import Sizes, frozen, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Critic, ValueFunction


@dataclass(frozen=True)
class IQLConfig(GaussianPolicyConfig):
    """Settings of implicit Q-learning."""

    expectile: float = 0.7
    """tau in (0.5, 1): how close V comes to the best action's value in the data; 0.9 where good actions are rare."""
    inverse_temperature: float = 3.0
    """beta, of awr: 0 imitates the data, larger values follow the critic; 10 where good actions are rare."""
    actor_loss: ActorLoss = "awr"
    """How the actor follows the critic: imitation weighted by the advantage (awr), or the critic's gradient beside imitation."""
    imitation_weight: float = 0.1
    """w, of ddpgbc: beside a critic whose values are 1 in the mean."""
    imitate: Literal["all", "successes"] = "all"
    """What the actor imitates: all of the data, or only what led to a return above 0, so that the critic alone learns from
    failures. For own episodes: a policy that imitates where it got stuck stays stuck. Rewards must be 0 without a success."""
    learning_rate: float = 3e-4
    """Adam's step size, for all three networks."""
    target_rate: float = 0.005
    """How far the target critic moves towards the critic at each update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.expectile < 1.0:
            raise FlywheelError(f"The expectile must lie between 0 and 1 (0.7 is usual), not {self.expectile}.")

    @property
    def tells_successes(self) -> bool:
        """Where it imitates them alone."""
        return self.imitate == "successes"


class IQL(GaussianPolicy):
    """Implicit Q-learning; never asks the critic about an action that is not in the data."""

    name = "iql"
    Config = IQLConfig

    def __init__(self, config: IQLConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        features = self.encoder.feature_dim
        self.critic = Critic(features, sizes.action, config.critic_layers)
        self.value = ValueFunction(features, config.critic_layers)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Equations 5 to 7."""
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
            "actor": self._actor_loss(features, batch, advantage.detach()),
        }

    def _actor_loss(self, features: Tensor, batch: Batch, advantage: Tensor) -> Tensor:
        mean, log_std = self.actor(self.actor_features(batch.observation, batch.goal, features))
        log_prob = ops.gaussian_log_prob(mean, log_std, batch.action)
        if self.config.imitate == "successes":
            log_prob = log_prob * self._succeeds(batch)
        if self.config.actor_loss == "awr":
            return weighted_imitation(log_prob, advantage, self.config.inverse_temperature)
        with frozen(self.critic):
            q = self.critic(features.detach(), mean).amin(dim=0)
        return ascent_with_imitation(q, log_prob, self.config.imitation_weight)

    def _succeeds(self, batch: Batch) -> Tensor:
        """(B,) 0 where nothing was collected any more, else one number, so that their mean is 1."""
        if batch.mc_return is None:
            raise FlywheelError("Successes are told by the data's returns; use the relabelling 'task' or 'task_goal'.")
        succeeds = (batch.mc_return > 0).float()
        self._metrics["imitated"] = succeeds.mean()
        return succeeds / succeeds.mean().clamp(min=1 / len(succeeds))

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
