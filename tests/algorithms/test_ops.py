"""The arithmetic, held to numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from flywheel.algorithms import ops


def test_td_target_masks_terminals_and_carries_no_gradient() -> None:
    next_value = torch.tensor([10.0, 10.0], requires_grad=True)
    target = ops.td_target(torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.0]), next_value)
    assert target.tolist() == [10.0, 1.0]
    assert not target.requires_grad


def test_td_target_refuses_a_broadcast() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        ops.td_target(torch.zeros(4), torch.zeros(4), torch.zeros(4, 1))


def test_td_loss_is_averaged_over_rows_and_summed_over_critics() -> None:
    q = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert ops.squared_td_loss(q, torch.tensor([0.0, 0.0])).item() == pytest.approx((1 + 4) / 2 + (9 + 16) / 2)


def test_expectile_loss_costs_a_low_value_more() -> None:
    # u = Q - V: V too low (u = 2) costs tau u^2, V too high (u = -2) costs (1 - tau) u^2 (the sign trap).
    assert ops.expectile_loss(torch.tensor([2.0]), 0.9).item() == pytest.approx(3.6)
    assert ops.expectile_loss(torch.tensor([-2.0]), 0.9).item() == pytest.approx(0.4)


@pytest.mark.parametrize(("expectile", "expected"), [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99)])
def test_expectile_of_a_coin_rises_to_its_maximum(expectile: float, expected: float) -> None:
    # The expectile e of {0, 1}: tau (1 - e) = (1 - tau) e, so e = tau.
    coin, value = torch.tensor([0.0, 1.0]), torch.tensor(0.0, requires_grad=True)
    for _ in range(2000):
        (gradient,) = torch.autograd.grad(ops.expectile_loss(coin - value, expectile), value)
        value.data -= 0.3 * gradient
    assert value.item() == pytest.approx(expected, abs=1e-3)


def test_advantage_weights_are_clipped_and_carry_no_gradient() -> None:
    weights = ops.advantage_weights(torch.tensor([0.0, 1.0, 50.0], requires_grad=True), 3.0)
    assert weights.tolist() == pytest.approx([1.0, math.e**3, 100.0])
    assert not weights.requires_grad


def test_gaussian_log_prob_is_torchs() -> None:
    mean, log_std, action = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1)
    torch.testing.assert_close(ops.gaussian_log_prob(mean, log_std, action), expected)


def test_tanh_gaussian_density_integrates_to_one() -> None:
    mean, log_std = torch.tensor([[0.7]]), torch.tensor([[-0.3]])
    action = torch.linspace(-0.9999, 0.9999, 200_001, dtype=torch.float64).unsqueeze(1)
    before = torch.atanh(action)
    density = ops.tanh_gaussian_log_prob((before - mean) / log_std.exp(), log_std.double(), before).exp()
    assert torch.trapezoid(density, action[:, 0]).item() == pytest.approx(1.0, abs=1e-3)


def test_tanh_gaussian_samples_have_the_squashed_density() -> None:
    torch.manual_seed(0)
    mean, log_std = torch.randn(4, 3), torch.randn(4, 3) * 0.1 - 1
    action, log_prob = ops.sample_tanh_gaussian(mean, log_std, 5)
    distribution = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean[:, None].double(), log_std.exp()[:, None].double()), torch.distributions.TanhTransform()
    )
    assert (action.shape, log_prob.shape) == ((4, 5, 3), (4, 5))
    torch.testing.assert_close(log_prob, distribution.log_prob(action.double()).sum(-1).float(), rtol=1e-3, atol=1e-3)


def test_tanh_gaussian_density_stays_finite_where_tanh_saturates() -> None:
    noise, before = torch.zeros(1, 1), torch.tensor([[40.0]], requires_grad=True)
    log_prob = ops.tanh_gaussian_log_prob(noise, torch.zeros(1, 1), before)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(before.grad).all()


def test_gaussian_action_stays_in_bounds_and_repeats_when_asked() -> None:
    mean, log_std = torch.full((100, 2), 0.9), torch.zeros(100, 2)
    assert torch.equal(ops.gaussian_action(mean, log_std, deterministic=True), mean)
    sampled = ops.gaussian_action(mean, log_std, deterministic=False)
    assert sampled.abs().max() <= 1.0
    assert not torch.equal(sampled, mean)


def test_uniform_actions_have_density_half_to_the_dimension() -> None:
    actions = ops.uniform_actions(50, 20, 3, torch.device("cpu"))
    assert actions.shape == (50, 20, 3)
    assert actions.min() < -0.9 < 0.9 < actions.max()
    assert ops.uniform_log_density(3) == pytest.approx(math.log(1 / 8))


def test_logsumexp_runs_over_all_actions_with_their_weights() -> None:
    # Two critics, one state, three actions: sum of exp(q) / density (not over one action of each kind).
    q = torch.tensor([[[0.0, 1.0, 2.0]], [[0.0, 0.0, 0.0]]])
    log_density = torch.log(torch.tensor([[0.5, 0.25, 2.0]]))
    expected = [math.log(1 / 0.5 + math.e / 0.25 + math.e**2 / 2), math.log(2 + 4 + 0.5)]
    assert ops.conservative_logsumexp(q, log_density)[:, 0].tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="equal shapes"):
        ops.conservative_logsumexp(q, log_density.reshape(3, 1))


def test_logsumexp_with_importance_weights_estimates_the_integral() -> None:
    # Q(a) = 2 a over [-1, 1]: log of the integral of exp(2 a) is log(sinh(2)).
    torch.manual_seed(0)
    actions = ops.uniform_actions(1, 200_000, 1, torch.device("cpu"))
    log_density = torch.full((1, 200_000), ops.uniform_log_density(1))
    estimate = ops.conservative_logsumexp(2.0 * actions.permute(2, 0, 1), log_density).item() - math.log(200_000)
    assert estimate == pytest.approx(math.log(math.sinh(2.0)), abs=0.01)


def test_goal_target_of_reached_travelling_and_chained_rows() -> None:
    target = ops.goal_target(
        reward=torch.tensor([1.0, 0.0, 0.0]),
        discount=torch.tensor([0.0, 0.9, 0.9]),
        next_value=torch.tensor([0.7, 0.5, 0.5]),
        own_value=torch.tensor([0.1, 0.1, 0.3]),
        is_chained=torch.tensor([False, False, True]),
    )
    assert target.tolist() == pytest.approx([1.0, 0.45, 0.3])


def test_draw_by_softmax_follows_the_values() -> None:
    torch.manual_seed(0)
    actions = torch.arange(3.0).reshape(1, 3, 1).expand(30_000, -1, -1)
    values = torch.log(torch.tensor([[0.2, 0.3, 0.5]])).expand(30_000, -1).requires_grad_()
    drawn = ops.draw_by_softmax(actions, values)
    assert not drawn.requires_grad
    assert (torch.bincount(drawn[:, 0].long()) / 30_000).tolist() == pytest.approx([0.2, 0.3, 0.5], abs=0.02)


def test_soft_update_moves_by_the_rate() -> None:
    target, online = [torch.zeros(2), torch.zeros(1)], [torch.ones(2), torch.full((1,), 2.0)]
    ops.soft_update(target, online, 0.25)
    assert [tensor.tolist() for tensor in target] == [[0.25, 0.25], [0.5]]
