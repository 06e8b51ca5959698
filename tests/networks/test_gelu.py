from __future__ import annotations

import torch
from torch import nn

from flywheel.networks.gelu import gelu


def test_it_is_torchs_with_its_gradient() -> None:
    features = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e30, 1e3])]).view(-1, 1).requires_grad_()
    theirs = nn.functional.gelu(features, approximate="tanh")
    torch.testing.assert_close(gelu(features), theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gelu(features.detach()), theirs.detach(), rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(function.sum(), features)[0] for function in (gelu(features), theirs)]
    finite = features.detach().abs() < 1e6
    torch.testing.assert_close(gradients[0][finite], gradients[1][finite], rtol=1e-5, atol=1e-5)


def test_it_leaves_its_input_as_it_was() -> None:
    features = torch.tensor([-1.0, 0.0, 2.0])
    assert gelu(features).tolist() == gelu(features.clone()).tolist()
    assert features.tolist() == [-1.0, 0.0, 2.0]


def test_half_precision_is_torchs() -> None:
    features = torch.linspace(-3, 3, 20).bfloat16()
    assert torch.equal(gelu(features), nn.functional.gelu(features, approximate="tanh"))
