"""Which transitions a chunk of batches holds: a pure function of the snapshot and of the generator that is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import FlywheelError
from flywheel.datasets.table import Bools, EpisodeTable, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Indices:
    """n sampled transitions."""

    row: Ints
    """(n,) rows of the columns."""
    episode: Ints
    """(n,) indices into the table."""
    step: Ints
    """(n,) the transition's number t within its episode."""
    elsewhere: Ints | None = None
    """(n,) the rows of transitions that were drawn in the same way but apart from the samples, for random goals; None where
    these may come from anywhere in the table (`pool.Pool`)."""

    def __len__(self) -> int:
        """The number of samples n."""
        return len(self.row)

    def __getitem__(self, which: slice | Ints | Bools) -> Indices:
        """Some of them, in any order."""
        elsewhere = None if self.elsewhere is None else self.elsewhere[which]
        return Indices(self.row[which], self.episode[which], self.step[which], elsewhere)


class Sampler(Protocol):
    """Draws transitions; a chunk of many batches is drawn at once and sliced by its consumer."""

    def sample(self, rng: np.random.Generator, n: int) -> Indices:
        """Draw n transitions with replacement."""

    def steps(self, rng: np.random.Generator, episode: Ints) -> Ints:
        """Draw a transition's number within each of some episodes (n,), as `sample` does once it has come upon the episode."""

    def kinds(self, n: int) -> Ints:
        """(n,) the kinds that `sample` draws n transitions of, in order: all 0 unless each kind has a fixed share."""


def locate(table: EpisodeTable, transition: Ints) -> Indices:
    """Rows, episodes and steps of transitions given by their number in snapshot order, (n,) in [0, N)."""
    episode = table.episode_of.take(transition).astype(np.int64)
    return Indices(row=transition + table.offset.take(episode), episode=episode, step=transition - table.first.take(episode))


@dataclass(frozen=True, eq=False)
class UniformSampler:
    """Every transition of the snapshot is equally likely."""

    table: EpisodeTable

    def sample(self, rng: np.random.Generator, n: int) -> Indices:
        """Draw n transitions with replacement."""
        return locate(self.table, rng.integers(self.table.total, size=n))

    def steps(self, rng: np.random.Generator, episode: Ints) -> Ints:
        """Draw a transition's number within each of some episodes (n,)."""
        return _any_step(self.table, rng, episode)

    def kinds(self, n: int) -> Ints:
        """(n,) zeros."""
        return np.zeros(n, np.int64)


class MixedSampler:
    """A fixed share of the samples from new episodes, the rest from the old ones; uniform within each.

    Online finetuning takes half of each batch from new episodes however few they are (RLPD, Ball et al. 2023, section 4.1).
    The two kinds are interleaved evenly: any b consecutive samples hold `fraction` * b from the new ones, to within one.
    """

    def __init__(self, table: EpisodeTable, is_new: Bools, fraction: float) -> None:
        """`is_new`, (E,), marks the episodes that get the share `fraction`; raises `FlywheelError` if either side is empty."""
        if not 0.0 <= fraction <= 1.0:
            raise FlywheelError(f"The mixed share must lie in [0, 1], not {fraction}.")
        from_new = is_new[table.episode_of]
        self._table, self._fraction = table, fraction
        self._new, self._old = np.flatnonzero(from_new), np.flatnonzero(~from_new)
        if (fraction > 0 and not len(self._new)) or (fraction < 1 and not len(self._old)):
            side = "new" if not len(self._new) else "old"
            raise FlywheelError(
                f"A share of {fraction} cannot be mixed: there are no {side} episodes; collect some, or sample uniformly."
            )

    def sample(self, rng: np.random.Generator, n: int) -> Indices:
        """Draw n transitions with replacement."""
        from_new = self.kinds(n) > 0
        count = int(from_new.sum())
        transition = np.empty(n, np.int64)
        # A side that gets no sample may be empty, and numpy draws nothing from an empty range.
        transition[from_new] = self._new[rng.integers(max(len(self._new), 1), size=count)]
        transition[~from_new] = self._old[rng.integers(max(len(self._old), 1), size=n - count)]
        return locate(self._table, transition)

    def steps(self, rng: np.random.Generator, episode: Ints) -> Ints:
        """Draw a transition's number within each of some episodes (n,)."""
        return _any_step(self._table, rng, episode)

    def kinds(self, n: int) -> Ints:
        """(n,) 1 for a transition from a new episode, 0 for one from the others."""
        return np.diff(np.floor(np.arange(n + 1) * self._fraction).astype(np.int64))


class WeightedSampler:
    """Draws each transition in proportion to its weight, exactly: by search in the cumulative sum, where nothing is rounded
    but that sum. What weighs nothing is never drawn.
    """

    def __init__(self, table: EpisodeTable, weight: npt.ArrayLike, *, of: Literal["transitions", "episodes"]) -> None:
        """`weight` is (N,) per transition in snapshot order, or (E,) per episode, whose transitions are then equally likely.

        Raises `FlywheelError` for weights of another number, below 0, not finite, or all 0.
        """
        weights = np.asarray(weight, np.float64)
        wanted = table.total if of == "transitions" else len(table)
        if weights.shape != (wanted,) or not np.isfinite(weights).all() or weights.min() < 0 or not weights.sum() > 0:
            raise FlywheelError(f"There must be one weight for each of the {wanted} {of}, at least 0 and not all 0.")
        self._table, self._of = table, of
        self._cumulative = np.cumsum(weights)
        if of == "transitions":
            self._edges = np.concatenate([np.zeros(1), self._cumulative[table.first[1:] - 1]])

    def sample(self, rng: np.random.Generator, n: int) -> Indices:
        """Draw n transitions with replacement."""
        # The first entry above u: an entry that weighs nothing equals the one before it, and is never the first.
        drawn = np.searchsorted(self._cumulative, rng.random(n) * self._cumulative[-1], side="right")
        if self._of == "transitions":
            return locate(self._table, drawn)
        step = self.steps(rng, drawn)
        return Indices(row=self._table.start.take(drawn) + step, episode=drawn, step=step)

    def steps(self, rng: np.random.Generator, episode: Ints) -> Ints:
        """Draw a transition's number within each of some episodes (n,)."""
        if self._of == "episodes":
            return _any_step(self._table, rng, episode)
        low, high = self._edges.take(episode), self._edges.take(episode + 1)
        # Below the upper edge, however that is rounded: behind it the next episode begins.
        sought = np.minimum(low + rng.random(len(episode)) * (high - low), np.nextafter(high, low))
        steps: Ints = np.searchsorted(self._cumulative, sought, side="right") - self._table.first.take(episode)
        return steps

    def kinds(self, n: int) -> Ints:
        """(n,) zeros."""
        return np.zeros(n, np.int64)


def _any_step(table: EpisodeTable, rng: np.random.Generator, episode: Ints) -> Ints:
    return (rng.random(len(episode)) * table.transitions.take(episode)).astype(np.int64)
