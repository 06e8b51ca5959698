"""Behaviour-regularised actor-critic (Wu, Tucker, Nachum 2019; arXiv 1911.11361): BRAC-v and BRAC-p.

    D(s)  = E_{a~pi(.|s)}[ log pi(a|s) - log b(a|s) ]  (kl), or MMD^2(pi(.|s), b(.|s))  (mmd)
    y     = r + gamma (min_k Qbar_k(s', a') - alpha D(s'))       (penalty value, BRAC-v)
    y     = r + gamma  min_k Qbar_k(s', a')                      (penalty policy, BRAC-p)
    L_Q   = (Q_k(s, a) - y)^2,    L_b = -E_D[ log b(a|s) ]
    L_pi  = alpha E[D(s)] - E[ min_k Q_k(s, a~) ],  the second term only after the warm-up

b is a model of the behaviour policy, which nobody knows. Differences from the official code: b is learned along with the rest
instead of beforehand, so the warm-up counts from the beginning; of its divergences the primal ones; no entropy bonus, as by
its default.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._turn import Turn
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes, frozen, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import TanhGaussianActor
from flywheel.networks.critics import Critic

Policy = tuple[Tensor, Tensor]
"""Mean and log-std before the tanh, each (B, A)."""


@dataclass(frozen=True)
class BRACConfig(AlgorithmConfig):
    """Settings of behaviour-regularised actor-critic."""

    penalty: Literal["value", "policy"] = "value"
    """Where the divergence counts: in targets and in the policy (BRAC-v), or in the policy alone (BRAC-p)."""
    divergence: Literal["kl", "mmd"] = "kl"
    """The distance from the behaviour."""
    alpha: float = 0.1
    """The weight of the divergence (the official launch script's)."""
    n_divergence_samples: int = 4
    """Actions per state of which the divergence is estimated."""
    mmd_sigma: float = 20.0
    """The width of MMD's Laplacian kernel, exp(-|x - y| / sigma)."""
    warm_up: int = 20_000
    """Updates at the beginning in which the policy only imitates."""
    actor_learning_rate: float = 3e-4
    """Adam's step size for the actor and the model of the behaviour."""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critics."""
    target_rate: float = 0.005
    """How far the target critics move towards the critics at each update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_divergence_samples < 1 + (self.divergence == "mmd") or self.warm_up < 0:
            raise FlywheelError("n-divergence-samples must be at least 1 (2 for mmd) and warm-up at least 0.")
        if self.mmd_sigma == 0.0:
            raise FlywheelError("mmd-sigma, the width of the kernel, must be above 0 (20 is usual).")


class BRAC(Algorithm):
    """Actor-critic that pays for leaving the data."""

    name = "brac"
    Config = BRACConfig

    def __init__(self, config: BRACConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.actor = TanhGaussianActor(self.encoder.feature_dim, sizes.action, config.actor_layers)
        self.behaviour = TanhGaussianActor(self.encoder.feature_dim, sizes.action, config.actor_layers)
        self.critic = Critic(self.encoder.feature_dim, sizes.action, config.critic_layers)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.ascent = Turn(first=config.warm_up)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        features, next_features = self.features(batch)
        with torch.no_grad():
            next_value = self._next_value(batch, next_features)
        q = self.critic(features, batch.action)
        self._metrics = {"q": q.detach().mean()}
        return {
            "critic": ops.squared_td_loss(q, ops.td_target(batch.reward, batch.discount, next_value)),
            "behaviour": self._imitation_loss(features, batch.action),
            "actor": self._actor_loss(batch, features),
        }

    def _imitation_loss(self, features: Tensor, action: Tensor) -> Tensor:
        mean, log_std = self.behaviour(features)
        return -ops.tanh_gaussian_log_density(mean, log_std, action).mean()

    def _next_value(self, batch: Batch, next_features: Tensor) -> Tensor:
        policy: Policy = self.actor(self.actor_features(batch.next_observation, batch.goal, next_features))
        action = ops.sample_tanh_gaussian(*policy, 1)[0].squeeze(1)
        value: Tensor = self.target_critic(next_features, action).amin(dim=0)
        if self.config.penalty == "policy":
            return value
        return value - self.config.alpha * self._divergence(next_features, policy)

    def _actor_loss(self, batch: Batch, features: Tensor) -> Tensor:
        policy: Policy = self.actor(self.actor_features(batch.observation, batch.goal, features))
        features = features.detach()
        with frozen(self.behaviour):
            divergence = self._divergence(features, policy).mean()
        self._metrics["divergence"] = divergence.detach()
        if not self.ascent.is_on:
            return self.config.alpha * divergence
        action = ops.sample_tanh_gaussian(*policy, 1)[0].squeeze(1)
        with frozen(self.critic):
            q = self.critic(features, action).amin(dim=0)
        loss: Tensor = self.config.alpha * divergence - q.mean()
        return loss

    def _divergence(self, features: Tensor, policy: Policy) -> Tensor:
        """D(s), (B,)."""
        count = self.config.n_divergence_samples
        behaviour: Policy = self.behaviour(features)
        actions, log_prob = ops.sample_tanh_gaussian(*policy, count)
        if self.config.divergence == "mmd":
            others = ops.sample_tanh_gaussian(*behaviour, count)[0]
            return ops.squared_mmd(actions, others, self.config.mmd_sigma)
        mean, log_std = (part.unsqueeze(1).expand_as(actions) for part in behaviour)
        return (log_prob - ops.tanh_gaussian_log_density(mean, log_std, actions)).mean(dim=1)

    def after_step(self) -> None:
        """Move the target critics, and come closer to the end of the warm-up."""
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)
        self.ascent.advance()

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The mean through tanh, or a sample."""
        mean, log_std = self.actor(self.actor_features(observation, goal))
        return torch.tanh(mean) if deterministic else ops.sample_tanh_gaussian(mean, log_std, 1)[0].squeeze(1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The actor's with the behaviour's, and the critics'."""
        return [
            group(self.config.actor_learning_rate, self.actor_encoder, self.actor, self.behaviour),
            group(self.config.critic_learning_rate, self.encoder, self.representation, self.critic),
        ]

    def synchronise_targets(self) -> None:
        """Set the target critics to the critics."""
        self.target_critic.load_state_dict(self.critic.state_dict())
