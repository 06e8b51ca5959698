"""The multi-layer perceptron under every actor and value function."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from flywheel.networks.gelu import gelu

Activation = Literal["relu", "gelu"]


@dataclass(frozen=True, slots=True)
class Layers:
    """The hidden layers of a network."""

    hidden: tuple[int, ...]
    """Their widths."""
    activation: Activation = "relu"
    layer_norm: bool = False
    """Normalise what each layer gives, after the activation (as OGBench's networks do)."""
    dropout: float = 0.0
    """The probability with which a hidden value is zeroed while training."""

    @property
    def width(self) -> int:
        """What the last of them gives."""
        return self.hidden[-1]


def activate(features: Tensor, activation: Activation) -> Tensor:
    """The activation, in place where that is allowed: a linear layer's backward does not need its own output."""
    return torch.relu_(features) if activation == "relu" else gelu(features)


def in_float32(layer: nn.Module, features: Tensor) -> Tensor:
    """What a layer gives in float32, under autocast too: values may lie closer together than bfloat16's steps at their size."""
    with torch.autocast(features.device.type, enabled=False):
        output: Tensor = layer(features.float())
    return output


class MLP(nn.Module):
    """Linear layers, each activated: (..., in_dim) -> (..., width). The output layer is its user's."""

    def __init__(self, in_dim: int, layers: Layers) -> None:
        super().__init__()
        self.activation, self.dropout = layers.activation, layers.dropout
        self.layers = nn.ModuleList(nn.Linear(*dims) for dims in itertools.pairwise((in_dim, *layers.hidden)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in layers.hidden if layers.layer_norm)

    def forward(self, features: Tensor) -> Tensor:
        """(..., in_dim) -> (..., width)."""
        for layer, norm in itertools.zip_longest(self.layers, self.norms):
            features = activate(layer(features), self.activation)
            features = features if norm is None else norm(features)
            if self.dropout and self.training:
                features = nn.functional.dropout(features, self.dropout)
        return features
