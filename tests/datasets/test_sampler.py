from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.datasets.sampler import MixedSampler, UniformSampler, WeightedSampler, locate
from tests.tables import chi_square, lengths, make_table


@given(lengths, st.integers(0, 99))
def test_table_numbers_every_transition_once(transitions: list[int], seed: int) -> None:
    table = make_table(transitions, seed)
    found = locate(table, np.arange(table.total))

    expected = [(table.start[e] + t, e, t) for e, count in enumerate(transitions) for t in range(count)]
    assert list(zip(found.row, found.episode, found.step, strict=True)) == expected
    np.testing.assert_array_equal(table.row(np.arange(table.total)), found.row)
    # Final observations are steps but never transitions.
    assert not set(found.row) & set(table.final_row)
    assert sorted(table.step_rows) == sorted([*found.row, *table.final_row])


@given(lengths, st.integers(0, 99))
def test_uniform_samples_are_transitions_of_the_table(transitions: list[int], seed: int) -> None:
    table = make_table(transitions, seed)
    found = UniformSampler(table).sample(np.random.default_rng(seed), 500)

    assert len(found) == 500
    np.testing.assert_array_equal(found.row, table.start[found.episode] + found.step)
    assert (found.step >= 0).all()
    assert (found.step < table.transitions[found.episode]).all()


def test_uniform_sampling_is_uniform_over_transitions_not_episodes() -> None:
    table = make_table([1, 2, 500, 37, 1])
    found = UniformSampler(table).sample(np.random.default_rng(1), 200_000)

    number = table.first[found.episode] + found.step
    counts = np.bincount(number, minlength=table.total)
    assert abs(chi_square(counts, np.full(table.total, 200_000 / table.total))) < 5


def test_sampling_is_a_pure_function_of_the_generator() -> None:
    table = make_table([5, 50, 3])
    for sampler in (UniformSampler(table), MixedSampler(table, np.array([True, False, False]), 0.3)):
        one, two, other = (sampler.sample(np.random.default_rng(seed), 100) for seed in ([7, 1], [7, 1], [7, 2]))
        np.testing.assert_array_equal(one.row, two.row)
        assert (one.row != other.row).any()


def test_what_is_drawn_does_not_depend_on_where_episodes_lie() -> None:
    one, two = make_table([5, 50, 3], seed=1), make_table([5, 50, 3], seed=2)
    assert (one.start != two.start).any()
    first, second = (UniformSampler(table).sample(np.random.default_rng(0), 100) for table in (one, two))
    np.testing.assert_array_equal(first.episode, second.episode)
    np.testing.assert_array_equal(first.step, second.step)


@given(lengths.filter(lambda counts: len(counts) > 1), st.floats(0, 1), st.integers(1, 64), st.integers(0, 99))
def test_mixed_share_holds_in_every_batch(transitions: list[int], fraction: float, batch: int, seed: int) -> None:
    table = make_table(transitions, seed)
    is_new = np.arange(len(table)) == seed % len(table)
    found = MixedSampler(table, is_new, fraction).sample(np.random.default_rng(seed), 10 * batch)

    np.testing.assert_array_equal(found.row, table.start[found.episode] + found.step)
    shares = is_new[found.episode].reshape(10, batch).sum(axis=1)
    assert (np.abs(shares - fraction * batch) <= 1 + 1e-6).all()


def test_mixed_sampling_is_uniform_within_each_side() -> None:
    table = make_table([1, 2, 300, 37, 4])
    is_new = np.array([False, True, False, True, False])
    found = MixedSampler(table, is_new, 0.5).sample(np.random.default_rng(3), 200_000)

    counts = np.bincount(table.first[found.episode] + found.step, minlength=table.total)
    from_new = is_new[table.episode_of]
    for side in (from_new, ~from_new):
        assert counts[side].sum() == 100_000
        assert abs(chi_square(counts[side], np.full(side.sum(), 100_000 / side.sum()))) < 5


def test_mixing_needs_both_sides_unless_one_gets_nothing() -> None:
    table = make_table([4, 5])
    nobody, everybody = np.zeros(2, np.bool_), np.ones(2, np.bool_)
    with pytest.raises(FlywheelError, match="no new episodes"):
        MixedSampler(table, nobody, 0.5)
    with pytest.raises(FlywheelError, match="no old episodes"):
        MixedSampler(table, everybody, 0.5)
    with pytest.raises(FlywheelError, match=r"\[0, 1\], not 1.5"):
        MixedSampler(table, everybody, 1.5)
    assert len(MixedSampler(table, nobody, 0.0).sample(np.random.default_rng(0), 10)) == 10
    assert len(MixedSampler(table, everybody, 1.0).sample(np.random.default_rng(0), 10)) == 10


@given(lengths, st.integers(0, 99))
def test_weighted_samples_are_transitions_that_weigh_something(transitions: list[int], seed: int) -> None:
    table, rng = make_table(transitions, seed), np.random.default_rng(seed)
    for of, count in (("transitions", table.total), ("episodes", len(table))):
        weight = rng.random(count) * (rng.random(count) < 0.5)
        weight[int(rng.integers(count))] = 1e-300  # so light that only its being there counts
        found = WeightedSampler(table, weight, of=of).sample(rng, 400)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.row, table.start[found.episode] + found.step)
        assert (found.step >= 0).all()
        assert (found.step < table.transitions[found.episode]).all()
        drawn = found.episode if of == "episodes" else table.first[found.episode] + found.step
        assert (weight[drawn] > 0).all()


def test_weighted_sampling_follows_the_weights() -> None:
    table, rng = make_table([1, 2, 300, 37, 4]), np.random.default_rng(4)
    weight = rng.random(table.total) ** 3 * (rng.random(table.total) < 0.9)
    found = WeightedSampler(table, weight, of="transitions").sample(rng, 200_000)
    counts = np.bincount(table.first[found.episode] + found.step, minlength=table.total)
    assert abs(chi_square(counts, 200_000 * weight / weight.sum())) < 5


def test_weighted_episodes_get_their_share_however_long_they_are() -> None:
    table, rng = make_table([1, 2, 300, 37, 4]), np.random.default_rng(5)
    weight = np.array([1.0, 2.0, 3.0, 0.0, 4.0])
    found = WeightedSampler(table, weight, of="episodes").sample(rng, 200_000)
    assert abs(chi_square(np.bincount(found.episode, minlength=5), 200_000 * weight / 10)) < 5
    long = found.step[found.episode == 2]
    assert abs(chi_square(np.bincount(long, minlength=300), np.full(300, len(long) / 300))) < 5


@pytest.mark.parametrize("weight", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.inf], [1.0, np.nan]])
def test_weights_that_are_none_are_refused(weight: list[float]) -> None:
    with pytest.raises(FlywheelError, match="one weight for each of the 2 episodes"):
        WeightedSampler(make_table([4, 5]), weight, of="episodes")
