from __future__ import annotations

import numpy as np
import pytest

from flywheel.training.calibration import balanced_accuracy, bins, calibration_error, fit_temperature, measure


def drawn(count: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `sharpness` times too large, and outcomes."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, count)
    return sharpness * true, rng.random(count) < 1 / (1 + np.exp(-true))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_what_was_too_sharp_or_too_flat(sharpness: float) -> None:
    logits, success = drawn(20_000, sharpness)
    temperature = fit_temperature(logits, success)
    assert temperature == pytest.approx(sharpness, rel=0.05)
    assert calibration_error(1 / (1 + np.exp(-logits / temperature)), success) < 0.012


def test_a_set_without_mistakes_asks_for_no_certainty() -> None:
    success = np.array([True, False] * 10)
    logits = np.where(success, 8.0, -8.0)
    confidence = 1 / (1 + np.exp(-8.0 / fit_temperature(logits, success)))
    assert confidence == pytest.approx(11 / 12, abs=0.01)  # Platt's target for ten of ten
    assert fit_temperature(logits[success], success[success]) == 1.0


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
