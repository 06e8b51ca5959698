from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from flywheel.algorithms import ops
from flywheel.algorithms._conservative import sum_of_logsumexp
from flywheel.algorithms.base import Sizes
from flywheel.algorithms.cql import CQL, CQLConfig
from flywheel.networks.critics import Critic
from flywheel.networks.mlp import Layers
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, fit, random_batch


@pytest.mark.parametrize("hidden", [(16,), (16, 12), (8, 12, 16)])
@pytest.mark.parametrize("states", [16, 37])
def test_chunked_gradients_are_autograds(hidden: tuple[int, ...], states: int) -> None:
    """One to three hidden layers; whole chunks, and a last one that is not full."""
    critic = Critic(4, 2, Layers(hidden), members=3)
    features, actions, log_density = torch.randn(states, 4), torch.randn(states, 6, 2), torch.randn(states, 6)
    parameters = list(critic.parameters())
    plain = ops.conservative_logsumexp(critic.many(features, actions), log_density).sum()
    chunked = sum_of_logsumexp(critic, features, actions, log_density)
    torch.testing.assert_close(chunked, plain)
    expected = torch.autograd.grad(-2.5 * plain, parameters)
    for one, other in zip(torch.autograd.grad(-2.5 * chunked, parameters), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_chunked_sum_gives_no_gradient_to_the_proposals() -> None:
    critic, actions = Critic(4, 2, Layers((8,))), torch.randn(20, 6, 2, requires_grad=True)
    sum_of_logsumexp(critic, torch.randn(20, 4), actions.detach(), torch.randn(20, 6)).backward()
    assert actions.grad is None


def _cql(**settings: object) -> CQL:
    torch.manual_seed(0)
    return CQL(CQLConfig(**{"hidden": (16, 16), **settings}), Sizes(STATE_DIM, ACTION_DIM, False))


def test_lagrange_is_off_by_default() -> None:
    assert CQLConfig().lagrange_threshold is None
    assert set(_cql().losses(random_batch(0))) == {"critic", "actor", "temperature"}


def test_lagrange_multiplier_grows_while_the_term_is_above_its_threshold() -> None:
    for threshold, sign in ((-100.0, -1.0), (100.0, 1.0)):
        algorithm = _cql(lagrange_threshold=threshold)
        algorithm.losses(random_batch(0))["multiplier"].backward()
        assert math.copysign(1.0, algorithm.log_multiplier.grad.item()) == sign


def test_lagrange_multiplier_comes_back_from_the_end_of_its_range() -> None:
    algorithm = _cql(lagrange_threshold=1e9)
    with torch.no_grad():
        algorithm.log_multiplier.fill_(20.0)
    fit(algorithm, random_batch, range(2))
    first = algorithm.log_multiplier.item()
    assert first <= math.log(1e6)
    fit(algorithm, random_batch, range(2, 4))
    assert algorithm.log_multiplier.item() < first


def test_temperature_falls_while_the_entropy_is_above_its_target() -> None:
    for log_std, sign in ((0.0, 1.0), (-10.0, -1.0)):
        algorithm = _cql()
        torch.nn.init.zeros_(algorithm.actor.log_std.weight)
        torch.nn.init.constant_(algorithm.actor.log_std.bias, log_std)
        algorithm.losses(random_batch(0))["temperature"].backward()
        assert math.copysign(1.0, algorithm.log_temperature.grad.item()) == sign


def test_actions_of_the_next_state_keep_their_density_there() -> None:
    """Uniform, then pi(.|s), then pi(.|s'), each with the log density of where it was drawn."""
    algorithm = _cql(n_actions=4)
    policy = torch.zeros(3, ACTION_DIM), torch.full((3, ACTION_DIM), -2.0)
    following = torch.full((3, ACTION_DIM), 0.5), torch.full((3, ACTION_DIM), -1.0)
    actions, log_density = algorithm._proposals(policy, following)
    assert (actions.shape, log_density.shape) == ((3, 12, ACTION_DIM), (3, 12))
    assert torch.allclose(log_density[:, :4], torch.tensor(-ACTION_DIM * math.log(2.0)))
    for block, (mean, log_std) in ((slice(4, 8), policy), (slice(8, 12), following)):
        before = torch.atanh(actions[:, block].double()).float()
        noise = (before - mean[:, None]) / log_std.exp()[:, None]
        expected = ops.tanh_gaussian_log_prob(noise, log_std[:, None], before)
        torch.testing.assert_close(log_density[:, block], expected, rtol=1e-3, atol=1e-3)


def test_conservative_term_is_what_plain_autograd_says() -> None:
    algorithm = _cql(conservative_weight=1.0)
    batch = random_batch(0)
    torch.manual_seed(1)
    with_term = algorithm.losses(batch)["critic"]
    gap = algorithm.metrics()["conservative_gap"] * algorithm.critic.members
    algorithm.config = dataclasses.replace(algorithm.config, conservative_weight=0.0)
    torch.manual_seed(1)
    torch.testing.assert_close(with_term - gap, algorithm.losses(batch)["critic"])


def test_values_of_unseen_actions_are_pushed_below_the_datas() -> None:
    torch.manual_seed(0)
    algorithm = _cql(critic_learning_rate=3e-3)
    optimizer = torch.optim.Adam(algorithm.parameter_groups())
    batch = random_batch(0, size=64)
    for _ in range(150):
        optimizer.zero_grad()
        algorithm.losses(batch)["critic"].backward()
        optimizer.step()
    features = algorithm.encoder(batch.observation)
    with torch.no_grad():
        seen = algorithm.critic(features, batch.action).mean()
        unseen = algorithm.critic.many(features, ops.uniform_actions(64, 50, ACTION_DIM, features.device)).mean()
    assert seen > unseen + 1.0


def test_the_actor_clones_the_data_until_the_warm_up_is_over() -> None:
    algorithm, batch = _cql(warm_up=2), random_batch(0)
    torch.manual_seed(1)
    policy = algorithm.actor(algorithm.encoder(batch.observation, None))
    _, log_prob = ops.sample_tanh_gaussian(*policy, 1)
    expected = log_prob.mean() - ops.tanh_gaussian_log_density(*policy, batch.action).mean()  # the temperature begins at 1
    torch.manual_seed(1)
    found = algorithm._actor_losses(algorithm.encoder(batch.observation, None), policy, batch.action)
    torch.testing.assert_close(found["actor"], expected)
    for is_cloning in (True, True, False):
        assert algorithm.ascent.is_on is not is_cloning
        algorithm.after_step()
    resumed = _cql(warm_up=2)
    resumed.load_state_dict(algorithm.state_dict())
    assert resumed.ascent.is_on
