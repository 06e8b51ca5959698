"""robosuite's demonstrations: the demo.hdf5 of collect_human_demonstrations, and the folders ``ep_*`` that it is gathered from.

They hold simulator states and actions only, so the simulator is asked for the rest: each state is set, the observation read, and
the sparse reward and success looked up in the state that the action led to. State t is the one that action t was chosen at. An
``ep_*`` folder holds the final state, too; gathering drops it, and then the last action is played to get it, as robomimic does.
An episode is terminal if it ends in a success.

The folders do not say what they were recorded with: give ``robots`` (and ``controller``) in a mapping. Their actions lie in
object arrays, which are read without running them (`object_arrays`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.core.specs import Array
from flywheel.datasets.importers.base import Source
from flywheel.datasets.importers.files import file_hash, inside, reading
from flywheel.datasets.importers.hdf5 import Hdf5
from flywheel.datasets.importers.mapped import MappedSource
from flywheel.datasets.importers.mapping import Field, FieldMap
from flywheel.datasets.importers.npy import Npz
from flywheel.datasets.importers.object_arrays import numbers
from flywheel.datasets.importers.robomimic import action_of
from flywheel.datasets.importers.robosuite_replay import Demonstration, Replay
from flywheel.datasets.importers.trajectory import Trajectory

_LARGEST_MODEL = 64 << 20


def open_source(path: Path, given: Mapping[str, Any]) -> Source:
    """A demo.hdf5, or a folder of ``ep_*`` folders."""
    demos = _Folders(path, given) if path.is_dir() else _File(path)
    return MappedSource(RobosuiteReader(path, demos), given)


class _File:
    """The demonstrations of a demo.hdf5."""

    def __init__(self, path: Path) -> None:
        self._file = Hdf5(path)
        self._path = path
        self.names = self._file.groups("data")
        attributes = self._file.attributes("data")
        with reading(path, "the attribute env_info of 'data'"):
            self.environment: dict[str, Any] = {"env_name": attributes["env"], **json.loads(attributes["env_info"])}

    def load(self, index: int) -> Demonstration:
        demo = f"data/{self.names[index]}"
        attributes = self._file.attributes(demo)
        with reading(self._path, f"'{demo}'"):
            return Demonstration(str(attributes["model_file"]), self._file.rows(f"{demo}/states"), self.actions(index))

    def actions(self, index: int) -> Array:
        return self._file.rows(f"data/{self.names[index]}/actions")

    def identity(self, index: int) -> tuple[str, int]:
        return self._hash, index

    @cached_property
    def _hash(self) -> str:
        return file_hash(self._path)


class _Folders:
    """The demonstrations of ``ep_*`` folders; each holds its states and actions in pieces of a hundred steps."""

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        # A name ends in the fraction of a second, whose digits are in order as text and not as a number.
        found = sorted(path.glob("ep_*"))
        self._folders = [inside(path, folder) for folder in found if any(folder.glob("state_*.npz"))]
        if not self._folders:
            raise FlywheelError(f"{path} holds no ep_* folder with a state_*.npz.")
        self.names = [folder.name for folder in self._folders]
        robots = given.get("robots", "")
        if not robots or not isinstance(robots, str):
            raise FlywheelError(f"{path} does not tell the robot that was recorded; give robots: Panda or the like in a mapping.")
        name = str(Npz(self._pieces(0)[0]).rows("env"))
        self.environment = {"env_name": name, "robots": robots.split("+"), "controller": str(given.get("controller", ""))}

    def load(self, index: int) -> Demonstration:
        folder = self._folders[index]
        states = np.concatenate([Npz(piece).rows("states") for piece in self._pieces(index)])
        model = inside(folder, folder / "model.xml")
        with reading(model, "the model"):
            if model.stat().st_size > _LARGEST_MODEL:
                raise FlywheelError(f"{model} is larger than {_LARGEST_MODEL >> 20} MiB.")
            return Demonstration(model.read_text(), states, self.actions(index))

    def actions(self, index: int) -> Array:
        found = []
        for piece in self._pieces(index):
            with reading(piece, "'action_infos'"):
                found += [numbers(info["actions"]) for info in Npz(piece).objects("action_infos")]
        with reading(self._folders[index], "'action_infos'"):
            return np.stack(found)

    def identity(self, index: int) -> tuple[str, int]:
        folder = self._folders[index]
        return json_hash([file_hash(path) for path in [*self._pieces(index), inside(folder, folder / "model.xml")]]), 0

    def _pieces(self, index: int) -> list[Path]:
        folder = self._folders[index]
        return [inside(folder, path) for path in sorted(folder.glob("state_*.npz"))]


class RobosuiteReader:
    """Demonstrations of robosuite's, with the simulator that observes them."""

    kind = "robosuite"

    def __init__(self, path: Path, demos: _File | _Folders) -> None:
        self.path = path
        self._demos = demos
        if not demos.names:
            raise FlywheelError(f"{path} holds no demonstrations.")
        self._replay = Replay(path, demos.environment)

    def __len__(self) -> int:
        """The number of demonstrations."""
        return len(self._demos.names)

    def label(self, index: int) -> str:
        """The group's or folder's name."""
        return self._demos.names[index]

    def identity(self, index: int) -> tuple[str, int]:
        """The file's hash and the demonstration's number, or the hash of its own files."""
        return self._demos.identity(index)

    def default(self) -> FieldMap:
        """Every array that the simulator observes, less those that put others together."""
        names = [name for name in self.available() if name not in ("actions", "rewards") and not name.endswith("-state")]
        return FieldMap(
            observation={name: Field((name,)) for name in names},
            action=action_of({**self._demos.environment, "control_freq": self._replay.rate}),
            reward="rewards",
            settings={"robots": "", "controller": ""},
        )

    def available(self) -> list[str]:
        """What the simulator observes, actions and rewards."""
        return [*self._first.observation, "actions", "rewards"]

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """One demonstration, played through the simulator."""
        demo = self._demos.load(index)
        if not len(demo.actions):
            return None
        played = self._first if index == 0 else self._replay.play(demo, self.label(index))
        return Trajectory(
            observation={name: played.observation[name] for name in fields.observation_sources},
            action=dict.fromkeys(fields.action.sources, demo.actions),
            reward=played.reward if fields.reward else None,
            terminal=played.success,
            metadata={
                "task": self._demos.environment["env_name"],
                "robot": "+".join(self._replay.robots),
                "environment_config": json.dumps(self._replay.arguments, sort_keys=True, default=str),
                "success": played.success,
                "success_detector": f"robosuite-{self._replay.version}",
            },
            notes={"observed_with": f"robosuite {self._replay.version}, mujoco {self._replay.mujoco_version}"},
        )

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """Those of every demonstration."""
        for index in range(len(self)):
            yield index, {name: self._demos.actions(index) for name in fields.action.sources}

    def provenance(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    @cached_property
    def _first(self) -> Any:
        return self._replay.play(self._demos.load(0), self.label(0))
