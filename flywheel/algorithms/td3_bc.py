"""TD3+BC (Fujimoto, Gu 2021; arXiv 2106.06860): a deterministic actor that follows the critic and stays near the data.

    y    = r + gamma min_k Qbar_k(s', clip(pibar(s') + clip(N(0, 0.2), -0.5, 0.5), -1, 1))
    L_Q  = E_D[ (y - Q_k(s, a))^2 ]
    L_pi = -alpha E[Q_1(s, pi(s))] / E[|Q_1|] + E[ |pi(s) - a|^2 ],  every second update

The squared distance is averaged over action dimensions, as in the official code. One difference: one backward serves both
losses, so the actor climbs the critic as it was before the update, and the first of the two updates is the actor's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._turn import Turn
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes, frozen, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import DeterministicActor
from flywheel.networks.critics import Critic

_EXPLORATION = 0.1
"""The standard deviation of the noise on actions that are not to be deterministic."""


@dataclass(frozen=True)
class TD3BCConfig(AlgorithmConfig):
    """Settings of TD3+BC."""

    alpha: float = 2.5
    """How much the critic's value, scaled to 1, counts beside imitation."""
    target_noise: float = 0.2
    """The standard deviation of the noise on the target's action."""
    target_noise_clip: float = 0.5
    """The largest noise on the target's action."""
    actor_interval: int = 2
    """Updates of the critic per update of the actor and of the targets."""
    learning_rate: float = 3e-4
    """Adam's step size, for both networks."""
    target_rate: float = 0.005
    """How far the target networks move towards the networks at each update of the actor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.actor_interval < 1:
            raise FlywheelError(f"actor-interval must be at least 1, not {self.actor_interval}.")


class TD3BC(Algorithm):
    """Twin critics with smoothed targets, and a deterministic actor."""

    name = "td3_bc"
    Config = TD3BCConfig

    def __init__(self, config: TD3BCConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.actor = DeterministicActor(self.encoder.feature_dim, sizes.action, config.actor_layers)
        self.critic = Critic(self.encoder.feature_dim, sizes.action, config.critic_layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.actors_turn = Turn(interval=config.actor_interval)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations; the actor's only when it is its turn."""
        features, next_features = self.features(batch)
        with torch.no_grad():
            next_value = self.target_critic(next_features, self._smoothed(batch, next_features)).amin(dim=0)
        q = self.critic(features, batch.action)
        self._metrics = {"q": q.detach().mean()}
        losses = {"critic": ops.squared_td_loss(q, ops.td_target(batch.reward, batch.discount, next_value))}
        if self.actors_turn.is_on:
            losses["actor"] = self._actor_loss(batch, features)
        return losses

    def _smoothed(self, batch: Batch, next_features: Tensor) -> Tensor:
        action: Tensor = self.target_actor(self.actor_features(batch.next_observation, batch.goal, next_features))
        clip = self.config.target_noise_clip
        noise = (self.config.target_noise * torch.randn_like(action)).clamp(-clip, clip)
        return (action + noise).clamp(-1.0, 1.0)

    def _actor_loss(self, batch: Batch, features: Tensor) -> Tensor:
        own = self.actor(self.actor_features(batch.observation, batch.goal, features))
        with frozen(self.critic):
            q = self.critic(features.detach(), own)[0]
        scale = self.config.alpha / q.detach().abs().mean().clamp(min=1e-6)
        loss: Tensor = -scale * q.mean() + (own - batch.action).square().mean()
        return loss

    def after_step(self) -> None:
        """Move the targets when it was the actor's turn."""
        if self.actors_turn.is_on:
            for target, online in ((self.target_critic, self.critic), (self.target_actor, self.actor)):
                ops.soft_update(target.parameters(), online.parameters(), self.config.target_rate)
        self.actors_turn.advance()

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The actor's action, or with noise of standard deviation 0.1."""
        action: Tensor = self.actor(self.actor_features(observation, goal))
        return action if deterministic else (action + _EXPLORATION * torch.randn_like(action)).clamp(-1.0, 1.0)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Both networks at one rate."""
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.critic)]

    def synchronise_targets(self) -> None:
        """Set the targets to the networks."""
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_actor.load_state_dict(self.actor.state_dict())
