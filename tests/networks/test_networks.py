"""The blocks, held to plain constructions of the same thing."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import GaussianActor, TanhGaussianActor, UnitGaussianActor
from flywheel.networks.critics import Critic, ValueFunction
from flywheel.networks.encoders import Sizes, StateEncoder
from flywheel.networks.initialise import glorot
from flywheel.networks.mlp import MLP, Layers


def test_mlp_ends_in_a_relu() -> None:
    network = MLP(3, Layers((8, 5)))
    x = torch.randn(10, 3)
    first, second = network.layers
    torch.testing.assert_close(network(x), torch.relu(second(torch.relu(first(x)))))


def test_critic_is_an_ensemble_of_separate_networks() -> None:
    critic = Critic(4, 2, Layers((8, 6)), members=3)
    features, action = torch.randn(5, 4), torch.randn(5, 2)
    values = critic(features, action)
    assert values.shape == (3, 5)
    for member in range(3):
        hidden = torch.cat([features, action], dim=1)
        for layer in critic.hidden:
            hidden = torch.relu(hidden @ layer.weight[member] + layer.bias[member])
        expected = hidden @ critic.output.weight[member] + critic.output.bias[member]
        torch.testing.assert_close(values[member], expected[:, 0])


def test_many_actions_have_the_values_of_single_ones() -> None:
    critic = Critic(4, 2, Layers((8, 6)))
    features, actions = torch.randn(5, 4), torch.randn(5, 7, 2)
    values = critic.many(features, actions)
    assert values.shape == (2, 5, 7)
    for number in range(7):
        torch.testing.assert_close(values[:, :, number], critic(features, actions[:, number]))


def test_many_actions_pass_gradients_to_every_parameter() -> None:
    critic = Critic(4, 2, Layers((8,)))
    critic.many(torch.randn(5, 4), torch.randn(5, 7, 2)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in critic.parameters())


def test_value_function_gives_one_number_per_state() -> None:
    assert ValueFunction(4, Layers((8,)))(torch.randn(5, 4)).shape == (5,)


def test_gaussian_actor_keeps_its_mean_in_bounds_and_its_log_std_above_minus_five() -> None:
    actor = GaussianActor(4, 2, Layers((8,)))
    actor.log_std.data.fill_(-50.0)
    actor.keep_in_range()
    mean, log_std = actor(100 * torch.randn(20, 4))
    assert mean.shape == log_std.shape == (20, 2)
    assert mean.abs().max() <= 1
    assert (log_std == -5).all()


def test_tanh_gaussian_actor_limits_its_log_std() -> None:
    mean, log_std = TanhGaussianActor(4, 2, Layers((8,)))(1e4 * torch.randn(20, 4))
    assert mean.shape == log_std.shape == (20, 2)
    assert -20 <= log_std.min() <= log_std.max() <= 2


def test_encoder_normalises_state_and_goal_and_keeps_its_statistics_in_the_state_dict() -> None:
    encoder = StateEncoder(Sizes(2, 1, goal_conditioned=True))
    encoder.set_statistics(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    features = encoder({"state": torch.tensor([[3.0, 2.0]])}, {"state": torch.tensor([[1.0, 6.0]])})
    assert features.tolist() == [[1.0, 0.0, 0.0, 1.0]]
    copy = StateEncoder(Sizes(2, 1, goal_conditioned=True))
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(copy({"state": torch.ones(1, 2)}, {"state": torch.ones(1, 2)}), torch.tensor([[0, -0.25, 0, -0.25]]))


def test_encoder_starts_as_the_identity_and_ignores_a_goal_that_it_does_not_need() -> None:
    state = torch.randn(3, 2)
    assert torch.equal(StateEncoder(Sizes(2, 1))({"state": state}, {"state": state}), state)


def test_encoder_asks_for_a_missing_goal() -> None:
    with pytest.raises(FlywheelError, match="goal"):
        StateEncoder(Sizes(2, 1, goal_conditioned=True))({"state": torch.zeros(1, 2)})


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_encoder_refuses_a_useless_standard_deviation(std: float) -> None:
    with pytest.raises(FlywheelError, match="standard deviation"):
        StateEncoder(Sizes(1, 1)).set_statistics(torch.zeros(1), torch.tensor([std]))


def test_a_task_stands_beside_the_state_as_one_hot() -> None:
    encoder = StateEncoder(Sizes(2, 1, goal_conditioned=True, tasks=3))
    state, goal = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    features = encoder({"state": state, "task": torch.tensor([1])}, {"state": goal})
    assert features.tolist() == [[1, 2, 0, 1, 0, 3, 4]]
    assert encoder.feature_dim == 7
    with pytest.raises(FlywheelError, match="name one that it has learned"):
        encoder({"state": state}, {"state": goal})


def test_an_ensembles_layers_are_activated_and_normalised_as_a_networks() -> None:
    layers = Layers((8, 6), "gelu", layer_norm=True)
    critic, value = Critic(3, 1, layers, members=2), ValueFunction(4, layers)
    features, action = torch.randn(5, 3), torch.randn(5, 1)
    for ours, theirs in zip((*critic.hidden, critic.output), (*value.hidden.layers, value.output), strict=True):
        theirs.weight.data, theirs.bias.data = ours.weight[1].T, ours.bias[1, 0]
    for ours, theirs in zip(critic.norms, value.hidden.norms, strict=True):
        ours.weight.data.normal_(), ours.bias.data.normal_()
        theirs.weight.data, theirs.bias.data = ours.weight[1, 0], ours.bias[1, 0]
    torch.testing.assert_close(critic(features, action)[1], value(torch.cat([features, action], 1)))
    torch.testing.assert_close(critic.many(features, action[:, None])[1, :, 0], critic(features, action)[1])


def test_unit_gaussian_actor_begins_near_zero_with_a_deviation_of_one() -> None:
    torch.manual_seed(0)
    mean, log_std = UnitGaussianActor(4, 2, Layers((8,)))(torch.randn(20, 4))
    assert mean.abs().max() < 0.5
    assert not log_std.any()


def test_glorot_bounds_the_weights_of_every_layer() -> None:
    torch.manual_seed(0)
    network = glorot(Critic(4, 2, Layers((64,))))
    weight = network.hidden[0].weight
    bound = (6 / (6 + 64)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))
