"""A conditional variational autoencoder of actions: what a policy of which only data is known would do (BEAR, BCQ)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flywheel.networks.mlp import MLP, Layers

_LOG_STD_RANGE = (-4.0, 15.0)
_LATENT_CLIP = 0.5
"""Latents are drawn from the middle of the prior, where the decoder was trained most (as in the official BEAR and BCQ)."""


class ConditionalVAE(nn.Module):
    """Features (B, F) and actions (B, A) in [-1, 1]; the latent has 2 A dimensions."""

    def __init__(self, feature_dim: int, action_dim: int, layers: Layers) -> None:
        super().__init__()
        self.latent_dim = 2 * action_dim
        self.encoder = MLP(feature_dim + action_dim, layers)
        self.mean = nn.Linear(layers.width, self.latent_dim)
        self.log_std = nn.Linear(layers.width, self.latent_dim)
        self.decoder = MLP(feature_dim + self.latent_dim, layers)
        self.action = nn.Linear(layers.width, action_dim)

    def loss(self, features: Tensor, action: Tensor) -> Tensor:
        """Squared error of the reconstruction plus half the divergence of the latent from N(0, 1), each a mean: a scalar."""
        hidden = self.encoder(torch.cat([features, action], dim=-1))
        mean, log_std = self.mean(hidden), self.log_std(hidden).clamp(*_LOG_STD_RANGE)
        latent = mean + log_std.exp() * torch.randn_like(mean)
        error = (torch.tanh(self._decode(features, latent)) - action).square().mean()
        divergence = -0.5 * (1.0 + 2.0 * log_std - mean.square() - (2.0 * log_std).exp()).mean()
        loss: Tensor = error + 0.5 * divergence
        return loss

    def sample(self, features: Tensor, count: int) -> Tensor:
        """`count` actions per state before the tanh: (B, F) -> (B, count, A)."""
        latent = torch.randn(len(features), count, self.latent_dim, device=features.device).clamp(-_LATENT_CLIP, _LATENT_CLIP)
        return self._decode(features.unsqueeze(1).expand(-1, count, -1), latent)

    def _decode(self, features: Tensor, latent: Tensor) -> Tensor:
        action: Tensor = self.action(self.decoder(torch.cat([features, latent], dim=-1)))
        return action
