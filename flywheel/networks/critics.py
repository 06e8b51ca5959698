"""Critics Q(s, a) as one batched ensemble, and value functions V(s)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from flywheel.networks.mlp import MLP, Layers, activate, in_float32


class EnsembleLinear(nn.Module):
    """K linear layers as one: (K, B, in_dim) -> (K, B, out_dim), one kernel launch for all members."""

    def __init__(self, members: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_dim)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(members, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out_dim).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """(K, B, in_dim) -> (K, B, out_dim)."""
        return torch.baddbmm(self.bias, features, self.weight)


class EnsembleNorm(nn.Module):
    """K layer normalisations as one: (K, B, width) -> (K, B, width)."""

    _one: Tensor
    _zero: Tensor

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))
        # Torch's kernel takes twice as long on a CPU where it is given no weight to multiply by.
        self.register_buffer("_one", torch.ones(width), persistent=False)
        self.register_buffer("_zero", torch.zeros(width), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(K, B, width) -> (K, B, width)."""
        normalised = nn.functional.layer_norm(features, features.shape[-1:], self._one, self._zero)
        return torch.addcmul(self.bias, normalised, self.weight)


class Ensemble(nn.Module):
    """K independent networks: (B, in_dim), or each its own (K, B, in_dim) -> (K, B, out_dim)."""

    def __init__(self, in_dim: int, layers: Layers, out_dim: int, members: int = 2) -> None:
        super().__init__()
        self.members = members
        self.activation = layers.activation
        self.hidden = nn.ModuleList(EnsembleLinear(members, *pair) for pair in itertools.pairwise((in_dim, *layers.hidden)))
        self.norms = nn.ModuleList(EnsembleNorm(members, width) for width in layers.hidden if layers.layer_norm)
        self.output = EnsembleLinear(members, layers.width, out_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_dim) or (K, B, in_dim) -> (K, B, out_dim)."""
        return self.finish(self.hidden[0](features.expand(self.members, -1, -1)))

    def zero_output(self) -> None:
        """Value everything at 0."""
        _zero(self.output)

    def finish(self, hidden: Tensor) -> Tensor:
        """From what the first layer gives, not yet activated, (K, R, H), to the output, (K, R, out_dim)."""
        for layer, norm in itertools.zip_longest((*self.hidden[1:], None), self.norms):
            hidden = activate(hidden, self.activation)
            hidden = hidden if norm is None else norm(hidden)
            hidden = in_float32(self.output, hidden) if layer is None else layer(hidden)
        return hidden


class Critic(Ensemble):
    """K independent critics: features (B, F) and actions (B, A) -> (K, B)."""

    def __init__(self, feature_dim: int, action_dim: int, layers: Layers, members: int = 2) -> None:
        super().__init__(feature_dim + action_dim, layers, 1, members)
        self.feature_dim = feature_dim

    def forward(self, features: Tensor, action: Tensor) -> Tensor:  # type: ignore[override]
        """One action per state: (B, F), (B, A) -> (K, B)."""
        return super().forward(torch.cat([features, action], dim=-1)).squeeze(-1)

    def many(self, features: Tensor, actions: Tensor) -> Tensor:
        """N actions per state: (B, F), (B, N, A) -> (K, B, N). The states' part of the first layer is computed once per state."""
        rows, count, _ = actions.shape
        first = self._first
        of_state = torch.baddbmm(first.bias, features.expand(self.members, -1, -1), first.weight[:, : self.feature_dim])
        of_action = torch.bmm(actions.flatten(0, 1).expand(self.members, -1, -1), first.weight[:, self.feature_dim :])
        hidden = of_action.view(self.members, rows, count, -1).add_(of_state.unsqueeze(2)).flatten(1, 2)
        return self.finish(hidden).view(-1, rows, count)

    @property
    def _first(self) -> EnsembleLinear:
        layer = self.hidden[0]
        assert isinstance(layer, EnsembleLinear)
        return layer


class ValueFunction(nn.Module):
    """V(s): features (B, F) -> (B,)."""

    def __init__(self, feature_dim: int, layers: Layers) -> None:
        super().__init__()
        self.hidden = MLP(feature_dim, layers)
        self.output = nn.Linear(layers.width, 1)

    def zero_output(self) -> None:
        """Value everything at 0."""
        _zero(self.output)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B,)."""
        return in_float32(self.output, self.hidden(features)).squeeze(-1)


def _zero(layer: EnsembleLinear | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
