"""Several observations before a transition and several actions after it, out of columns that hold each of them once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets.sampler import Indices
from flywheel.datasets.table import Bools, EpisodeTable, Ints


@dataclass(frozen=True)
class Window:
    """How much of its episode a sample shows. A window never leaves the episode: it repeats the edge, and says so in a mask.

    Ours see pictures in a row (`DataConfig.frames`) and learn one action; all else is for algorithms of one's own.
    """

    history: int = 1
    """Observations h, the newest of which is the transition's own."""
    chunk: int = 1
    """Actions k, the first of which is the transition's own."""

    def __post_init__(self) -> None:
        if self.history < 1 or self.chunk < 1:
            raise FlywheelError(f"A window has at least one observation and one action, not {self.history} and {self.chunk}.")

    def observations(self, indices: Indices, ahead: int | Ints = 0) -> tuple[Ints, Bools | None]:
        """Rows of the observations `ahead` transitions after the samples, (n, h) with the oldest first, and which repeat the
        episode's first one; (n,) and None without a history.
        """
        newest = indices.row + ahead
        if self.history == 1:
            return newest, None
        rows = newest[:, None] - np.arange(self.history)[::-1]
        first = (indices.row - indices.step)[:, None]
        return np.maximum(rows, first), rows < first

    def actions(self, table: EpisodeTable, indices: Indices) -> tuple[Ints, Bools | None]:
        """Rows of the actions, (n, k), and which repeat the episode's last one; (n,) and None where k is 1."""
        if self.chunk == 1:
            return indices.row, None
        rows = indices.row[:, None] + np.arange(self.chunk)
        last = (table.final_row.take(indices.episode) - 1)[:, None]
        return np.minimum(rows, last), rows > last


SINGLE = Window()
"""One observation and one action."""
