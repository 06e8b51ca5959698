"""RLDS data sets as TFDS keeps them: Open X-Embodiment's, MT-Opt's (``--mapping mt_opt``), and stores of our own.

In RLDS step t is (o_t, a_t, r_t from applying a_t), and the last step holds the final observation; its action and reward are
undefined and not read. `is_last` without `is_terminal` is a truncation. Many data sets, most of Open X-Embodiment, are otherwise:
their last step is a transition whose reward counts, often the only one. Where a last step has a reward the import stops and says
so: ``last_step: transition`` in a mapping (``--mapping oxe``) keeps it, ``last_step: observation`` is what RLDS says, and drops
it. Such data lack the final observation: see `trajectory.without_final_observation`.

Fields are named by their path without ``steps/``. Without a mapping all numbers under ``observation`` are taken and ``action`` is
one vector or the parts of it in the order of their names; metadata have RLDS's names, or ours under ``episode_metadata``.
TFDS decides by a data set's own files what it reads and imports, so these are validated first. Records are read by our own
reader; TFDS itself, and with it TensorFlow, only reads what that cannot: array_record files, and arrays of changing shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flywheel.core.episode import EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.core.specs import Array
from flywheel.datasets import example
from flywheel.datasets.importers.base import Source
from flywheel.datasets.importers.casts import plain
from flywheel.datasets.importers.exported import as_exported
from flywheel.datasets.importers.files import file_hash, inside, read_json, reading
from flywheel.datasets.importers.mapped import MappedSource
from flywheel.datasets.importers.mapping import ActionField, Field, FieldMap, Value
from flywheel.datasets.importers.own_store import StoreSource, is_store
from flywheel.datasets.importers.rlds_features import Feature, decode, features_of
from flywheel.datasets.importers.rlds_records import Records
from flywheel.datasets.importers.rlds_tfds import TfdsSteps
from flywheel.datasets.importers.trajectory import Trajectory, without_final_observation
from flywheel.datasets.rlds import shard_files, validate

_TASKS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "observation/language_instruction",
    "natural_language_instruction",
    "task_code",
)
_IDS = ("episode_metadata/episode_id", "episode_id")
_FLAGS = ("is_first", "is_last", "is_terminal")
_LAST_STEP = ("", "observation", "transition")
_BOUNDS_EPISODES = 64
Steps = Mapping[str, Any]
"""Fields by name: arrays of all steps, lists of texts, or an episode's single values."""


class StepReader(Protocol):
    """How records are decoded."""

    def read(self, index: int, names: list[str]) -> Steps:
        """Fields of episode `index`."""
        ...


def open_source(path: Path, given: Mapping[str, Any]) -> Source:
    """A data set's version folder or the folder around it; a store of ours is taken as it is, unless a mapping is given."""
    candidates = [path, *sorted(path.glob("*/"))]
    folders = [folder for folder in candidates if (folder / "features.json").is_file()]
    if len(folders) != 1:
        raise FlywheelError(f"{path} holds {len(folders)} TFDS data sets; give the folder that has the features.json.")
    if is_store(folders[0]) and not given:
        return StoreSource(folders[0])
    return MappedSource(RldsReader(folders[0], given), given)


class RldsReader:
    """A TFDS data set of RLDS episodes."""

    kind = "rlds"

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        validate(path)
        self.path = path
        self._features = features_of(path, read_json(path / "features.json"))
        self._about = read_json(path / "dataset_info.json")
        self._splits = _chosen(path, shard_files(path), given.get("split", ""))
        self._records = Records([shard for shards in self._splits.values() for shard in shards])
        self._tfds: TfdsSteps | None = None
        self._hash = cache(file_hash)

    def __len__(self) -> int:
        """The number of episodes in the chosen splits."""
        return len(self._records)

    def label(self, index: int) -> str:
        """The record and its shard."""
        path, number = self._records.place(index)
        return f"{index} (record {number} of {path.name})"

    def identity(self, index: int) -> tuple[str, int]:
        """The data set's name and the record's length and CRC; its number, as equal records are episodes of their own."""
        record = self._records.identity(index) if self._is_tfrecord else self._hash(self._records.place(index)[0])
        return json_hash([self._about["name"], record]), index

    def default(self) -> FieldMap:
        """The fields under `observation`, the action, the reward, and the metadata that have a usual name."""
        plain = {name: item for name, item in self._features.items() if item.in_steps and item.is_number and item.is_plain}
        observation = [name for name in plain if name == "observation" or name.startswith("observation/")]
        action = [name for name in plain if name == "action" or name.startswith("action/")]
        fields = FieldMap(
            observation={_called(self._features[name]): Field((name,)) for name in observation},
            action=ActionField(tuple(action)),
            reward="reward" if "reward" in plain else "",
            metadata=self._default_metadata(),
            settings={"last_step": _LAST_STEP, "split": ""},
        )
        written = self.path / "metadata.json"
        about = read_json(inside(self.path, written)) if written.is_file() else {}
        return as_exported(self.path, fields, about.get("flywheel"))

    def available(self) -> list[str]:
        """Every field."""
        return list(self._features)

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """One episode."""
        flags = [name for name in _FLAGS if name in self._features]
        reward = [fields.reward] if fields.reward else []
        ids = [name for name in _IDS if name in self._features and not self._features[name].in_steps][:1]
        names = [*fields.observation_sources, *fields.action.sources, *reward, *fields.metadata_sources, *flags, *ids]
        steps = self._steps(names).read(index, list(dict.fromkeys(names)))
        count = len(steps[fields.action.sources[0]])
        for name in (*fields.observation_sources, *fields.action.sources, *reward, *flags):
            if len(steps[name]) != count:
                raise FlywheelError(f"'{name}' has {len(steps[name])} steps, and the action has {count}.")
        if not count:
            return None
        notes = {"was": plain(steps[ids[0]], "", ids[0])} if ids else {}
        return self._aligned(steps, fields, notes, terminal=_check_flags(steps, count))

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """Those of at most 64 episodes, from all over the data set if possible: all of them may be terabytes."""
        last = None if fields.settings["last_step"] == "transition" else -1
        reader = self._steps(list(fields.action.sources))
        spread = np.linspace(0, len(self) - 1, _BOUNDS_EPISODES)
        # TFDS would read everything in between, too.
        chosen = range(min(_BOUNDS_EPISODES, len(self))) if isinstance(reader, TfdsSteps) else sorted({int(x) for x in spread})
        for index in chosen:
            steps = reader.read(index, list(fields.action.sources))
            yield index, {name: steps[name][:last] for name in fields.action.sources}

    def provenance(self) -> dict[str, Any]:
        """The data set's name and version."""
        return {"dataset": str(self._about["name"]), "version": str(self._about.get("version", ""))}

    @property
    def _is_tfrecord(self) -> bool:
        return bool(self._about.get("fileFormat", "tfrecord") == "tfrecord")

    def _steps(self, names: list[str]) -> StepReader:
        if self._is_tfrecord and all(self._features[name].is_plain for name in names):
            return _OwnSteps(self._records, self._features)
        if self._tfds is None:
            self._tfds = TfdsSteps(self.path, list(self._splits), self._features)
        return self._tfds

    def _aligned(self, steps: Steps, fields: FieldMap, notes: dict[str, Any], *, terminal: bool) -> Trajectory:
        observation = {name: steps[name] for name in fields.observation_sources}
        action = {name: steps[name] for name in fields.action.sources}
        reward = np.asarray(steps[fields.reward]).reshape(-1) if fields.reward else None
        rest: dict[str, Any] = {"values": {name: steps[name] for name in fields.metadata_sources}, "notes": notes}
        rule = fields.settings["last_step"]
        if rule == "transition":
            return without_final_observation(observation, action, reward, terminal=terminal, **rest)
        if not rule and reward is not None and np.isfinite(reward[-1]) and reward[-1] != 0:
            raise FlywheelError(
                f"the last step has the reward {float(reward[-1]):g}, which RLDS leaves undefined; say last_step: transition in "
                "a mapping if it counts (--mapping oxe does), or last_step: observation if it does not."
            )
        action = {name: value[:-1] for name, value in action.items()}
        return Trajectory(observation, action, None if reward is None else reward[:-1], terminal, **rest)

    def _default_metadata(self) -> dict[str, Value]:
        found = {}
        for name in EpisodeMetadata(episode_id="").to_json().keys() - {"episode_id", "source"}:
            for candidate in (f"episode_metadata/{name}", name):
                feature = self._features.get(candidate)
                if feature is not None and not feature.in_steps and feature.is_plain:
                    found[name] = Value(source=candidate)
        task = next((name for name in _TASKS if name in self._features and self._features[name].is_plain), "")
        return {**({"task": Value(source=task)} if task else {}), **found}


class _OwnSteps:
    """Decodes records without TensorFlow."""

    def __init__(self, records: Records, features: Mapping[str, Feature]) -> None:
        self._records, self._features = records, features

    def read(self, index: int, names: list[str]) -> Steps:
        """Fields of episode `index`."""
        path, number = self._records.place(index)
        payload = self._records.read(index)
        with reading(path, f"record {number}"):
            record = example.parse(payload)
        return {name: decode(path, self._features[name], record) for name in names}


def _chosen(path: Path, splits: dict[str, Any], name: Any) -> dict[str, Any]:
    if not name:
        return splits
    if name not in splits:
        raise FlywheelError(f"{path} has no split {name!r}; it has {list(splits)}.")
    return {name: splits[name]}


def _check_flags(steps: Steps, count: int) -> bool:
    """Whether the last step is terminal; raises `FlywheelError` if the flags do not tell one episode."""
    places = np.arange(count)
    for name, wrong in [("is_first", places != 0), ("is_last", places != count - 1), ("is_terminal", places != count - 1)]:
        if name in steps and (np.asarray(steps[name]).reshape(-1).astype(bool) & wrong).any():
            raise FlywheelError(f"'{name}' marks a step in the middle of the episode.")
    return bool("is_terminal" in steps and np.asarray(steps["is_terminal"]).reshape(-1)[-1])


def _called(feature: Feature) -> str:
    """Our name of a field under `observation`."""
    own = feature.name.partition("/")[2].replace("/", ".")
    return own or ("image" if len(feature.shape) > 1 else "state")
