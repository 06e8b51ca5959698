"""Batches with a fixed share of each of several kinds of episodes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import FlywheelError
from flywheel.datasets.sampler import Indices
from flywheel.datasets.table import EpisodeTable, Ints

_GOLDEN = 0.6180339887498949


class StratifiedSampler:
    """Draws so many transitions of each stratum of episodes in every batch, uniformly within it.

    In each batch of B a stratum with share p gets p B samples, rounded up or down, and over the batches of a draw p of them all,
    so that shares below one sample a batch come true too. The strata are mixed evenly within a batch, so that a process that
    computes a part of it has nearly the same shares.
    """

    def __init__(self, table: EpisodeTable, stratum: Ints, shares: npt.ArrayLike, batch_size: int) -> None:
        """`stratum` (E,) numbers each episode's stratum; `shares` (S,) sum to 1.

        Raises `FlywheelError` for shares that do not, and for a share of a stratum without episodes.
        """
        self._shares = np.asarray(shares, np.float64)
        counts = np.bincount(stratum, minlength=len(self._shares))
        if len(counts) > len(self._shares) or self._shares.min() < 0 or abs(self._shares.sum() - 1.0) > 1e-9:
            raise FlywheelError("There must be one share per stratum, at least 0, and together 1.")
        if (self._shares[counts == 0] > 0).any():
            raise FlywheelError("A stratum without episodes can have no share of the batch.")
        self._table, self._batch_size = table, batch_size
        self._episode = np.argsort(stratum, kind="stable")
        self._cumulative = np.cumsum(table.transitions[self._episode])
        self._edges = np.concatenate([np.zeros(1, np.int64), self._cumulative])[np.concatenate([[0], np.cumsum(counts)])]
        # Multiples of the golden ratio, modulo 1, are spread evenly wherever one begins and stops; their ranks are places.
        self._place = np.argsort(np.argsort(np.arange(batch_size) * _GOLDEN % 1.0))

    def sample(self, rng: np.random.Generator, n: int) -> Indices:
        """Draw n transitions with replacement, batch by batch."""
        kind = self.kinds(n)
        size = np.diff(self._edges).take(kind)
        drawn = self._edges.take(kind) + (rng.random(n) * size).astype(np.int64)
        place = np.searchsorted(self._cumulative, drawn, side="right")
        episode = self._episode.take(place)
        step = drawn - (self._cumulative.take(place) - self._table.transitions.take(episode))
        return Indices(row=self._table.start.take(episode) + step, episode=episode, step=step)

    def steps(self, rng: np.random.Generator, episode: Ints) -> Ints:
        """Draw a transition's number within each of some episodes (n,)."""
        steps: Ints = (rng.random(len(episode)) * self._table.transitions.take(episode)).astype(np.int64)
        return steps

    def kinds(self, n: int) -> Ints:
        """(n,) the stratum of each sample: systematic sampling with an offset per batch that spreads evenly over the batches."""
        batch, position = np.divmod(np.arange(n), self._batch_size)
        offset = (0.5 + batch * _GOLDEN) % 1.0
        edges = np.cumsum(self._shares)
        kinds: Ints = np.searchsorted(edges, (self._place.take(position) + offset) / self._batch_size, side="right")
        return np.minimum(kinds, np.flatnonzero(self._shares)[-1])
