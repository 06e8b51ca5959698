"""OGBench's npz files: flat arrays in which `terminals` marks the end of a trajectory, and never one of the MDP's.

A trajectory of T transitions has T + 1 rows: the last, marked one holds the final observation, and its action leads nowhere. (A
file with `next_observations` has T rows, the marked one being the last transition.) So no episode is terminal: a learner
bootstraps at each end, and OGBench's `masks` come from the reward of a task, which these files do not have. Rewards are zero;
``qpos``, ``qvel``, ``button_states`` and others may be named in a mapping and are left out else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.flat import FlatReader, Spans, marks
from flywheel.datasets.importers.mapping import ActionField, Field, FieldMap
from flywheel.datasets.importers.npy import Npz


class OgbenchReader(FlatReader):
    """A file of OGBench's."""

    kind = "ogbench"

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        file = Npz(path)
        for name in ("observations", "actions", "terminals"):
            if name not in file:
                raise FlywheelError(f"{path} has no '{name}', which an OGBench file needs.")
        self._names = file.names
        self._picture = len(file.shape("observations")) > 2
        count = file.length("actions")
        last = marks(file, "terminals", count)
        following = {"observations": "next_observations"} if "next_observations" in file else {}
        spans, task = Spans.of(last, np.zeros_like(last)), path.stem.removesuffix("-val")
        super().__init__(file, count, spans, following, last_is_observation=not following, task=task)

    def default(self) -> FieldMap:
        """`observations` are the state, or the picture."""
        return FieldMap(
            observation={"image" if self._picture else "state": Field(("observations",))},
            action=ActionField(("actions",)),
        )

    def available(self) -> list[str]:
        """Every array."""
        return self._names
