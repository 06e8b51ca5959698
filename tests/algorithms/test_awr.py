from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flywheel.algorithms.awr import AWR, AWRConfig
from flywheel.core.errors import FlywheelError
from tests.algorithms import hand
from tests.algorithms.hand import HIDDEN, RETURN, SIZES, A, S

MEAN, LOG_STD, AT_ZERO = 0.3, -0.7, 0.6


def _awr(**settings: object) -> AWR:
    algorithm = AWR(AWRConfig(hidden=HIDDEN, **settings), SIZES)
    hand.set_value(algorithm.value, AT_ZERO)
    hand.set_actor(algorithm.actor, MEAN, LOG_STD)
    return algorithm


@pytest.mark.parametrize("inverse_temperature", [1.0, 10.0])
def test_losses_by_hand(inverse_temperature: float) -> None:
    """With the larger one, the first row's weight of exp(13) is clipped to 20."""
    losses = _awr(inverse_temperature=inverse_temperature).losses(hand.three_rows())
    advantage = RETURN - (AT_ZERO + S)
    weight = np.minimum(np.exp(inverse_temperature * advantage), 20.0)
    assert (weight == 20.0).tolist() == [inverse_temperature == 10.0, False, False]
    log_prob = -0.5 * ((A - np.tanh(MEAN)) / np.exp(LOG_STD)) ** 2 - LOG_STD - 0.5 * np.log(2 * np.pi)
    assert losses["value"].item() == pytest.approx(np.mean(advantage**2), rel=1e-5)
    assert losses["actor"].item() == pytest.approx(-np.mean(weight * log_prob), rel=1e-5)


def test_a_batch_without_returns_is_refused() -> None:
    with pytest.raises(FlywheelError, match="returns"):
        _awr().losses(dataclasses.replace(hand.three_rows(), mc_return=None))
