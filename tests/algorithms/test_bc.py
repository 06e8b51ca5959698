from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flywheel.algorithms.base import Sizes
from flywheel.algorithms.bc import BC, BCConfig
from tests.algorithms import hand
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, fit, random_batch


def test_behaviour_cloning_is_maximum_likelihood() -> None:
    """Where the state says nothing, the best Gaussian has the actions' own mean and spread."""
    torch.manual_seed(0)
    action = (0.3 + 0.2 * torch.randn(256, ACTION_DIM)).clamp(-1, 1)
    batch = random_batch(0, size=256)
    same = torch.zeros(256, STATE_DIM)
    still = type(batch)(
        observation={"state": same},
        action=action,
        reward=batch.reward,
        discount=batch.discount,
        next_observation={"state": same},
    )
    algorithm = fit(
        BC(BCConfig(hidden=(8,), learning_rate=1e-2), Sizes(STATE_DIM, ACTION_DIM, False)), lambda _: still, range(800)
    )
    mean, log_std = algorithm.actor(same[:1])
    assert mean[0].tolist() == pytest.approx(action.mean(0).tolist(), abs=0.01)
    assert log_std[0].exp().tolist() == pytest.approx(action.std(0).tolist(), abs=0.01)


def test_loss_by_hand() -> None:
    algorithm = BC(BCConfig(hidden=hand.HIDDEN), hand.SIZES)
    hand.set_actor(algorithm.actor, 0.3, -0.7)
    standardised = (hand.A - np.tanh(0.3)) / np.exp(-0.7)
    expected = np.mean(0.5 * standardised**2 - 0.7 + 0.5 * np.log(2 * np.pi))
    assert algorithm.losses(hand.three_rows())["actor"].item() == pytest.approx(expected, rel=1e-5)


def test_it_imitates_towards_the_actors_goal() -> None:
    """With goals of both, the critic's may lie behind, or in another episode."""
    batch = random_batch(0)
    algorithm = BC(BCConfig(hidden=(8,)), Sizes(STATE_DIM, ACTION_DIM, True))
    loss = algorithm.losses(batch)["actor"]
    assert torch.equal(loss, algorithm.losses(dataclasses.replace(batch, goal=batch.actor_goal, actor_goal=None))["actor"])
    assert not torch.equal(loss, algorithm.losses(dataclasses.replace(batch, actor_goal=None))["actor"])


def test_a_deviation_at_its_floor_can_grow_again() -> None:
    algorithm = BC(BCConfig(hidden=(8,), learning_rate=0.1), Sizes(STATE_DIM, ACTION_DIM, True))
    with torch.no_grad():
        algorithm.actor.log_std.fill_(-6.0)
    algorithm.after_step()
    assert algorithm.actor.log_std.tolist() == [-5.0] * ACTION_DIM
    fit(algorithm, random_batch, range(1))
    assert bool((algorithm.actor.log_std > -5.0).all())
