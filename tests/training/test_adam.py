from __future__ import annotations

import torch
from torch import nn
from torch.optim import Adam

from flywheel.training.adam import FusedAdam


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((5, 3), (3,), ())]


def step(optimizer: Adam, update: int) -> None:
    """The second parameter has a gradient in every other update alone."""
    torch.manual_seed(update)
    for number, parameter in enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]):
        gradient = torch.randn_like(parameter)
        parameter.grad = None if number == 1 and update % 2 else gradient
    optimizer.step()


def test_it_steps_as_torch_does_and_goes_on_from_the_same_state() -> None:
    theirs, ours = parameters(), parameters()
    groups = [[{"params": found[:2], "lr": 0.1}, {"params": found[2:], "lr": 0.01}] for found in (theirs, ours)]
    adam, fused = Adam(groups[0], fused=True), FusedAdam(groups[1])
    for update in range(5):
        step(adam, update)
        step(fused, update)
    state = adam.state_dict()
    adam.load_state_dict(fused.state_dict())
    fused.load_state_dict(state)
    for update in range(5, 8):
        step(adam, update)
        step(fused, update)
    assert all(torch.equal(one, other) for one, other in zip(theirs, ours, strict=True))
    assert [value["step"].item() for value in fused.state.values()] == [8, 4, 8]


def test_a_closure_is_called_with_gradients_on() -> None:
    parameter = nn.Parameter(torch.ones(()))
    fused = FusedAdam([{"params": [parameter], "lr": 0.1}])

    def closure() -> float:
        loss = parameter.square()
        torch.autograd.backward(loss)
        return loss.item()

    assert fused.step(closure) == 1.0
    assert parameter.item() < 1.0
