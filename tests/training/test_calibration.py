from __future__ import annotations

import numpy as np
import pytest

from flywheel.training.calibration import Calibration, balanced_accuracy, bins, calibrate, calibration_error, measure


def drawn(count: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `sharpness` times too large, and outcomes."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, count)
    return sharpness * true, rng.random(count) < 1 / (1 + np.exp(-true))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_calibration_undoes_what_was_too_sharp_or_too_flat_and_what_was_added(sharpness: float) -> None:
    logits, success = drawn(20_000, sharpness)
    task = np.arange(len(logits)) % 2
    added = np.array([3.0, -1.0])
    calibration = calibrate(logits + added[task], success, task, 2)
    assert calibration.scale == pytest.approx(1 / sharpness, rel=0.05)
    np.testing.assert_allclose(calibration.offsets, -added / sharpness, atol=0.1)
    assert calibration_error(calibration.probability(logits + added[task], task), success) < 0.012


def test_little_evidence_changes_little_and_none_changes_nothing() -> None:
    success, task = np.array([True, False] * 3), np.zeros(6, np.int64)
    logits = np.where(success, 2.0, -2.0)
    calibration = calibrate(logits, success, task, 2)
    assert 1.0 < calibration.scale < 1.6  # six of six are right, at 0.88
    assert calibration.offsets == pytest.approx((0.0, 0.0), abs=1e-6)
    nothing = calibrate(logits[:0], success[:0], task[:0], 2)
    assert (nothing.scale, nothing.offsets) == (1.0, (0.0, 0.0))


def test_an_extreme_logit_is_no_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = Calibration(1.0, (0.0,)).probability(np.array([-1e4, 0.0, 1e4]), np.zeros(3, np.int64))
    assert found.tolist() == [0.0, 0.5, 1.0]


def test_calibration_error_by_hand() -> None:
    probability = np.array([0.02, 0.03, 0.95, 0.97, 1.0])
    success = np.array([False, True, True, True, False])
    expected = (2 * abs(0.025 - 0.5) + 3 * abs((0.95 + 0.97 + 1.0) / 3 - 2 / 3)) / 5
    assert calibration_error(probability, success) == pytest.approx(expected)
    assert [part.count for part in bins(probability, success)] == [2, 3]
    assert calibration_error(probability, success, adaptive=True) == pytest.approx(np.abs(probability - success).mean())
    assert np.isnan(calibration_error(np.empty(0), np.empty(0, np.bool_)))


def test_balanced_accuracy_weighs_both_outcomes_alike() -> None:
    probability, success = np.array([0.9, 0.1, 0.2, 0.6]), np.array([True, False, False, False])
    assert balanced_accuracy(probability, success) == pytest.approx((1 + 2 / 3) / 2)
    found = measure(probability, success)
    assert (found["count"], found["successes"], found["missed"], found["false_alarms"]) == (4, 1, 0, 1)
    assert measure(probability[:1], success[:1])["balanced_accuracy"] is None
