"""Episodes that lie one behind another in flat arrays: where each begins and ends, and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import file_hash
from flywheel.datasets.importers.mapping import FieldMap
from flywheel.datasets.importers.trajectory import Trajectory, without_final_observation

_TOLERANCE = 1e-4
"""Relative: two recordings of one observation may differ by their rounding."""
_BLOCK_ROWS = 1 << 18


class Arrays(Protocol):
    """A file of named arrays: an `Hdf5` or an `Npz`."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    def length(self, name: str) -> int:
        """The length of an array's first axis."""
        ...

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Rows of an array."""
        ...


@dataclass(frozen=True)
class Spans:
    """E episodes as rows [start, stop) of flat arrays."""

    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    terminal: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.start)

    @classmethod
    def of(cls, last: npt.NDArray[np.bool_], terminal: npt.NDArray[np.bool_]) -> Spans:
        """From (N,) marks of each episode's last row, and of terminal rows among them; rows behind the last mark are one more.

        That last episode was cut off by the file's end, and is therefore no terminal one.
        """
        stop = np.flatnonzero(last) + 1
        if len(last) and not last[-1]:
            stop = np.append(stop, len(last))
        return cls.between(stop, terminal[stop - 1])

    @classmethod
    def between(cls, stop: npt.NDArray[np.int64], terminal: npt.NDArray[np.bool_]) -> Spans:
        """From (E,) ends and whether each is terminal."""
        return cls(np.concatenate([np.zeros(1, np.int64), stop[:-1]])[: len(stop)], stop.astype(np.int64), terminal)


@dataclass
class FlatReader:
    """Reads episodes from flat arrays of `count` rows; a format's reader adds its names and its `spans`."""

    file: Arrays
    count: int
    spans: Spans
    following: Mapping[str, str] = field(default_factory=dict)
    """For an observation array, the one that holds each row's next observation."""
    last_is_observation: bool = False
    """Whether an episode's last row holds the final observation, and an action that leads nowhere."""
    task: str = ""
    """What the format tells of the task."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def identity(self, index: int) -> tuple[str, int]:
        """The file's hash and the episode's number."""
        return self._hash, index

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.spans)

    def label(self, index: int) -> str:
        """Its number and its rows."""
        return f"{index} (rows {self.spans.start[index]} to {self.spans.stop[index] - 1})"

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """The rows of one episode."""
        start, stop = int(self.spans.start[index]), int(self.spans.stop[index])
        terminal = bool(self.spans.terminal[index])
        actions_stop = stop - self.last_is_observation
        if actions_stop <= start:
            return None
        observation = self._take(fields.observation_sources, start, stop)
        action = self._take(fields.action.sources, start, actions_stop)
        reward = self._rows(fields.reward, start, actions_stop) if fields.reward else None
        rest: dict[str, Any] = {
            "values": self._take(fields.metadata_sources, start, stop),
            "metadata": {"task": self.task},
        }
        if self.last_is_observation:
            return Trajectory(observation, action, reward, terminal, **rest)
        final = self._final(observation, start, stop)
        if final.keys() < observation.keys():
            return without_final_observation(observation, action, reward, terminal=terminal, **rest)
        whole = {name: np.concatenate([rows, final[name]]) for name, rows in observation.items()}
        return Trajectory(whole, action, reward, terminal, **rest)

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """All rows a block at a time, or episode by episode where an action in between is none."""
        if self.last_is_observation:
            for index in range(len(self)):
                yield index, self._take(fields.action.sources, int(self.spans.start[index]), int(self.spans.stop[index]) - 1)
            return
        for start in range(0, self.count, _BLOCK_ROWS):
            index = int(np.searchsorted(self.spans.stop, start, side="right"))
            yield index, self._take(fields.action.sources, start, min(start + _BLOCK_ROWS, self.count))

    def provenance(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    @cached_property
    def _hash(self) -> str:
        return file_hash(self.path)

    def _final(self, observation: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
        """The final observation, (1, ...), of those arrays that the file has it of."""
        final = {}
        for name, rows in observation.items():
            if name in self.following:
                following = self._rows(self.following[name], start, stop)
                check_consecutive(rows, following, start)
                final[name] = following[-1:]
        return final

    def _take(self, names: tuple[str, ...], start: int, stop: int) -> dict[str, Array]:
        return {name: self._rows(name, start, stop) for name in names}

    def _rows(self, name: str, start: int, stop: int) -> Array:
        length = self.file.length(name)
        if length != self.count:
            raise FlywheelError(f"{self.path}: '{name}' has {length} rows, and there are {self.count} actions.")
        return self.file.rows(name, start, stop)


def marks(file: Arrays, name: str, count: int) -> npt.NDArray[np.bool_]:
    """(N,) bools of (N,) or (N, 1) numbers; raises `FlywheelError` for another shape or a NaN."""
    values = file.rows(name)
    flat = values.reshape(-1) if values.ndim == 2 and values.shape[1] == 1 else values
    if flat.shape != (count,) or flat.dtype.kind not in "biuf" or (flat != flat).any():
        raise FlywheelError(f"{file.path}: '{name}' is {values.dtype} {values.shape}, not one number for each of {count} rows.")
    return np.asarray(flat != 0)


def check_consecutive(observation: Array, following: Array, first_row: int) -> None:
    """Refuse rows whose next observation is not the next row's: they were shuffled, and no episode can be made of them.

    `observation` and `following` are the (T, ...) observations and next observations of one episode.
    """
    if observation.shape != following.shape or observation.dtype.kind not in "biuf" or following.dtype.kind not in "biuf":
        raise FlywheelError("the next observations are of another shape or kind than the observations.")
    near = np.isclose(observation[1:], following[:-1], rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    wrong = np.flatnonzero(~near.reshape(len(near), -1).all(axis=1)) if near.size else np.zeros(0, np.int64)
    if len(wrong):
        row = first_row + int(wrong[0])
        raise FlywheelError(
            f"the next observation of row {row} is not the observation of row {row + 1}; shuffled transitions have no episodes."
        )
