"""A `Source` made of a format's reader and a mapping: the one place where arrays are chosen and become episodes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec
from flywheel.datasets.importers.base import imported_id
from flywheel.datasets.importers.casts import column, mapped, plain, storable
from flywheel.datasets.importers.mapping import Field, merge
from flywheel.datasets.importers.trajectory import Reader, Trajectory, columns_to_episode
from flywheel.datasets.schema import Schema

_VERSION = 1
"""Of the rules by which episodes are made; part of every imported episode's provenance."""
_DEFAULTS = EpisodeMetadata(episode_id="").to_json()


class MappedSource:
    """The `Source` that a reader and a mapping make."""

    def __init__(self, reader: Reader, given: Mapping[str, Any] | None = None) -> None:
        self._reader = reader
        self.kind = reader.kind
        self.fields = merge(reader.default(), given or {}, reader.available(), str(reader.path))

    def __len__(self) -> int:
        """The number of episodes, empty ones included."""
        return len(self._reader)

    def schema(self) -> Schema:
        """As the first episode with a transition has it, with bounds from the mapping or from the data."""
        return self._schema

    def episode_id(self, index: int) -> str:
        """A hash of format, content and place therein."""
        return imported_id(self.kind, *self._reader.identity(index))

    def provenance(self) -> dict[str, Any]:
        """Format, name, mapping and importer version."""
        return {
            "format": self.kind,
            "name": self._reader.path.name,
            "mapping": self.fields.hash,
            "importer": _VERSION,
            **self._reader.provenance(),
        }

    def episode(self, index: int) -> Episode | None:
        """Episode `index`, or None if it has no transition; raises `FlywheelError` naming file, episode and field."""
        trajectory = self._read(index)
        if trajectory is None:
            return None
        schema = self._schema
        with self._naming(index):
            return self._assemble(trajectory, index).validate(schema.observation, schema.action)

    @cached_property
    def _schema(self) -> Schema:
        for index in range(len(self)):
            trajectory = self._read(index)
            if trajectory is not None:
                break
        else:
            raise FlywheelError(f"{self._reader.path} holds no episode with a transition; there is nothing to import.")
        with self._naming(index):
            observation, _ = self._observation(trajectory)
        arrays = {
            key: ArraySpec(value.shape[1:], value.dtype.name, self.fields.observation[key].unit)
            for key, value in observation.items()
        }
        try:
            return Schema(ObservationSpec(arrays), self._action_spec())
        except SpecError as error:
            raise FlywheelError(f"{self._reader.path}: {error}") from None

    def _action_spec(self) -> ActionSpec:
        field = self.fields.action
        low, high = (np.asarray(field.low), np.asarray(field.high)) if field.low else self._bounds()
        meaning = {"controller": field.controller, "mode": field.mode, "frame": field.frame, "rate": field.rate}
        return ActionSpec(tuple(map(float, low)), tuple(map(float, high)), scale=field.means, **meaning)  # type: ignore[arg-type]

    def _bounds(self) -> tuple[Array, Array]:
        """[-1, 1] where all actions lie within; otherwise the lowest and highest of the data, a constant one widened by 1."""
        lows, highs = [], []
        for index, arrays in self._reader.actions(self.fields):
            with self._naming(index):
                if all(map(len, arrays.values())):
                    action, _ = self._action(arrays)
                    lows.append(action.min(axis=0))
                    highs.append(action.max(axis=0))
        low, high = np.min(lows, axis=0), np.max(highs, axis=0)
        if (low >= -1).all() and (high <= 1).all():
            return -np.ones_like(low), np.ones_like(high)
        constant = low == high
        return low - constant, high + constant

    def _read(self, index: int) -> Trajectory | None:
        with self._naming(index):
            trajectory = self._reader.read(index, self.fields)
        return trajectory if trajectory is not None and trajectory.transitions else None

    def _assemble(self, trajectory: Trajectory, index: int) -> Episode:
        observation, rounded = self._observation(trajectory)
        action, rounds_action = self._action(trajectory.action)
        count = len(action)
        given = np.zeros(count, np.float32) if trajectory.reward is None else trajectory.reward
        reward, rounds_reward = column(given, "reward")
        rounded += ["action"] * rounds_action + ["reward"] * rounds_reward
        for name, rows, expected in [("reward", reward, count), *((k, v, count + 1) for k, v in observation.items())]:
            if len(rows) != expected:
                raise FlywheelError(f"'{name}' has {len(rows)} rows where {expected} belong to {count} actions.")
        notes = {**trajectory.notes, "rounded": rounded} if rounded else dict(trajectory.notes)
        content, _ = self._reader.identity(index)
        source = {**self.provenance(), "content": content, "index": index, "episode": self._reader.label(index), **notes}
        metadata = EpisodeMetadata.from_json(
            {
                **trajectory.metadata,
                **self._metadata(trajectory),
                "episode_id": self.episode_id(index),
                "source": json.dumps(source, sort_keys=True),
            }
        )
        return columns_to_episode(observation, action, reward, terminal=trajectory.terminal, metadata=metadata)

    def _observation(self, trajectory: Trajectory) -> tuple[dict[str, Array], list[str]]:
        """The mapped observation and the names of those of its arrays that were rounded."""
        observation, rounded = {}, []
        for key, item in self.fields.observation.items():
            value = mapped([trajectory.observation[name] for name in item.sources], item, f"observation '{key}'")
            observation[key], inexact = storable(value, item.dtype, f"observation '{key}'")
            if inexact:
                rounded.append(key)
        return observation, rounded

    def _action(self, arrays: Mapping[str, Array]) -> tuple[Array, bool]:
        """(T, A) float32, and whether a number was rounded."""
        field = self.fields.action
        parts = [np.asarray(arrays[name]) for name in field.sources]
        parts = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
        value = mapped(parts, Field(field.sources, field.scale, field.offset), "action")
        action, rounded = storable(value.astype(np.float64), "float32", "action")
        dim = len(field.low)
        if not action.shape[1] or (dim and action.shape[1] != dim):
            bounds = f", and the mapping gives {dim} bounds" if dim else ""
            raise FlywheelError(f"the action has {action.shape[1]} dimensions{bounds}.")
        return action, rounded

    def _metadata(self, trajectory: Trajectory) -> dict[str, Any]:
        found = {}
        for key, item in self.fields.metadata.items():
            value = trajectory.values.get(item.source) if item.source else item.value
            if value is not None:
                found[key] = plain(value, _DEFAULTS[key], f"{key} (from '{item.source}')" if item.source else key)
        return found

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Say file and episode of what is wrong; a reader may have said the file already."""
        try:
            yield
        except FlywheelError as error:
            file = "" if str(self._reader.path) in str(error) else f"{self._reader.path}, "
            raise FlywheelError(f"{file}episode {self._reader.label(index)}: {error}") from None
