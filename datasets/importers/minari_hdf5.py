"""Minari's main_data.hdf5: one group per episode."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.specs import Array
from flywheel.datasets.importers.files import file_hash
from flywheel.datasets.importers.hdf5 import Hdf5
from flywheel.datasets.importers.images import decode_pictures
from flywheel.datasets.importers.spaces import Leaf


class Hdf5Episodes:
    """The episodes of one file."""

    def __init__(self, path: Path) -> None:
        self._file = Hdf5(path)
        self._names = [name for name in self._file.groups() if name.startswith("episode_")]

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self._names)

    def name(self, index: int) -> str:
        """The group's name."""
        return self._names[index]

    def identity(self, index: int) -> tuple[str, int]:
        """The file's hash and the episode's number."""
        return self._hash, index

    def attributes(self, index: int) -> dict[str, Any]:
        """The group's attributes."""
        return self._file.attributes(self._names[index])

    def column(self, index: int, name: str) -> Array:
        """The values of all steps, (T,)."""
        return self._file.rows(f"{self._names[index]}/{name}")

    def leaf(self, index: int, leaf: Leaf) -> Array:
        """(T + 1, *shape) or (T, *shape); JPEG where the data set has another number of axes than the space says."""
        pieces = [f"_index_{piece}" if isinstance(piece, int) else piece for piece in leaf.path]
        name = "/".join([self._names[index], *pieces])
        if len(leaf.shape) > 1 and len(self._file.shape(name)) <= 2:
            return decode_pictures(self._file.path, f"'{name}'", self._file.strings(name), leaf.shape)
        rows = self._file.rows(name)
        return rows.astype(np.int8) if rows.dtype == np.bool_ and leaf.type == "MultiBinary" else rows

    @cached_property
    def _hash(self) -> str:
        return file_hash(self._file.path)
