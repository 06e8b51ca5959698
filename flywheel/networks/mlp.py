"""The multi-layer perceptron under every actor and value function."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with a ReLU after each: (..., in_dim) -> (..., hidden[-1]). The output layer is its user's."""

    def __init__(self, in_dim: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        """`dropout` is the probability with which a hidden value is zeroed while training."""
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(nn.Linear(*dims) for dims in itertools.pairwise((in_dim, *hidden)))

    def forward(self, features: Tensor) -> Tensor:
        """(..., in_dim) -> (..., hidden[-1])."""
        for layer in self.layers:
            features = torch.relu_(layer(features))  # in place: a linear layer's backward does not need its output
            if self.dropout and self.training:
                features = nn.functional.dropout(features, self.dropout)
        return features
