"""The pool keeps the sampler's law, holds few episodes at a time, and is a pure function of the seed and the sample's number."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from flywheel.datasets import pool as pool_module
from flywheel.datasets.pool import FEWEST, Pool, PoolWarning, make_pool
from flywheel.datasets.relabel import ActionableGoals, ActorGoals, Hindsight
from flywheel.datasets.sampler import Indices, MixedSampler, Sampler, UniformSampler, WeightedSampler
from flywheel.datasets.stratified import StratifiedSampler
from flywheel.datasets.table import EpisodeTable
from tests.tables import chi_square, make_table

LENGTHS = [3, 9, 1, 4, 25, 7, 2, 14]
RUNS = 4_000


def _samplers(table: EpisodeTable) -> dict[str, tuple[Sampler, np.ndarray]]:
    """Samplers with the probability of each transition."""
    rng = np.random.default_rng(1)
    by_transition = rng.random(table.total) * (rng.random(table.total) < 0.7)
    by_episode = rng.random(len(table))
    of_episode = by_episode[table.episode_of] / table.transitions[table.episode_of]
    is_new = np.arange(len(table)) % 3 == 0
    from_new = is_new[table.episode_of]
    mixed = np.where(from_new, 0.4 / from_new.sum(), 0.6 / (~from_new).sum())
    return {
        "uniform": (UniformSampler(table), np.full(table.total, 1 / table.total)),
        "transitions": (WeightedSampler(table, by_transition, of="transitions"), by_transition / by_transition.sum()),
        "episodes": (WeightedSampler(table, by_episode, of="episodes"), of_episode / of_episode.sum()),
        "mixed": (MixedSampler(table, is_new, 0.4), mixed),
    }


def _draw(pool: Pool, first: int, n: int, seed: int = 0) -> Indices:
    return pool.sample(np.random.default_rng([seed, first]), first, n)


def _number(table: EpisodeTable, row: np.ndarray) -> np.ndarray:
    """The number in snapshot order of the transition of each row."""
    episode = (row[:, None] >= table.start) & (row[:, None] < table.start + table.transitions)
    assert (episode.sum(axis=1) == 1).all()
    return row - table.offset[episode.argmax(axis=1)]


@pytest.mark.parametrize("name", ["uniform", "transitions", "episodes", "mixed"])
def test_each_sample_follows_the_samplers_law(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_DRAWN", 100)  # thousands of pools are made
    table = make_table(LENGTHS)
    sampler, law = _samplers(table)[name]
    here, elsewhere = np.zeros(table.total), np.zeros(table.total)
    for seed in range(RUNS):  # one sample of each pool, as those of one pool are no independent draws
        pool = Pool(table, sampler, seed, slots=5, residency=50)
        count = 5 if name == "mixed" else 1  # five of the mixed ones have its shares exactly
        indices = _draw(pool, 35 * (seed % 7), count, seed)[np.array([seed % count])]
        np.testing.assert_array_equal(indices.row, table.start[indices.episode] + indices.step)
        assert indices.elsewhere is not None
        here[_number(table, indices.row)] += 1
        elsewhere[_number(table, indices.elsewhere)] += 1
    assert abs(chi_square(here, RUNS * law)) < 4
    assert abs(chi_square(elsewhere, RUNS * law)) < 4


def test_a_mixed_batch_has_its_shares_exactly() -> None:
    table = make_table(LENGTHS * 4)
    is_new = np.arange(len(table)) % 8 == 1
    pool = Pool(table, MixedSampler(table, is_new, 0.25), 0, slots=16, residency=300)
    for first in range(0, 2_000, 400):
        indices = _draw(pool, first, 400)
        assert is_new[indices.episode].reshape(-1, 4).sum(axis=1).tolist() == [1] * 100


def test_strata_keep_their_shares_however_large_a_batch_is() -> None:
    table = make_table([20] * 400)
    stratum = np.arange(400) % 3
    sampler = StratifiedSampler(table, stratum, [0.7, 0.25, 0.05], batch_size=256)
    pool = make_pool(table, sampler, 0, rows=40 * 21)  # fewer slots than a batch has samples
    assert pool is not None
    indices = _draw(pool, 0, 50 * 256)
    np.testing.assert_array_equal(stratum[indices.episode], sampler.kinds(50 * 256))


def test_few_episodes_are_held_and_they_change_in_turn() -> None:
    table = make_table([20] * 400)
    pool = Pool(table, UniformSampler(table), 3, slots=16, residency=640)
    held = [set(_draw(pool, first, 40).episode.tolist()) for first in range(0, 6_400, 40)]
    assert max(map(len, held)) <= 17  # one slot changes every 40 samples
    assert len(set().union(*held)) > 100
    for before, after in pairwise(held):
        assert len(after - before) <= 12


def test_a_slot_is_a_function_of_the_seed_and_the_samples_number() -> None:
    table = make_table([20] * 400)
    pool, other = (Pool(table, UniformSampler(table), seed, slots=16, residency=640) for seed in (3, 4))
    np.testing.assert_array_equal(_draw(pool, 5_000, 300).row, _draw(pool, 5_000, 300).row)
    assert not np.array_equal(_draw(pool, 5_000, 300).row, _draw(other, 5_000, 300).row)
    whole = pool._held(0, 6_400)
    np.testing.assert_array_equal(pool._held(5_000, 300), whole[5_000 // 640 : 5_299 // 640 + 2])


def test_random_goals_come_from_the_pool() -> None:
    table = make_table([20] * 400)
    pool = Pool(table, UniformSampler(table), 3, slots=16, residency=10_000)
    indices, rng = _draw(pool, 0, 500), np.random.default_rng(0)
    held = set(pool._held(0, 500).reshape(-1).tolist())
    assert indices.elsewhere is not None
    apart = Hindsight(0.0, 0.0, 1.0)
    found = ActorGoals(apart, apart)(table, indices, rng)
    assert found.goal_row is not None
    assert found.actor_goal_row is not None
    assert set(table.episode_of[_number(table, found.goal_row - 1)].tolist()) <= held
    np.testing.assert_array_equal(found.goal_row, indices.elsewhere + 1)
    assert (found.goal_row != found.actor_goal_row).mean() > 0.9
    chained = ActionableGoals(p_chained=1.0)(table, indices, rng)
    assert chained.goal_row is not None
    episode = table.episode_of[_number(table, chained.goal_row - 1)]
    assert (episode != indices.episode).all()
    assert np.isin(episode, list(held)).mean() > 0.8  # the rest fell upon their own episode, and were drawn from all


def test_a_pool_is_made_only_where_not_everything_fits() -> None:
    table = make_table([20] * 400)
    sampler = UniformSampler(table)
    assert make_pool(table, sampler, 0, rows=0) is None
    assert make_pool(table, sampler, 0, rows=400 * 21) is None
    pool = make_pool(table, sampler, 0, rows=100 * 21)
    assert pool is not None
    assert (pool.slots, pool.residency) == (100, 3_000)


def test_a_pool_of_too_few_episodes_is_not_made_and_said() -> None:
    table = make_table([20] * 400)
    with pytest.warns(PoolWarning, match="hold only 15 episodes"):
        assert make_pool(table, UniformSampler(table), 0, rows=FEWEST * 21 - 1) is None
    rare = MixedSampler(table, np.arange(400) < 10, 0.001)
    with pytest.warns(PoolWarning, match="hold only 40 episodes"):  # no slot for the new ones
        assert make_pool(table, rare, 0, rows=40 * 21) is None
