"""Plain npz files of one's own: one episode per file in a folder, or flat arrays with the ends of the episodes in one file.

    action (T, A)                         or actions
    observation (T + 1, ...)              or observations, obs; or several: observation/NAME, obs/NAME
    next_observation (T, ...)             optional, likewise; then observations are T, and so they may be without (see below)
    reward (T,)                           or rewards; optional, zero without
    terminal                              or terminals, terminations: one for the episode or (T,); optional, truncated without
    episode_ends (E,)                     flat arrays only: the row behind each episode's last one; or
    episode_end (N,)                      also is_last, timeouts, truncations: marks of each episode's last row

T observations without next ones lack the final observation: see `trajectory.without_final_observation`. Where actions and
observations are both T + 1, because the last row holds the final observation alone, say ``last_step: observation`` in a mapping,
which also names the arrays where they are called something else (``terminal`` and ``episode_ends`` or ``episode_end``, too).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.base import Source
from flywheel.datasets.importers.files import file_hash, inside, natural
from flywheel.datasets.importers.flat import FlatReader, Spans, check_consecutive, marks
from flywheel.datasets.importers.mapped import MappedSource
from flywheel.datasets.importers.mapping import ActionField, Field, FieldMap, Value
from flywheel.datasets.importers.npy import Npz
from flywheel.datasets.importers.trajectory import Trajectory, without_final_observation

_NAMES = {
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "terminal": ("terminal", "terminals", "terminations"),
    "episode_ends": ("episode_ends",),
    "episode_end": ("episode_end", "is_last", "timeouts", "truncations"),
}
_OBSERVATIONS = ("observation", "observations", "obs")
_LAST_STEP = ("transition", "observation")
_SETTINGS = {"terminal": "", "episode_ends": "", "episode_end": "", "last_step": _LAST_STEP}


def open_source(path: Path, given: Mapping[str, Any]) -> Source:
    """A folder of episodes, a file of flat arrays, or a file that is one episode."""
    if path.is_dir():
        files = [inside(path, file) for file in sorted(path.glob("*.npz"), key=lambda file: natural(file.name))]
        if not files:
            raise FlywheelError(f"{path} holds no npz files.")
        return MappedSource(NpzFolderReader(path, files, given), given)
    file = Npz(path)
    if _pick(file.names, "episode_ends", given) or _pick(file.names, "episode_end", given):
        return MappedSource(NpzReader(file, given), given)
    return MappedSource(NpzFolderReader(path, [path], given), given)


class NpzReader(FlatReader):
    """A file of flat arrays."""

    kind = "npz"

    def __init__(self, file: Npz, given: Mapping[str, Any]) -> None:
        self._names = file.names
        self._fields = _default(file, given)
        count = file.length(_action(file, self._fields, given))
        last_is_observation = given.get("last_step", _LAST_STEP[0]) == "observation"
        super().__init__(file, count, _spans(file, given, count), _following(file.names), last_is_observation)

    def default(self) -> FieldMap:
        """The names that this file's beginning lists."""
        return self._fields

    def available(self) -> list[str]:
        """Every array."""
        return self._names


class NpzFolderReader:
    """Files of one episode each."""

    kind = "npz"

    def __init__(self, path: Path, files: list[Path], given: Mapping[str, Any]) -> None:
        self.path = path
        self._files, self._given = files, given
        first = Npz(files[0])
        self._names, self._fields = first.names, _default(first, given)
        self._hash = cache(file_hash)

    def __len__(self) -> int:
        """The number of files."""
        return len(self._files)

    def label(self, index: int) -> str:
        """The file's name."""
        return self._files[index].name

    def identity(self, index: int) -> tuple[str, int]:
        """The file's hash alone: a folder may grow, and a file may be moved."""
        return self._hash(self._files[index]), 0

    def default(self) -> FieldMap:
        """The names that this file's beginning lists."""
        return self._fields

    def available(self) -> list[str]:
        """Every array of the first file."""
        return self._names

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """The episode in one file."""
        file = Npz(self._files[index])
        action = {name: file.rows(name) for name in fields.action.sources}
        observation = {name: file.rows(name) for name in fields.observation_sources}
        reward = file.rows(fields.reward) if fields.reward else None
        values = {name: file.rows(name) for name in fields.metadata_sources}
        for name, rows in [*action.items(), *observation.items()]:
            if not rows.ndim:
                raise FlywheelError(f"{file.path}: '{name}' is a single value, where one per step is expected.")
        if fields.settings["last_step"] == "observation":
            action = {name: rows[:-1] for name, rows in action.items()}
            reward = None if reward is None else reward[:-1]
        count = min(map(len, action.values()))
        if not count:
            return None
        terminal = _terminal(file, self._given)
        final = _final(file, observation)
        if final:
            observation = {name: np.concatenate([rows, final[name]]) for name, rows in observation.items()}
        elif all(len(rows) == count for rows in observation.values()):
            return without_final_observation(observation, action, reward, terminal=terminal, values=values)
        return Trajectory(observation, action, reward, terminal, values=values)

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """Those of every file."""
        for index, path in enumerate(self._files):
            file = Npz(path)
            stop = -1 if fields.settings["last_step"] == "observation" else None
            yield index, {name: file.rows(name)[:stop] for name in fields.action.sources}

    def provenance(self) -> dict[str, Any]:
        """Nothing more."""
        return {}


def _default(file: Npz, given: Mapping[str, Any]) -> FieldMap:
    names = file.names
    action = _pick(names, "action", {})
    return FieldMap(
        observation={_called(name, file): Field((name,)) for name in names if _is_observation(name)},
        action=ActionField((action,) if action else ()),
        reward=_pick(names, "reward", {}),
        metadata={"task": Value(source="task")} if "task" in names else {},
        settings=_SETTINGS,
    )


def _is_observation(name: str) -> bool:
    return name in _OBSERVATIONS or name.partition("/")[0] in _OBSERVATIONS


def _called(name: str, file: Npz) -> str:
    """Our name of an observation array."""
    _, _, own = name.partition("/")
    return own.replace("/", ".") or ("image" if len(file.shape(name)) > 2 else "state")


def _pick(names: Iterable[str], what: str, given: Mapping[str, Any]) -> str:
    """The array that a mapping names, or the first of the names that we know; empty if there is none."""
    if what in given:
        if given[what] not in names:
            raise FlywheelError(f"The mapping's {what} is {given[what]!r}, and the file has {sorted(names)}.")
        return str(given[what])
    return next((name for name in _NAMES[what] if name in names), "")


def _action(file: Npz, fields: FieldMap, given: Mapping[str, Any]) -> str:
    """The array whose length is the number of rows: the action, or the first of those that it is made of."""
    entry = given.get("action", list(fields.action.sources))
    entry = entry.get("from", list(fields.action.sources)) if isinstance(entry, dict) else entry
    first = entry[0] if isinstance(entry, list) and entry else entry
    if not isinstance(first, str):
        raise FlywheelError(f"{file.path} has no 'action'; name it in a mapping file (--mapping). It has {file.names}.")
    return first


def _following(names: Iterable[str]) -> dict[str, str]:
    return {name: f"next_{name}" for name in names if _is_observation(name) and f"next_{name}" in names}


def _final(file: Npz, observation: Mapping[str, Array]) -> dict[str, Array]:
    """The final observation, (1, ...), if the file has it of every array."""
    following = {name: file.rows(other) for name, other in _following(file.names).items() if name in observation}
    if following.keys() != observation.keys():
        return {}
    for name, rows in following.items():
        check_consecutive(observation[name], rows, 0)
    return {name: rows[-1:] for name, rows in following.items()}


def _terminal(file: Npz, given: Mapping[str, Any]) -> bool:
    """Whether the episode in a file is terminal: its flag, or that of its last row."""
    name = _pick(file.names, "terminal", given)
    if not name:
        return False
    flags = marks(file, name, file.length(name)) if file.shape(name) else np.asarray(file.rows(name) != 0).reshape(1)
    if flags[:-1].any():
        raise FlywheelError(f"{file.path}: '{name}' marks row {int(np.flatnonzero(flags)[0])}, which is not the last one.")
    return bool(flags[-1:].any())


def _spans(file: Npz, given: Mapping[str, Any], count: int) -> Spans:
    terminal_name, ends_name = _pick(file.names, "terminal", given), _pick(file.names, "episode_ends", given)
    if not ends_name:
        last = marks(file, _pick(file.names, "episode_end", given), count)
        terminal = marks(file, terminal_name, count) if terminal_name else np.zeros_like(last)
        return Spans.of(last | terminal, terminal)
    stop = file.rows(ends_name)
    ordered = stop.ndim == 1 and stop.dtype.kind in "iu" and len(stop) and (np.diff(stop.astype(np.int64)) >= 0).all()
    if not ordered or stop[0] < 0 or stop[-1] != count:
        raise FlywheelError(f"{file.path}: '{ends_name}' must hold rising row numbers of which the last is {count}.")
    if not terminal_name:
        return Spans.between(stop, np.zeros(len(stop), np.bool_))
    rows = marks(file, terminal_name, file.length(terminal_name))
    if len(rows) not in (count, len(stop)):
        raise FlywheelError(f"{file.path}: '{terminal_name}' has {len(rows)} entries for {count} rows and {len(stop)} episodes.")
    return Spans.between(stop, rows if len(rows) == len(stop) != count else rows[np.maximum(stop.astype(np.int64) - 1, 0)])
