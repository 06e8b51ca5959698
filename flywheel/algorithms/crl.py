"""Contrastive reinforcement learning (Eysenbach, Zhang, Levine, Salakhutdinov 2022; arXiv 2206.07568), as OGBench has it.

    f_k(s, a, g) = phi_k(s, a) . psi_k(g) / sqrt(d)                  approximates log of the odds that g comes later
    L_Q  = E[ BCE(f_k(s_i, a_i, g_j), 1(i = j)) ]                   over all pairs of the batch
    L_pi = -E[f(s, mu(s, g), g)] / E[|f|] - alpha E[log pi(a|s, g)],  f = min_k f_k      (ddpgbc)
         | -E[ min(exp(alpha (f(s, a, g) - V(s, g))), 100) log pi(a|s, g) ]              (awr)

Every goal of the critic comes later in the same episode; those of the other rows are the negatives. For awr there is a value
V, contrastive as well, without the action.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import ActorLoss, ascent_with_imitation, weighted_imitation
from flywheel.algorithms._goal import GoalAgent, GoalConfig
from flywheel.algorithms.base import Sizes, frozen, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Ensemble
from flywheel.networks.initialise import glorot
from flywheel.networks.mlp import Layers
from flywheel.networks.pictures import PictureConfig


@dataclass(frozen=True)
class CRLConfig(GoalConfig):
    """Settings of contrastive reinforcement learning."""

    latent_dim: int = 512
    """d: the length of phi and psi."""
    actor_loss: ActorLoss = "ddpgbc"
    """Follow the critic's gradient and imitate (ddpgbc), or imitate with weights (awr)."""
    alpha: float = 0.1
    """ddpgbc: the weight of imitation (OGBench: 0.03 for the point maze, 0.1 for the ant, 3 for manipulation); awr: the inverse
    temperature. The setting that matters most."""
    encoder: PictureConfig = field(default_factory=lambda: PictureConfig(goal="shared"))
    """How pictures are seen, where there are any: goals by themselves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim < 1:
            raise FlywheelError(f"latent-dim must be at least 1, not {self.latent_dim}.")


class ContrastiveCritic(nn.Module):
    """K bilinear critics: what is seen now (B, F) and goals (B, G) -> logits."""

    def __init__(self, now_dim: int, goal_dim: int, layers: Layers, latent_dim: int, members: int = 2) -> None:
        super().__init__()
        self.phi = Ensemble(now_dim, layers, latent_dim, members)
        self.psi = Ensemble(goal_dim, layers, latent_dim, members)
        self.scale = 1.0 / math.sqrt(latent_dim)

    def forward(self, now: Tensor, goal: Tensor) -> Tensor:
        """Of each row with its own goal: (B, F), (B, G) -> (K, B)."""
        logits: Tensor = (self.phi(now) * self.psi(goal)).sum(dim=-1) * self.scale
        return logits

    def pairs(self, now: Tensor, goal: Tensor) -> Tensor:
        """Of each row with every goal: (B, F), (B, G) -> (K, B, B)."""
        return torch.bmm(self.phi(now), self.psi(goal).transpose(1, 2)) * self.scale


class CRL(GoalAgent):
    """A critic that tells later observations from others, and an actor that follows it."""

    name = "crl"
    Config = CRLConfig
    relabel = "contrastive"

    def __init__(self, config: CRLConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.see_goals_apart()
        now_dim, goal_dim = self.encoder.now_dim, self.encoder.goal_dim
        layers = config.critic_layers
        self.critic = glorot(ContrastiveCritic(now_dim + sizes.action, goal_dim, layers, config.latent_dim))
        if config.actor_loss == "awr":
            self.value = glorot(ContrastiveCritic(now_dim, goal_dim, layers, config.latent_dim, members=1))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        now, goal = self._parts(self.encoder(batch.observation, batch.goal))
        logits = self.critic.pairs(torch.cat([now, batch.action], dim=-1), goal)
        correct = (logits.detach().mean(dim=0).argmax(dim=1) == torch.arange(len(batch), device=now.device)).float()
        self._metrics = {"logit": logits.detach().mean(), "categorical_accuracy": correct.mean()}
        losses = {"critic": _contrast(logits), "actor": self._actor_loss(batch)}
        if self.config.actor_loss == "awr":
            losses["value"] = _contrast(self.value.pairs(now, goal))
        return losses

    def _actor_loss(self, batch: Batch) -> Tensor:
        seen, features = self.aimed(batch)
        action = batch.action
        mean, log_std = self.actor(seen)
        log_prob = ops.gaussian_log_prob(mean, log_std, action)
        now, goal = self._parts(features)
        if self.config.actor_loss == "awr":
            with torch.no_grad():
                q = self.critic(torch.cat([now, action], dim=-1), goal).amin(dim=0)
                advantage = q - self.value(now, goal).squeeze(0)
            return weighted_imitation(log_prob, advantage, self.config.alpha)
        with frozen(self.critic):
            q = self.critic(torch.cat([now, mean.clamp(-1.0, 1.0)], dim=-1), goal).amin(dim=0)
        return ascent_with_imitation(q, log_prob, self.config.alpha)

    def _parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen now, and the goal: the encoder puts the goal last."""
        return features[:, : self.encoder.now_dim], features[:, self.encoder.now_dim :]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All networks at one rate."""
        values = [self.value] if self.config.actor_loss == "awr" else []
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.critic, *values)]


def _contrast(logits: Tensor) -> Tensor:
    """The binary cross entropy of all pairs (K, B, B), positive on the diagonal: the mean."""
    labels = torch.eye(logits.shape[-1], device=logits.device).expand_as(logits)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels)
