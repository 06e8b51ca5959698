"""D4RL's HDF5 files: flat arrays of transitions with `terminals`, the MDP's ends, and `timeouts`.

Row i is (o_i, a_i, r_i from applying a_i). An episode ends with its first row that is terminal or timed out; a row that is both
is terminal. Older files have no `timeouts`: give ``episode_steps`` in a mapping, as the environment's limit is not in the file.
With `next_observations` the final observation is the last row's. Without it the file does not hold it, and the next row is the
next episode's first: see `trajectory.without_final_observation`. `infos/...` may be named in a mapping and are left out else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.flat import FlatReader, Spans, marks
from flywheel.datasets.importers.hdf5 import Hdf5
from flywheel.datasets.importers.mapping import ActionField, Field, FieldMap


class D4rlReader(FlatReader):
    """A file of D4RL's."""

    kind = "d4rl"

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        file = Hdf5(path)
        self._names = [name for name in file.datasets() if not name.startswith("metadata/")]
        for name in ("observations", "actions", "terminals"):
            if name not in self._names:
                raise FlywheelError(f"{path} has no '{name}', which a D4RL file needs.")
        self._picture = len(file.shape("observations")) > 2
        count = file.length("actions")
        following = {"observations": "next_observations"} if "next_observations" in self._names else {}
        super().__init__(file, count, _spans(file, self._names, count, given.get("episode_steps", 0)), following, task=path.stem)

    def default(self) -> FieldMap:
        """`observations` are the state, or the picture."""
        return FieldMap(
            observation={"image" if self._picture else "state": Field(("observations",))},
            action=ActionField(("actions",)),
            reward="rewards" if "rewards" in self._names else "",
            settings={"episode_steps": 0},
        )

    def available(self) -> list[str]:
        """Every array."""
        return self._names


def _spans(file: Hdf5, names: list[str], count: int, limit: Any) -> Spans:
    terminal = marks(file, "terminals", count)
    if "timeouts" in names:
        return Spans.of(terminal | marks(file, "timeouts", count), terminal)
    if not isinstance(limit, int) or limit < 1:
        raise FlywheelError(
            f"{file.path} has no 'timeouts', so that episodes that were cut off cannot be told apart; "
            "give the environment's limit as episode_steps in a mapping file (--mapping)."
        )
    return Spans.of(_with_limit(terminal, limit), terminal)


def _with_limit(terminal: npt.NDArray[np.bool_], limit: int) -> npt.NDArray[np.bool_]:
    """(N,) the last rows of episodes that end in a terminal row or after `limit` rows."""
    last, begin = terminal.copy(), 0
    for stop in [*(np.flatnonzero(terminal) + 1), len(terminal)]:
        last[begin + limit - 1 : stop : limit] = True
        begin = stop
    return last
