from __future__ import annotations

import numpy as np
import pytest
import torch

from flywheel.algorithms.td3_bc import TD3BC, TD3BCConfig
from tests.algorithms import hand
from tests.algorithms.batches import optimizer_of, update
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, SIZES, A, R, S, q

ONLINE, TARGET = ((0.3, -0.4), (0.5, 2.0)), ((0.2, 0.4), (1.0, -1.5))
MEAN, TARGET_MEAN = 0.3, 0.9


def _td3_bc(**settings: object) -> TD3BC:
    algorithm = TD3BC(TD3BCConfig(hidden=HIDDEN, **settings), SIZES)
    hand.set_critic(algorithm.critic, *ONLINE)
    hand.set_critic(algorithm.target_critic, *TARGET)
    hand.set_actor(algorithm.actor, MEAN)
    hand.set_actor(algorithm.target_actor, TARGET_MEAN)
    return algorithm


def test_defaults_are_the_official_ones() -> None:
    config = TD3BCConfig()
    assert (config.alpha, config.target_noise, config.target_noise_clip, config.actor_interval) == (2.5, 0.2, 0.5, 2)
    assert (config.target_rate, config.learning_rate, config.hidden) == (0.005, 3e-4, (256, 256))


def test_losses_by_hand() -> None:
    """The noise is so large that it is clipped, downwards too, and one of the noisy actions is."""
    algorithm = _td3_bc(target_noise=2.0)
    torch.manual_seed(0)
    noise = 2.0 * hand.normal(3, 1)[:, 0]
    torch.manual_seed(0)
    losses = algorithm.losses(hand.three_rows())

    noisy = np.tanh(TARGET_MEAN) + np.clip(noise, -0.5, 0.5)
    assert noise[2] < -0.5  # upwards the clipped action would hide it, and the second row is terminal
    assert (noisy > 1).any()
    target = R + DISCOUNT * q(*TARGET, FOLLOWING, np.clip(noisy, -1, 1)).min(axis=0)
    critic = sum(np.mean((values - target) ** 2) for values in q(*ONLINE, S, A))
    own = np.full(3, np.tanh(MEAN))
    first, second = q(*ONLINE, S, own)
    assert (first > second).all()  # the actor climbs the first critic, not the smaller one
    actor = -2.5 * np.mean(first) / np.mean(np.abs(first)) + np.mean((own - A) ** 2)
    assert losses["critic"].item() == pytest.approx(critic, rel=1e-5)
    assert losses["actor"].item() == pytest.approx(actor, rel=1e-5)


def test_the_scale_of_the_value_gives_no_gradient() -> None:
    """-alpha Q / |Q| would be constant where Q > 0, and the actor would only imitate; with the scale held still it climbs."""
    algorithm = _td3_bc()
    batch = hand.three_rows()
    algorithm.losses(batch)["actor"].backward()
    own = np.tanh(MEAN)
    scale = 2.5 / np.mean(np.abs(q(*ONLINE, S, np.full(3, own))[0]))
    expected = (-scale * ONLINE[1][0] + np.mean(2 * (own - A))) * (1 - own**2)
    assert algorithm.actor.mean.bias.grad.item() == pytest.approx(expected, rel=1e-5)


def test_a_critic_that_values_everything_at_zero_leaves_imitation() -> None:
    """As one does whose output layer was set to zero for pretrained weights: its scale is not divided by."""
    algorithm = _td3_bc()
    algorithm.critic.zero_output()
    imitation = np.mean((np.tanh(MEAN) - A) ** 2)
    assert algorithm.losses(hand.three_rows())["actor"].item() == pytest.approx(imitation, rel=1e-5)


def test_actor_and_targets_move_at_every_second_update() -> None:
    algorithm = _td3_bc()
    optimizer = optimizer_of(algorithm)
    moved = []
    for _ in range(5):
        before = _what_waits(algorithm)
        update(algorithm, optimizer, hand.three_rows())
        after = _what_waits(algorithm)
        moved.append([not torch.equal(one, other) for one, other in zip(before, after, strict=True)])
    assert moved == [[True] * 3, [False] * 3, [True] * 3, [False] * 3, [True] * 3]


def _what_waits(algorithm: TD3BC) -> list[torch.Tensor]:
    networks = algorithm.actor, algorithm.target_actor, algorithm.target_critic
    return [torch.nn.utils.parameters_to_vector(network.parameters()).clone() for network in networks]


def test_whose_turn_it_is_survives_beyond_what_a_float_counts() -> None:
    algorithm = _td3_bc()
    for taken in (2**24 + 1, 2**24 + 2):
        algorithm.load_state_dict(algorithm.state_dict() | {"actors_turn._extra_state": torch.tensor(taken)})
        assert ("actor" in algorithm.losses(hand.three_rows())) == (taken % 2 == 0)
        algorithm.after_step()
        assert algorithm.state_dict()["actors_turn._extra_state"].item() == taken + 1


def test_compiled_losses_have_two_forms() -> None:
    """And not one per update, which is what reading a counter would give."""
    from torch._dynamo.testing import CompileCounter

    algorithm, counter = _td3_bc(), CompileCounter()
    losses = torch.compile(algorithm.losses, backend=counter, dynamic=False)
    optimizer = optimizer_of(algorithm)
    frames = []
    for _ in range(5):
        optimizer.zero_grad()
        torch.stack(list(losses(hand.three_rows()).values())).sum().backward()
        optimizer.step()
        algorithm.after_step()
        frames.append(counter.frame_count)
    assert frames[1] == frames[-1]
