"""LeRobot v2.0, v2.1 and v3.0: meta/info.json, frames in parquet, pictures as PNG in them or as mp4 beside them.

Frame t is (o_t, a_t, ``next.reward`` = r_t); there are as many observations as actions, and what the last action led to is not
kept: see `trajectory.without_final_observation` for what becomes of it. A data set that was exported from here keeps the final
observations, metadata and the schema in meta/flywheel, and comes back as it was.

``next.done`` marks the end of an episode and not which end it was, so an episode is terminal if its last frame is done and a
success (``next.success``). ``terminal: done`` in a mapping takes ``next.done`` as it is, ``terminal: never`` leaves all
truncated; a feature ``next.truncated`` tells it for sure. The task is that of the first frame, the rate is `fps`. Features
``observation.NAME`` and ``observation.images.NAME`` become NAME, and are what is taken without a mapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.core.specs import Array
from flywheel.datasets.exporters.lerobot_features import Features
from flywheel.datasets.exporters.lerobot_files import OURS
from flywheel.datasets.importers.exported import own_metadata
from flywheel.datasets.importers.files import file_hash, inside, reading
from flywheel.datasets.importers.images import decode_pictures
from flywheel.datasets.importers.lerobot_files import Entry, Layout, LayoutV2, LayoutV3, ParquetFile, numbers
from flywheel.datasets.importers.lerobot_info import Feature, Info, short_names
from flywheel.datasets.importers.lerobot_video import decode_video
from flywheel.datasets.importers.mapping import ActionField, Field, FieldMap
from flywheel.datasets.importers.trajectory import Trajectory, without_final_observation
from flywheel.datasets.schema import Schema, is_picture

_FLAGS = ("next.done", "next.success", "next.truncated")


class LerobotReader:
    """The folder of a LeRobot data set."""

    kind = "lerobot"

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        self.path = path
        self._info = Info(path)
        layout: type[LayoutV2 | LayoutV3] = LayoutV3 if self._info.version == "v3.0" else LayoutV2
        self._layout: Layout = layout(path, self._info.values, self._info.of_kind("video"))
        self._entries = self._layout.entries()
        self._tasks = self._layout.tasks()
        self._own = OwnPart.of(path, self._info.values, len(self._entries))
        self._file: ParquetFile | None = None
        self._hash = cache(file_hash)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self._entries)

    def label(self, index: int) -> str:
        """LeRobot's number of the episode."""
        return str(self._entries[index].number)

    def identity(self, index: int) -> tuple[str, int]:
        """The hash of the files that hold the episode, and its number."""
        entry = self._entries[index]
        return json_hash([self._hash(path) for path in (entry.data, *(clip.path for clip in entry.clips.values()))]), entry.number

    def default(self) -> FieldMap:
        """Every ``observation.`` feature, ``action`` and ``next.reward``; of our own, what was exported."""
        features = self._info.features
        reward = "next.reward" if "next.reward" in features else ""
        settings = {"terminal": ("success", "done", "never")}
        if self._own:
            return FieldMap(self._own.observation, self._own.action, reward, settings=settings)
        observation = {key: Field((name,)) for name, key in short_names(features).items()}
        action = ("action",) if "action" in features else ()
        return FieldMap(observation, ActionField(action, rate=self._info.fps), reward, settings=settings)

    def available(self) -> list[str]:
        """Every feature; of our own, the arrays that were exported instead of the features that hold them."""
        if self._own is None:
            return list(self._info.features)
        held = self._own.features.observations
        return [*self._own.observation, *(name for name in self._info.features if name not in held)]

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """One episode."""
        entry = self._entries[index]
        if not entry.length:
            return None
        wanted = {*fields.observation_sources, *fields.action.sources, *fields.metadata_sources, fields.reward} - {""}
        if self._own:
            wanted = (wanted - self._own.observation.keys()) | self._own.features.observations.keys()
        features = [self._info.features[name] for name in sorted(wanted)]
        flags = [self._info.features[name] for name in _FLAGS if name in self._info.features]
        values, about = self._values(entry, {feature.name: feature for feature in (*features, *flags)})
        terminal = _terminal(values, fields.settings["terminal"])
        action = {name: values[name] for name in fields.action.sources}
        reward = values[fields.reward] if fields.reward else None
        told = {name: values[name] for name in fields.metadata_sources if name in values}
        metadata = {"success": _last(values, "next.success"), "robot": str(self._info.values.get("robot_type") or ""), **about}
        if self._own is None:
            observation = {name: values[name] for name in fields.observation_sources}
            return without_final_observation(
                observation, action, reward, terminal=terminal, values=told, metadata=metadata, notes={}
            )
        own, notes = self._own.metadata(index)
        observation = self._own.join(index, values)
        return Trajectory(observation, action, reward, terminal, values=told, metadata=metadata | own, notes=notes)

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """Those of every data file."""
        first = {entry.data: index for index, entry in reversed(list(enumerate(self._entries)))}
        for path in dict.fromkeys(entry.data for entry in self._entries):
            table = self._open(path).read(list(fields.action.sources))
            features = [self._info.features[name] for name in fields.action.sources]
            yield first[path], {item.name: _numbers(path, item, table) for item in features}

    def provenance(self) -> dict[str, Any]:
        """The version, and the snapshot if it was exported from here."""
        return {"version": self._info.version, **({"snapshot": self._own.snapshot} if self._own else {})}

    def _values(self, entry: Entry, features: Mapping[str, Feature]) -> tuple[dict[str, Array], dict[str, Any]]:
        """The features of an episode, (T, ...), and what else its frames tell."""
        stored = [name for name, feature in features.items() if feature.kind != "video"]
        table = self._rows(entry, (*stored, "timestamp", "task_index"))
        times = numbers(entry.data, "timestamp", table.column("timestamp"), "float64", ())
        values = {}
        for name, feature in features.items():
            if feature.kind == "video":
                clip = entry.clips[name]
                values[name] = decode_video(clip.path, clip.start + times, self._info.fps, feature.shape)
            elif feature.kind == "image":
                values[name] = _pictures(entry.data, feature, table)
            else:
                values[name] = _numbers(entry.data, feature, table)
        task = int(numbers(entry.data, "task_index", table.column("task_index"), "int64", ())[0])
        return values, {"task": self._tasks.get(task, entry.tasks[0] if entry.tasks else "")}

    def _rows(self, entry: Entry, columns: tuple[str, ...]) -> Any:
        file = self._open(entry.data)
        rows = np.flatnonzero(file.episodes == entry.number)
        if len(rows) != entry.length or rows[-1] - rows[0] != len(rows) - 1:
            raise FlywheelError(
                f"{entry.data} holds {len(rows)} frames of episode {entry.number}, and {entry.length} in a row are listed."
            )
        return file.rows(int(rows[0]), int(rows[-1]) + 1, tuple(sorted(columns)))

    def _open(self, path: Path) -> ParquetFile:
        if self._file is None or self._file.path != path:
            self._file = ParquetFile(path)
        return self._file


class OwnPart:
    """What our exporter keeps beside the data: the schema, and for each episode its metadata and final observation."""

    def __init__(self, schema: Schema, snapshot: str, files: list[ParquetFile]) -> None:
        self.features, self.snapshot = Features.of(schema), snapshot
        self._files = files
        self._starts = np.cumsum([0, *(file.length for file in files)])

    @classmethod
    def of(cls, root: Path, info: Mapping[str, Any], episodes: int) -> OwnPart | None:
        """None for a data set of others, and for one of which LeRobot's tools have since added or removed episodes."""
        about = info.get("flywheel")
        files = sorted(inside(root, path) for path in (root / OURS).glob("chunk-*/*.parquet"))
        if not isinstance(about, dict) or not files:
            return None
        with reading(root / "meta" / "info.json", "what Flywheel wrote there"):
            part = cls(Schema.from_json(about["schema"]), str(about["snapshot"]), [ParquetFile(path) for path in files])
        return part if part._starts[-1] == episodes else None

    @cached_property
    def observation(self) -> dict[str, Field]:
        """The arrays of the schema, as they were."""
        arrays = self.features.schema.observation.arrays
        return {key: Field((key,), unit=spec.unit, dtype=spec.dtype) for key, spec in arrays.items()}

    @cached_property
    def action(self) -> ActionField:
        """The action of the schema, as it was."""
        spec = self.features.schema.action
        meaning = {"controller": spec.controller, "mode": spec.mode, "frame": spec.frame, "rate": spec.rate}
        return ActionField(("action",), low=spec.low, high=spec.high, means=spec.scale, **meaning)  # type: ignore[arg-type]

    def metadata(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """An episode's metadata, and a note of the id that it had."""
        file, table = self._row(index, ("metadata",))
        with reading(file.path, "the metadata"):
            return own_metadata(file.path, {"flywheel": table.column("metadata")[0].as_py()})

    def join(self, index: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """The observation, (T + 1, ...) by array, from its features without the last, (T, ...)."""
        file, table = self._row(index, tuple(sorted(self.features.observations)))
        whole = {}
        for name, spec in self.features.observations.items():
            feature = Feature(name, "image" if is_picture(spec) else "array", spec.dtype, spec.shape)
            final = _pictures(file.path, feature, table) if is_picture(spec) else _numbers(file.path, feature, table)
            whole[name] = np.concatenate([values[name].reshape(-1, *spec.shape), final])
        return self.features.join(whole)

    def _row(self, index: int, columns: tuple[str, ...]) -> tuple[ParquetFile, Any]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[number])
        return self._files[number], self._files[number].rows(row, row + 1, columns)


def _numbers(path: Path, feature: Feature, table: Any) -> Array:
    found: Array = numbers(path, feature.name, table.column(feature.name), feature.dtype, feature.shape)
    return found


def _pictures(path: Path, feature: Feature, table: Any) -> Array:
    encoded = []
    for number, item in enumerate(table.column(feature.name).to_pylist()):
        data = item.get("bytes") if isinstance(item, dict) else item
        if not isinstance(data, bytes):
            raise FlywheelError(f"{path}: picture {number} of '{feature.name}' is not in the file.")
        encoded.append(data)
    return decode_pictures(path, f"'{feature.name}'", encoded, feature.shape)


def _last(values: Mapping[str, Array], name: str) -> bool:
    return bool(values[name].reshape(-1)[-1]) if name in values else False


def _terminal(values: Mapping[str, Array], rule: str) -> bool:
    done = _last(values, "next.done")
    if "next.truncated" in values:
        return done and not _last(values, "next.truncated")
    return done and (rule == "done" or (rule == "success" and _last(values, "next.success")))
