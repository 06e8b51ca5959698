"""BEAR (Kumar, Fu, Tucker, Levine 2019; arXiv 1906.00949): a policy that stays within the support of the data.

    L_b  = E_D[ (a - D(s, z))^2 ] + 0.5 KL(E(z|s, a) || N(0, 1))                      a conditional VAE of the behaviour
    y    = r + gamma max_i [ lambda min_k Qbar_k(s', a_i) + (1 - lambda) max_k Qbar_k(s', a_i) ],  a_i ~ pibar(.|s')
    L_pi = -E[ min_k Q_k(s, a~) ] + eta (MMD(pi(.|s), b(.|s)) - epsilon),  the first term only after the warm-up

eta grows by dual ascent while MMD is above epsilon. MMD compares actions before the tanh. It acts with the best of several
samples by the critic.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms._turn import Turn
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes, frozen, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import TanhGaussianActor
from flywheel.networks.critics import Critic
from flywheel.networks.vae import ConditionalVAE

_LOG_MULTIPLIER_RANGE = (-5.0, 10.0)


@dataclass(frozen=True)
class BEARConfig(AlgorithmConfig):
    """Settings of BEAR."""

    threshold: float = 0.05
    """epsilon: the MMD that is allowed."""
    mmd_sigma: float = 20.0
    """The width of MMD's Laplacian kernel."""
    n_mmd_samples: int = 4
    """Actions of the policy and of the behaviour per state, for MMD."""
    n_actions: int = 10
    """Actions of the policy per state, for targets and for acting."""
    soft_minimum: float = 0.75
    """lambda: how much the smaller of the critics counts beside the larger."""
    warm_up: int = 40_000
    """Updates at the beginning in which the policy only imitates."""
    actor_learning_rate: float = 1e-4
    """Adam's step size for the actor."""
    critic_learning_rate: float = 3e-4
    """Adam's step size for the critics and the model of the behaviour."""
    multiplier_learning_rate: float = 1e-3
    """Adam's step size for eta."""
    target_rate: float = 0.005
    """How far the target networks move towards the networks at each update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_mmd_samples < 2 or self.n_actions < 1 or self.warm_up < 0:
            raise FlywheelError("n-mmd-samples must be at least 2, n-actions at least 1 and warm-up at least 0.")
        if not 0.0 <= self.soft_minimum <= 1.0 or self.mmd_sigma == 0.0:
            raise FlywheelError("soft-minimum must lie in [0, 1] and mmd-sigma be above 0.")


class BEAR(Algorithm):
    """Actor-critic under a constraint on the support."""

    name = "bear"
    Config = BEARConfig
    _noise: Tensor

    def __init__(self, config: BEARConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        features = self.encoder.feature_dim
        self.actor = TanhGaussianActor(features, sizes.action, config.actor_layers)
        self.behaviour = ConditionalVAE(features, sizes.action, config.actor_layers)
        self.critic = Critic(features, sizes.action, config.critic_layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_multiplier = nn.Parameter(torch.zeros(()))
        self.ascent = Turn(first=config.warm_up)
        fixed = torch.randn((config.n_actions, sizes.action), generator=torch.Generator().manual_seed(0))
        fixed[0] = 0.0
        self.register_buffer("_noise", fixed, persistent=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        features, next_features = self.features(batch)
        with torch.no_grad():
            next_value = self._next_value(batch, next_features)
        q = self.critic(features, batch.action)
        mean, log_std = self.actor(self.actor_features(batch.observation, batch.goal, features))
        with torch.no_grad():
            imitated = self.behaviour.sample(features, self.config.n_mmd_samples)
        own = ops.sample_before_tanh(mean, log_std, self.config.n_mmd_samples)
        mmd = ops.mmd(own, imitated, self.config.mmd_sigma).mean()
        multiplier = self.log_multiplier.exp()
        excess = mmd - self.config.threshold
        self._metrics = {"q": q.detach().mean(), "mmd": mmd.detach(), "multiplier": multiplier.detach()}
        return {
            "critic": ops.squared_td_loss(q, ops.td_target(batch.reward, batch.discount, next_value)),
            "behaviour": self.behaviour.loss(features, batch.action),
            "actor": multiplier.detach() * excess + self._ascent_loss(features.detach(), torch.tanh(own)),
            "multiplier": -multiplier * excess.detach(),
        }

    def _next_value(self, batch: Batch, next_features: Tensor) -> Tensor:
        mean, log_std = self.target_actor(self.actor_features(batch.next_observation, batch.goal, next_features))
        actions = torch.tanh(ops.sample_before_tanh(mean, log_std, self.config.n_actions))
        q = self.target_critic.many(next_features, actions)
        share = self.config.soft_minimum
        return (share * q.amin(dim=0) + (1.0 - share) * q.amax(dim=0)).amax(dim=1)

    def _ascent_loss(self, features: Tensor, actions: Tensor) -> Tensor:
        if not self.ascent.is_on:
            return features.new_zeros(())
        with frozen(self.critic):
            return -self.critic.many(features, actions).amin(dim=0).mean()

    def after_step(self) -> None:
        """Move the targets, and keep the multiplier in its range: clamped in the loss it could never come back."""
        with torch.no_grad():
            self.log_multiplier.clamp_(*_LOG_MULTIPLIER_RANGE)
        for target, online in ((self.target_critic, self.critic), (self.target_actor, self.actor)):
            ops.soft_update(target.parameters(), online.parameters(), self.config.target_rate)
        self.ascent.advance()

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The best of several samples by the smaller critic, of the same draws each time if deterministic."""
        features = self.encoder(observation, goal)
        mean, log_std = (part.unsqueeze(1) for part in self.actor(self.actor_features(observation, goal, features)))
        noise = self._noise if deterministic else torch.randn(len(features), *self._noise.shape, device=mean.device)
        actions = torch.tanh(mean + log_std.exp() * noise)
        best = self.critic.many(features, actions).amin(dim=0).argmax(dim=1)
        return actions[torch.arange(len(best), device=best.device), best]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The actor's, the critics' with the behaviour's, and the multiplier's."""
        return [
            group(self.config.actor_learning_rate, self.actor_encoder, self.actor),
            group(self.config.critic_learning_rate, self.encoder, self.representation, self.critic, self.behaviour),
            group(self.config.multiplier_learning_rate, self.log_multiplier),
        ]

    def synchronise_targets(self) -> None:
        """Set the targets to the networks."""
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_actor.load_state_dict(self.actor.state_dict())
