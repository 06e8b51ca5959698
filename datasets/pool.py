"""Sampling from a few episodes at a time, each of which makes room for another after a while, so that what is costly to read of
an episode (its pictures, where they are kept as JPEG) is read once and delivered several times.

A pool has K slots, and each holds an episode for as long as it takes to draw `DRAWS` times as many samples as the pool has
transitions; the slots change in turn, never all at once. An episode enters a slot as often as the sampler comes upon it, a
sample comes from any slot of its kind alike, and from the episode's transitions as the sampler draws them. So each sample by
itself follows the sampler's law exactly, whatever that is.

What is given up is that samples are independent of each other. Two that are less than a residency apart come from the same slot
with probability 1 / K, where independent ones come from the same episode with the sum of the squares of its law (1 / E for E like
episodes): a batch's mean varies as if its B samples were some B / (1 + (B - 1) c / K), where c is the share of its variance
that lies between episodes. That is what every shuffle buffer gives up, and it is nothing in the long run, as the slots change.

There is no state: what slot k holds at sample s is a pure function of (seed, k, s), like everything else that is drawn.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flywheel.datasets.sampler import Indices, Sampler
from flywheel.datasets.table import EpisodeTable, Ints

DRAWS = 1.5
"""How often a transition is drawn, on average, while its episode is in the pool. With a next observation and a goal that makes
nearly five deliveries of an observation; fewer cost more decoding, more make batches more alike."""
FEWEST = 16
"""Slots without which batches would be too much alike."""
_DRAWN = 10_000
"""Draws among which a pool's slots are chosen: many batches, so that every kind is among them."""
_POOL = 1
"""Tells the generators of slots from those of samples, [seed, chunk]."""


class PoolWarning(UserWarning):
    """Episodes are too long for a pool in the memory that it may take."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Draws like a sampler, but from the K episodes that are in the pool."""

    table: EpisodeTable
    sampler: Sampler
    seed: int
    slots: int
    """K"""
    residency: int
    """Samples that are drawn from all slots together while an episode stays in one."""

    def sample(self, rng: np.random.Generator, first: int, n: int) -> Indices:
        """Draw the samples number `first` to `first` + n - 1 of a run.

        Each comes with a second transition of the pool, drawn apart from it, for random goals.
        """
        held = self._held(first, n)
        here, elsewhere = (self._transitions(rng, held, first, n) for _ in range(2))
        return Indices(here.row, here.episode, here.step, elsewhere.row)

    def _transitions(self, rng: np.random.Generator, held: Ints, first: int, n: int) -> Indices:
        slot = self._any_slot(rng, n)
        turn = self._turn(first + np.arange(n), slot) - first // self.residency
        episode = held[turn, slot]
        step = self.sampler.steps(rng, episode)
        return Indices(self.table.start.take(episode) + step, episode, step)

    @cached_property
    def _chosen(self) -> Ints:
        return _choose(self.sampler, self.slots)

    def _held(self, first: int, n: int) -> Ints:
        """(turns, K) the episode of each slot, in every turn that one of the samples falls into."""
        turns = range(first // self.residency, (first + n - 1) // self.residency + 2)
        return np.stack([_draws(self.sampler, self.seed, turn)[self._chosen] for turn in turns])

    def _turn(self, sample: Ints, slot: Ints) -> Ints:
        """(n,) how often a slot has changed before a sample; slot k does k / K of a residency before slot 0."""
        return (sample + slot * self.residency // self.slots) // self.residency

    def _any_slot(self, rng: np.random.Generator, n: int) -> Ints:
        """(n,) a slot for each sample, of its kind."""
        kinds, wanted = self.sampler.kinds(_DRAWN)[self._chosen], self.sampler.kinds(n)
        slot = np.empty(n, np.int64)
        for kind in np.unique(wanted):
            own, samples = np.flatnonzero(kinds == kind), np.flatnonzero(wanted == kind)
            slot[samples] = own[rng.integers(len(own), size=len(samples))]
        return slot


def make_pool(table: EpisodeTable, sampler: Sampler, seed: int, rows: int) -> Pool | None:
    """The pool of as many episodes as fit into so many rows; None where all of the table does, or where it takes no pool.

    A `PoolWarning` says that no pool is made because too few episodes would fit, so that every sample costs its decoding.
    """
    if not rows or table.total + len(table) <= rows:
        return None
    transitions = float(table.transitions.take(_draws(sampler, seed, 0)).mean())
    slots = min(int(rows / (transitions + 1)), _DRAWN)
    kinds = sampler.kinds(_DRAWN)
    if slots < FEWEST or not np.isin(kinds, kinds[_choose(sampler, slots)]).all():
        warnings.warn(
            f"{rows} decoded pictures hold only {slots} episodes, too few to draw batches from, so each sample is decoded for "
            "itself; give pictures more memory (--data.picture-pool), or keep them raw (--data.picture-budget).",
            PoolWarning,
            stacklevel=2,
        )
        return None
    return Pool(table, sampler, seed, slots, residency=max(1, int(DRAWS * slots * transitions)))


def _draws(sampler: Sampler, seed: int, turn: int) -> Ints:
    """(_DRAWN,) the episodes that the sampler comes upon, those that the slots hold in a turn among them."""
    return sampler.sample(np.random.default_rng([seed, turn, _POOL]), _DRAWN).episode


def _choose(sampler: Sampler, slots: int) -> Ints:
    """(K,) which of the draws are the slots': of each kind its share, to within one, spread evenly over them."""
    by_kind = np.argsort(sampler.kinds(_DRAWN), kind="stable")
    return np.sort(by_kind[np.arange(slots) * _DRAWN // slots])
