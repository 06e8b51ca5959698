from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.datasets.stratified import StratifiedSampler
from flywheel.training.data import CHUNK_UPDATES
from tests.tables import chi_square, make_table

strata = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4)), min_size=1, max_size=12)
"""Per episode: its transitions and its stratum."""


def sampler(episodes: list[tuple[int, int]], batch: int, seed: int) -> tuple[StratifiedSampler, np.ndarray, np.ndarray]:
    """A sampler with random shares of the strata that have episodes: itself, the strata (E,) and the shares (5,)."""
    stratum = np.array([kind for _, kind in episodes])
    shares = np.random.default_rng(seed).random(5) * (np.bincount(stratum, minlength=5) > 0)
    table = make_table([transitions for transitions, _ in episodes], seed)
    return StratifiedSampler(table, stratum, shares / shares.sum(), batch), stratum, shares / shares.sum()


@given(strata, st.integers(1, 300), st.integers(0, 99))
def test_every_batch_has_each_share_to_within_one_sample(episodes: list[tuple[int, int]], batch: int, seed: int) -> None:
    drawn, stratum, shares = sampler(episodes, batch, seed)
    found = drawn.sample(np.random.default_rng(seed), CHUNK_UPDATES * batch)
    for one in stratum[found.episode].reshape(CHUNK_UPDATES, batch):
        counts = np.bincount(one, minlength=5)
        assert (np.abs(counts - shares * batch) < 1 + 1e-9).all()
        assert counts[shares == 0].sum() == 0


@given(strata, st.integers(1, 8), st.integers(0, 99))
def test_shares_below_one_sample_come_true_over_the_batches(episodes: list[tuple[int, int]], batch: int, seed: int) -> None:
    drawn, _, shares = sampler(episodes, batch, seed)
    counts = np.bincount(drawn.kinds(400 * batch), minlength=5)
    assert (np.abs(counts - 400 * batch * shares) < 8).all()


@given(strata, st.integers(0, 99))
def test_each_process_has_nearly_the_same_shares(episodes: list[tuple[int, int]], seed: int) -> None:
    drawn, _, shares = sampler(episodes, 256, seed)
    for part in drawn.kinds(256 * 4).reshape(-1, 64):
        assert (np.abs(np.bincount(part, minlength=5) - 64 * shares) < 5).all()


@given(strata, st.integers(0, 99))
def test_samples_are_transitions_of_their_episodes(episodes: list[tuple[int, int]], seed: int) -> None:
    drawn, stratum, _ = sampler(episodes, 16, seed)
    table = make_table([transitions for transitions, _ in episodes], seed)
    found = drawn.sample(np.random.default_rng(seed), 160)
    np.testing.assert_array_equal(found.row, table.start[found.episode] + found.step)
    np.testing.assert_array_equal(stratum[found.episode], drawn.kinds(160))
    assert ((found.step >= 0) & (found.step < table.transitions[found.episode])).all()
    again = drawn.sample(np.random.default_rng(seed), 160)
    np.testing.assert_array_equal(found.row, again.row)


def test_transitions_of_a_stratum_are_equally_likely() -> None:
    table, stratum = make_table([1, 2, 300, 37, 4]), np.array([0, 1, 0, 1, 1])
    found = StratifiedSampler(table, stratum, [0.25, 0.75], 10).sample(np.random.default_rng(0), 200_000)
    counts = np.bincount(table.first[found.episode] + found.step, minlength=table.total)
    for kind, share in enumerate([0.25, 0.75]):
        own = stratum[table.episode_of] == kind
        assert abs(chi_square(counts[own], np.full(own.sum(), 200_000 * share / own.sum()))) < 5


@pytest.mark.parametrize("shares", [[0.5, 0.4], [1.5, -0.5], [1.0]])
def test_shares_must_be_one_per_stratum_and_sum_to_one(shares: list[float]) -> None:
    with pytest.raises(FlywheelError, match="one share per stratum"):
        StratifiedSampler(make_table([3, 3]), np.array([0, 1]), shares, 8)


def test_a_stratum_without_episodes_has_no_share() -> None:
    with pytest.raises(FlywheelError, match="without episodes"):
        StratifiedSampler(make_table([3, 3]), np.array([0, 0]), [0.5, 0.5], 8)
