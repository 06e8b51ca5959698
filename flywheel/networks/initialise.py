"""How weights begin, where an algorithm's published results were made with something else than torch's own way."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

from flywheel.networks.critics import EnsembleLinear

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def glorot(network: Network, scale: float = 1.0) -> Network:
    """Set every linear layer's bias to 0 and draw its weights from U(-b, b), b = sqrt(6 scale / (inputs + outputs)).

    This is JAX's ``variance_scaling(scale, "fan_avg", "uniform")``, with which OGBench's agents begin (impls/utils/networks.py).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | EnsembleLinear):
            bound = math.sqrt(6.0 * scale / sum(layer.weight.shape[-2:]))
            layer.weight.uniform_(-bound, bound)
            layer.bias.zero_()
    return network
