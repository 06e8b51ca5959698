"""Implicit Actionable Models: Actionable Models (Chebotar et al. 2021) that never ask about an action outside the data.

    y    = 1 where s' is the goal;  gamma V(s', g) before;  Qbar(s, a, g) at the end of a chained sub-trajectory
    L_Q  = E[ (H (max(y, gamma^d) - Q_k(s, a, g)))^2 ],  d the steps that the data took from s' to the goal, where it came there
    L_V  = E[ |tau - 1(u < 0)| u^2 ],  u = H (min_k Qbar_k(s, a, g) - V(s, g))
    L_pi = -E[ min(exp(alpha H (V(s_{t+n}, g) - V(s_t, g))), 100) log pi(a_t|s_t, g) ]

Goals come in Actionable Models' two streams, hindsight and chaining, and Q in [0, 1] is the discounted probability of reaching
one. The networks give H (Q - 1), which counts steps: with H = 1 / (1 - gamma) it is the return of rewards {-1, 0}. What is
different from Actionable Models, and what each difference is worth, is in docs/actionable_models.md:

* The maximum over actions is IQL's expectile over the data's actions (Kostrikov et al. 2021) and not the best of CEM's or an
  actor's proposals, so no value of an action that nobody took is ever used, and artificial negatives have nothing to mend.
* The actor imitates, weighted by how much nearer to the goal the data came within the next n steps: one step's progress is less
  than the value's error. HIQL's higher actor has this advantage (Park et al. 2023). Or it follows the critic's gradient while it
  imitates (DDPG+BC), which is better for arms, as for OGBench's GCIQL:

    L_pi = -E[ Q(s, pi(s), g) ] / E[1 - Q] - alpha E[ log pi(a|s, g) ]
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
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

_INITIAL_VALUE = 0.3
"""Of 0 to 1. Nothing says of an unreachable goal that it is one (a chained end keeps its own value), so an optimistic start, as
an output of 0 would be, would last."""


@dataclass(frozen=True)
class ImplicitActionableModelsConfig(GoalConfig):
    """Settings of implicit Actionable Models."""

    expectile: float = 0.9
    """tau in (0.5, 1): how close V comes to the best action's value in the data."""
    actor_loss: ActorLoss = "awr"
    """Imitation weighted by progress (awr), or the critic's gradient beside imitation (ddpgbc)."""
    alpha: float = 10.0
    """The inverse temperature of the actor's weights, per step that the data came nearer; 10 lets little but progress count. With
    ddpgbc the weight of imitation; 1 for arms."""
    steps: float = 100.0
    """H: the scale of the networks' outputs. Adam's updates are a larger part of an output that is small."""
    lower_bound: bool = True
    """Let no target be less than the return that the data itself went on to collect."""
    target_rate: float = 0.005
    """How far the target critic moves towards the critic at each update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.expectile < 1.0:
            raise FlywheelError(f"The expectile must lie between 0 and 1 (0.9 is usual), not {self.expectile}.")
        if self.steps <= 0.0:
            raise FlywheelError(f"steps, the scale of the values, must be above 0 (100 is usual), not {self.steps}.")


class ImplicitActionableModels(GoalAgent):
    """Twin critics, an expectile value, and an actor that imitates what came nearer to the goal."""

    name = "implicit_actionable_models"
    Config = ImplicitActionableModelsConfig
    relabel = "actionable_ahead"

    def __init__(self, config: ImplicitActionableModelsConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.critic = glorot(Critic(self.encoder.feature_dim, sizes.action, config.critic_layers))
        self.value = glorot(ValueFunction(self.encoder.feature_dim, config.critic_layers))
        self._begin_low()
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def load_pretrained(self, state: Mapping[str, Tensor]) -> list[str]:
        """As any algorithm does, but values begin as low as without."""
        taken = super().load_pretrained(state)
        if taken:
            self._begin_low()
            self.synchronise_targets()
        return taken

    def _begin_low(self) -> None:
        for network in (self.critic, self.value):
            torch.nn.init.constant_(network.output.bias, self.config.steps * (_INITIAL_VALUE - 1.0))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations; raises `FlywheelError` for a batch without chaining or what lies ahead."""
        if batch.is_chained is None or batch.high_actor_target is None:
            raise FlywheelError(f"{self.name} needs chained goals and what lies ahead; use the relabelling '{self.relabel}'.")
        features, next_features = self.features(batch)
        with torch.no_grad():
            own = self.target_critic(features, batch.action).amin(dim=0)
            target = self._target(batch, own, self.value(next_features))
        q = self.critic(features, batch.action)
        advantage = own - self.value(features)
        self._metrics = {"value": self._share(own).mean(), "target": target.mean(), "advantage": advantage.detach().mean()}
        self._metrics["chained_ends"] = batch.is_chained.float().mean()
        if batch.mc_return is not None:  # it is 0 where the goal is another episode's
            self._metrics["chained"] = (batch.mc_return == 0).float().mean()
        return {
            "value": ops.expectile_loss(advantage, self.config.expectile),
            "critic": ops.squared_td_loss(q, self.config.steps * (target - 1.0)),
            "actor": self._actor_loss(batch),
        }

    def _target(self, batch: Batch, own: Tensor, following: Tensor) -> Tensor:
        """The target y in [0, 1], (B,), of the outputs for the data's action and for the next state, each (B,)."""
        assert batch.is_chained is not None
        target = ops.goal_target(batch.reward, batch.discount, self._share(following), self._share(own), batch.is_chained)
        if self.config.lower_bound and batch.mc_return is not None:
            target = torch.maximum(target, batch.mc_return)
        return target

    def _share(self, output: Tensor) -> Tensor:
        """From steps to the discounted probability of reaching the goal, in [0, 1]."""
        return (1.0 + output / self.config.steps).clamp(0.0, 1.0)

    def _actor_loss(self, batch: Batch) -> Tensor:
        seen, features = self.aimed(batch)
        mean, log_std = self.actor(seen)
        log_prob = ops.gaussian_log_prob(mean, log_std, batch.action)
        if self.config.actor_loss == "awr":
            return weighted_imitation(log_prob, self._progress(batch, features), self.config.alpha)
        with frozen(self.critic):
            q = self.critic(features, mean.clamp(-1.0, 1.0)).amin(dim=0)
        return ascent_with_imitation(q, log_prob, self.config.alpha)

    @torch.no_grad()
    def _progress(self, batch: Batch, features: Tensor) -> Tensor:
        """How many steps nearer to the actor's goal the data came within the next n, (B,)."""
        assert batch.high_actor_target is not None
        ahead = {**batch.observation, **batch.high_actor_target}  # of the same task
        here, there = self.value(torch.cat([features, self.encoder(ahead, batch.goal_of_actor)])).chunk(2)
        progress: Tensor = there - here
        return progress

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
