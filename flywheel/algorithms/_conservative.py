"""CQL's log-sum-exp over many actions per state, fast on a CPU.

At 30 actions per state plain autograd writes activations of many megabytes to memory in the forward pass and reads them again in
the backward pass. Here a chunk of states goes forward and backward, by hand and in one critic at a time, before its
activations leave a core's cache; backward then only scales the gradients. A test holds the result to autograd's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from flywheel.algorithms import ops
from flywheel.networks.critics import Critic, EnsembleLinear

_CHUNK_STATES = 16
"""With 30 actions and width 256, one layer's activations take half a megabyte."""


def sum_of_logsumexp(
    critic: Critic, features: Tensor, actions: Tensor, log_density: Tensor, floor: Tensor | None = None
) -> Tensor:
    """The sum of `ops.conservative_logsumexp` over states and critics, with gradients to the critic's parameters, and to features
    that have any (an encoder's of pictures), alone.

    Features (B, F), actions (B, N, A), log density (B, N), and a floor (B, N) that stands for every value below it -> scalar.
    """
    plain = critic.activation == "relu" and not critic.norms
    plain = plain and not features.requires_grad and not torch.is_autocast_enabled("cpu")
    if not plain or not torch.is_grad_enabled() or features.device.type != "cpu":
        q = critic.many(features, actions.detach())
        q = q if floor is None else torch.maximum(q, floor)
        return ops.conservative_logsumexp(q, log_density.detach()).sum()
    parameters = list(critic.parameters())
    gradients = {parameter: torch.zeros_like(parameter) for parameter in parameters}
    with torch.no_grad():
        total = torch.zeros((), device=features.device)
        for member in range(critic.members):
            layers = [_layer(cast(EnsembleLinear, layer), member, gradients) for layer in (*critic.hidden, critic.output)]
            total += _forward_and_backward(layers, features, actions, log_density, floor)
    result: Tensor = _WithGradients.apply(total, list(gradients.values()), *parameters)
    return result


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of one critic: views of its weights and of their gradients, and room for a chunk's activations."""

    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor

    def allocate(self, rows: int) -> tuple[Tensor, Tensor]:
        """Room for `rows` activations and their gradients."""
        room = torch.empty(2, rows, self.weight.shape[1])
        return room[0], room[1]


def _layer(layer: EnsembleLinear, member: int, gradients: dict[nn.Parameter, Tensor]) -> _Layer:
    weight, bias = layer.weight, layer.bias
    return _Layer(weight[member], bias[member], gradients[weight][member], gradients[bias][member])


def _forward_and_backward(
    layers: Sequence[_Layer], features: Tensor, actions: Tensor, log_density: Tensor, floor: Tensor | None
) -> Tensor:
    """One critic's sum of log-sum-exps; sets its gradients. The states' part of the first layer is done once per state."""
    first, split = layers[0], features.shape[1]
    count = actions.shape[1]
    of_state = torch.addmm(first.bias, features, first.weight[:split])
    of_state_gradient = torch.empty_like(of_state)
    room = [layer.allocate(_CHUNK_STATES * count) for layer in layers]
    total = torch.zeros(())
    for start in range(0, len(features), _CHUNK_STATES):
        chunk = slice(start, start + _CHUNK_STATES)
        inputs = actions[chunk].flatten(0, 1)
        activations, deltas = zip(*((values[: len(inputs)], delta[: len(inputs)]) for values, delta in room), strict=True)
        q = _forward(layers, inputs, of_state[chunk], activations).view(-1, count)
        is_below = None if floor is None else q < floor[chunk]
        value = (q if floor is None else torch.maximum(q, floor[chunk])) - log_density[chunk]
        logsumexp = value.logsumexp(dim=1, keepdim=True)
        total += logsumexp.sum()
        share = (value - logsumexp).exp_()
        deltas[-1].copy_((share if is_below is None else share.masked_fill_(is_below, 0.0)).view(-1, 1))
        _backward(layers, activations, deltas)
        first.weight_gradient[split:].addmm_(inputs.t(), deltas[0])
        torch.sum(deltas[0].view(-1, count, deltas[0].shape[1]), dim=1, out=of_state_gradient[chunk])
    torch.mm(features.t(), of_state_gradient, out=first.weight_gradient[:split])
    torch.sum(of_state_gradient, dim=0, keepdim=True, out=first.bias_gradient)
    return total


def _forward(layers: Sequence[_Layer], inputs: Tensor, of_state: Tensor, activations: Sequence[Tensor]) -> Tensor:
    """The values of a chunk, (rows, 1), every layer's activations being left in `activations`."""
    states, width = of_state.shape
    torch.mm(inputs, layers[0].weight[-inputs.shape[1] :], out=activations[0])
    activations[0].view(states, -1, width).add_(of_state.unsqueeze(1))
    for below, layer, values in zip(activations, layers[1:], activations[1:], strict=False):
        torch.addmm(layer.bias, below.relu_(), layer.weight, out=values)
    return activations[-1]


def _backward(layers: Sequence[_Layer], activations: Sequence[Tensor], deltas: Sequence[Tensor]) -> None:
    """From the last layer's delta down to the first layer's, adding to the gradients of all layers above the first."""
    for index in range(len(layers) - 1, 0, -1):
        layer, delta, below = layers[index], deltas[index], activations[index - 1]
        layer.weight_gradient.addmm_(below.t(), delta)
        layer.bias_gradient.add_(delta.sum(dim=0, keepdim=True))
        torch.mm(delta, layer.weight.t(), out=deltas[index - 1])
        torch.ops.aten.threshold_backward(deltas[index - 1], below, 0, grad_input=deltas[index - 1])


class _WithGradients(torch.autograd.Function):
    """A value whose gradients are known already; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul(ctx.gradients, scale)
