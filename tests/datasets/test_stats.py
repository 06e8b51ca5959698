from __future__ import annotations

import numpy as np
import pytest

from flywheel.datasets.columns import Columns
from flywheel.datasets.stats import STD_FLOOR, state_statistics
from tests.tables import make_table


def _columns(transitions: list[int], seed: int, scale: float = 1.0, offset: float = 0.0) -> Columns:
    """Columns whose content belongs to (episode, step), wherever `seed` puts the episodes; gaps hold rubbish."""
    table = make_table(transitions, seed)
    rows = int(table.final_row.max()) + 5
    state = np.full((rows, 3), np.inf, np.float32)
    rng = np.random.default_rng(0)
    for start, count in zip(table.start, table.transitions, strict=True):
        state[start : start + count + 1] = rng.normal(offset, scale, (count + 1, 3))
    return Columns(table=table, state=state, action=np.zeros((rows, 1), np.float32), reward=np.zeros(rows, np.float32))


def test_statistics_are_those_of_the_snapshots_steps() -> None:
    columns = _columns([3, 40, 1], seed=1, scale=2.5, offset=-4.0)
    mean, std = state_statistics(columns)
    steps = columns.state[columns.table.step_rows].astype(np.float64)
    assert len(steps) == 47
    np.testing.assert_allclose(mean, steps.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, steps.std(axis=0), rtol=1e-6)
    assert mean.dtype == std.dtype == np.float32


def test_statistics_do_not_cancel_where_the_mean_is_large() -> None:
    columns = _columns([90_000, 1], seed=1, scale=0.05, offset=1000.0)
    _, std = state_statistics(columns)
    np.testing.assert_allclose(std, 0.05, rtol=0.02)


def test_a_constant_column_does_not_blow_up() -> None:
    columns = _columns([20], seed=1)
    columns.state[:, 1] = 7.0
    mean, std = state_statistics(columns)
    assert mean[1] == pytest.approx(7.0)
    assert std[1] == np.float32(STD_FLOOR)
    assert std[0] > 0.1


def test_statistics_do_not_depend_on_where_episodes_lie() -> None:
    one, two = _columns([5, 50, 3, 700], seed=1), _columns([5, 50, 3, 700], seed=2)
    assert (one.table.start != two.table.start).any()
    for left, right in zip(state_statistics(one), state_statistics(two), strict=True):
        np.testing.assert_array_equal(left, right)
