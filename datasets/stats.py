"""The state's mean and standard deviation, with which a policy normalises what it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flywheel.datasets.table import Floats

if TYPE_CHECKING:  # columns.py imports torch
    from flywheel.datasets.columns import Columns

STD_FLOOR = 1e-3
"""A column that hardly moves in the data must not blow up the noise that it has on the robot."""
_CHUNK = 65_536


def state_statistics(columns: Columns) -> tuple[Floats, Floats]:
    """(mean, std), each (D,), over every observation of the snapshot, final ones included; std is at least `STD_FLOOR`.

    Summed in float64, in two passes (which is exact where one pass would cancel) and in the snapshot's order, so that the
    bits do not depend on the cache's history.
    """
    rows = columns.table.step_rows
    blocks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    mean = sum((columns.state[block].sum(axis=0, dtype=np.float64) for block in blocks), np.zeros(columns.state.shape[1])) / len(
        rows
    )
    variance = sum((((columns.state[block] - mean) ** 2).sum(axis=0) for block in blocks), np.zeros_like(mean)) / len(rows)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), STD_FLOOR).astype(np.float32)
