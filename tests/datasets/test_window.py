from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.datasets.sampler import UniformSampler, locate
from flywheel.datasets.window import Window
from tests.tables import lengths, make_table

sizes = st.integers(1, 12)


@given(lengths, st.integers(0, 99), sizes, sizes)
def test_windows_stay_in_their_episode_and_say_what_they_repeat(
    transitions: list[int], seed: int, history: int, chunk: int
) -> None:
    table = make_table(transitions, seed)
    indices = UniformSampler(table).sample(np.random.default_rng(seed), 300)
    window = Window(history, chunk)
    seen, is_before = window.observations(indices)
    taken, is_beyond = window.actions(table, indices)
    seen, taken = seen.reshape(300, history), taken.reshape(300, chunk)

    start, last = table.start[indices.episode][:, None], table.final_row[indices.episode][:, None] - 1
    wanted_seen = indices.row[:, None] + np.arange(1 - history, 1)
    wanted_taken = indices.row[:, None] + np.arange(chunk)
    np.testing.assert_array_equal(seen, np.maximum(wanted_seen, start))
    np.testing.assert_array_equal(taken, np.minimum(wanted_taken, last))
    if is_before is not None:
        np.testing.assert_array_equal(is_before, wanted_seen < start)
        assert not is_before[:, -1].any()  # the transition's own observation is never padding
    if is_beyond is not None:
        np.testing.assert_array_equal(is_beyond, wanted_taken > last)
        assert not is_beyond[:, 0].any()


@given(lengths, st.integers(0, 99), sizes, sizes)
def test_next_observations_reach_back_over_the_same_episode(transitions: list[int], seed: int, history: int, ahead: int) -> None:
    table = make_table(transitions, seed)
    every = locate(table, np.arange(table.total))
    steps = np.minimum(ahead, table.transitions[every.episode] - every.step)
    rows, _ = Window(history).observations(every, steps)
    rows = rows.reshape(len(every), history)
    assert (rows >= table.start[every.episode][:, None]).all()
    assert (rows <= table.final_row[every.episode][:, None]).all()
    np.testing.assert_array_equal(rows[:, -1], every.row + steps)


def test_single_window_is_the_transition_itself() -> None:
    table = make_table([3, 1])
    every = locate(table, np.arange(4))
    for rows, mask in (Window().observations(every), Window().actions(table, every)):
        np.testing.assert_array_equal(rows, every.row)
        assert mask is None


@pytest.mark.parametrize(("history", "chunk"), [(0, 1), (1, 0), (-1, 3)])
def test_empty_window_is_refused(history: int, chunk: int) -> None:
    with pytest.raises(FlywheelError, match="at least one"):
        Window(history, chunk)
