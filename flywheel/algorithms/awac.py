"""Advantage-weighted actor-critic (Nair, Dalal, Gupta, Levine 2020; arXiv 2006.09359).

    L_Q  = E_D[ (r + gamma min_k Qbar_k(s', a') - Q_k(s, a))^2 ],  a' ~ pi(.|s')
    L_pi = -E_D[ min(exp(beta A), 100) log pi(a|s) ],  A = min_k Q_k(s, a) - min_k Q_k(s, a~),  a~ ~ pi(.|s)

Difference from the official code (rlkit): the weights are clipped exponentials, as in the paper's equation 13, where rlkit
takes a softmax over the batch, so that the step size depends on the batch's size.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import GaussianPolicy, GaussianPolicyConfig
from flywheel.algorithms.base import Sizes, group
from flywheel.core.batch import Batch
from flywheel.networks.critics import Critic


@dataclass(frozen=True)
class AWACConfig(GaussianPolicyConfig):
    """Settings of advantage-weighted actor-critic."""

    inverse_temperature: float = 1.0
    """beta = 1 / lambda: 0 imitates the data, larger values follow the critic."""
    learning_rate: float = 3e-4
    """Adam's step size, for both networks."""
    target_rate: float = 0.005
    """How far the target critic moves towards the critic at each update."""


class AWAC(GaussianPolicy):
    """Twin critics of the policy, and an actor that imitates what they prefer to itself."""

    name = "awac"
    Config = AWACConfig

    def __init__(self, config: AWACConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.critic = Critic(self.encoder.feature_dim, sizes.action, config.critic_layers)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        features, next_features = self.features(batch)
        mean, log_std = self.actor(self.actor_features(batch.observation, batch.goal, features))
        with torch.no_grad():
            next_seen = self.actor_features(batch.next_observation, batch.goal, next_features)
            next_mean, next_log_std = self.actor(next_seen)
            next_action = ops.sample_gaussian(next_mean, next_log_std, 1).squeeze(1)
            next_value = self.target_critic(next_features, next_action).amin(dim=0)
        q = self.critic(features, batch.action)
        with torch.no_grad():
            own_action = ops.sample_gaussian(mean, log_std, 1).squeeze(1)
            advantage = q.amin(dim=0) - self.critic(features, own_action).amin(dim=0)
        weights = ops.advantage_weights(advantage, self.config.inverse_temperature)
        self._metrics = {"q": q.detach().mean(), "advantage": advantage.mean(), "weight": weights.mean()}
        return {
            "critic": ops.squared_td_loss(q, ops.td_target(batch.reward, batch.discount, next_value)),
            "actor": -(weights * ops.gaussian_log_prob(mean, log_std, batch.action)).mean(),
        }

    def after_step(self) -> None:
        """Move the target critic and the average actor."""
        super().after_step()
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Both networks at one rate."""
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.critic)]

    def synchronise_targets(self) -> None:
        """Set the target critic to the critic, the average actor to the actor."""
        super().synchronise_targets()
        self.target_critic.load_state_dict(self.critic.state_dict())
