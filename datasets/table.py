"""The episodes of one snapshot as arrays: what samplers and relabelers do their index arithmetic on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """E episodes in the snapshot's order, which alone decides what a seed samples.

    An episode of T transitions takes T + 1 consecutive rows of the columns, so that the next observation of row r is row
    r + 1. *Where* its rows begin depends on the cache's history, and nothing random may depend on that.
    """

    episode_id: tuple[str, ...]
    start: Ints
    """(E,) the row of the first step."""
    transitions: Ints
    """(E,) the number of transitions T, at least 1."""
    success: Bools
    """(E,)"""
    terminal: Bools
    """(E,) whether the last transition leads to a terminal state; otherwise a learner bootstraps there."""
    episode_return: npt.NDArray[np.float64]
    """(E,) the undiscounted sum of rewards."""
    task: npt.NDArray[np.str_]
    """(E,) the task's name."""

    def __len__(self) -> int:
        """The number of episodes E."""
        return len(self.episode_id)

    @cached_property
    def first(self) -> Ints:
        """(E + 1,) the number of each episode's first transition in snapshot order; last the number of all, N."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.transitions)])

    @property
    def total(self) -> int:
        """The number of transitions N."""
        return int(self.first[-1])

    @cached_property
    def episode_of(self) -> npt.NDArray[np.int32]:
        """(N,) the episode of each transition."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.transitions)

    @cached_property
    def offset(self) -> Ints:
        """(E,) what to add to the number of one of its transitions to get the row."""
        return self.start - self.first[:-1]

    def row(self, transition: Ints) -> Ints:
        """(n,) the rows of transitions given by their number in snapshot order, each in [0, N)."""
        # Two look-ups, of which one is in a small array, instead of one in an array of N rows: less memory, and faster.
        return transition + self.offset.take(self.episode_of.take(transition))

    @cached_property
    def step_rows(self) -> Ints:
        """(N + E,) every row of the snapshot, final observations included."""
        steps = self.transitions + 1
        begin = np.cumsum(steps) - steps
        rows: Ints = np.arange(self.total + len(self)) + np.repeat(self.start - begin, steps)
        return rows

    @property
    def final_row(self) -> Ints:
        """(E,) the row of the final observation."""
        return self.start + self.transitions
