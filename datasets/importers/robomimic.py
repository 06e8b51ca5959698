"""robomimic's HDF5: ``data/demo_0/{actions, rewards, dones, obs, next_obs, states}`` and ``mask/NAME``, lists of demonstrations.

Row t is (o_t, a_t, r_t from applying a_t): robomimic writes the reward of the state that a_t led to. `next_obs` gives the final
observation; files without it: see `trajectory.without_final_observation`.

`dones` cannot be taken for terminal: robomimic's ``--done_mode`` sets it at successes (0), at the end of every demonstration (1)
or at both (2), and no file tells which. So an episode is terminal if its last row is done *and* a success (its reward is above 0;
with reward shaping it is 1). ``terminal: dones`` in a mapping takes the last row's `dones` as it is, ``terminal: never`` leaves
all truncated. A demo's own attribute `terminal`, which our export writes, tells it for sure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.exported import as_exported, own_metadata
from flywheel.datasets.importers.files import file_hash, reading
from flywheel.datasets.importers.hdf5 import Hdf5
from flywheel.datasets.importers.mapping import ActionField, Field, FieldMap
from flywheel.datasets.importers.trajectory import Trajectory, without_final_observation

_SHAPED_SUCCESS = 0.999
"""robosuite's shaped rewards are scaled so that a success, and nothing else, gives 1."""


class RobomimicReader:
    """A file of robomimic's."""

    kind = "robomimic"

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        self.path = path
        self._file = Hdf5(path)
        self._demos = self._file.groups("data")
        if not self._demos:
            raise FlywheelError(f"{path} holds no demonstrations under 'data'.")
        self._environment = _json_attribute(path, self._file.attributes("data"), "env_args")
        self._splits = self._read_masks()

    def identity(self, index: int) -> tuple[str, int]:
        """The file's hash and the demonstration's number."""
        return self._hash, index

    def __len__(self) -> int:
        """The number of demonstrations."""
        return len(self._demos)

    def label(self, index: int) -> str:
        """demo_0 and so on."""
        return self._demos[index]

    def default(self) -> FieldMap:
        """Every array in `obs`, by its name."""
        names = [name for name in self.available() if name.startswith("obs/")]
        if not names:
            raise FlywheelError(
                f"{self.path} holds states and no 'obs': make observations with robomimic's dataset_states_to_obs.py, import it "
                "with --kind robosuite, or map {observation: {state: states}}."
            )
        fields = FieldMap(
            observation={name.removeprefix("obs/").replace("/", "."): Field((name,)) for name in names},
            action=action_of(self._environment),
            reward="rewards" if "rewards" in self.available() else "",
            settings={"terminal": ("success", "dones", "never")},
        )
        return as_exported(self.path, fields, self._file.attributes("data").get("flywheel"))

    def available(self) -> list[str]:
        """Every array of the first demonstration, less the next observations."""
        names = self._file.datasets(f"data/{self._demos[0]}")
        return [name for name in names if not name.startswith("next_obs/")]

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """One demonstration."""
        demo = f"data/{self._demos[index]}"
        count = self._file.length(f"{demo}/{fields.action.sources[0]}")
        if not count:
            return None
        action = {name: self._rows(demo, name, count) for name in fields.action.sources}
        observation = {name: self._rows(demo, name, count) for name in fields.observation_sources}
        reward = self._rows(demo, fields.reward, count) if fields.reward else None
        success = self._success(demo, count)
        attributes = self._file.attributes(demo)
        own, notes = own_metadata(self.path, attributes)
        rest: dict[str, Any] = {
            "values": {name: self._rows(demo, name, count) for name in fields.metadata_sources},
            "metadata": self._metadata(index, success) | own,
            "notes": notes,
        }
        terminal = self._terminal(demo, count, success, attributes.get("terminal"), fields.settings["terminal"])
        following = [f"next_{name}" for name in observation]
        if not all(name.startswith("next_obs/") and f"{demo}/{name}" in self._file for name in following):
            return without_final_observation(observation, action, reward, terminal=terminal, **rest)
        whole = {
            name: np.concatenate([value, self._rows(demo, f"next_{name}", count, count - 1)])
            for name, value in observation.items()
        }
        return Trajectory(whole, action, reward, terminal, **rest)

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """Those of every demonstration."""
        for index, demo in enumerate(self._demos):
            yield index, {name: self._file.rows(f"data/{demo}/{name}") for name in fields.action.sources}

    def provenance(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    @cached_property
    def _hash(self) -> str:
        return file_hash(self.path)

    def _rows(self, demo: str, name: str, count: int, start: int = 0) -> Array:
        length = self._file.length(f"{demo}/{name}")
        if length != count:
            raise FlywheelError(f"{self.path}: '{demo}/{name}' has {length} rows, and there are {count} actions.")
        return self._file.rows(f"{demo}/{name}", start)

    def _success(self, demo: str, count: int) -> bool:
        """Whether the last transition is one to a state of success, as far as rewards tell."""
        if f"{demo}/rewards" not in self._file:
            return False
        last = float(self._rows(demo, "rewards", count).reshape(-1)[-1])
        shaped = bool(_mapping(self._environment.get("env_kwargs")).get("reward_shaping", False))
        return last >= _SHAPED_SUCCESS if shaped else last > 0

    def _terminal(self, demo: str, count: int, success: bool, told: Any, rule: str) -> bool:
        if told is not None:
            return bool(told)
        if rule == "never" or f"{demo}/dones" not in self._file:
            return False
        done = bool(self._rows(demo, "dones", count).reshape(-1)[-1])
        return done and (success or rule == "dones")

    def _metadata(self, index: int, success: bool) -> dict[str, Any]:
        keywords = _mapping(self._environment.get("env_kwargs"))
        robots = keywords.get("robots", "")
        return {
            "task": str(self._environment.get("env_name", "")),
            "robot": "+".join(map(str, robots)) if isinstance(robots, list) else str(robots),
            "environment_config": json.dumps(self._environment, sort_keys=True) if self._environment else "",
            "experiment_id": ",".join(self._splits.get(self._demos[index], [])),
            "success": success,
            "success_detector": "robomimic-rewards" if success else "",
        }

    def _read_masks(self) -> dict[str, list[str]]:
        """The masks that each demonstration is in."""
        found: dict[str, list[str]] = {}
        for mask in self._file.datasets("mask") if "mask" in self._file else []:
            with reading(self.path, f"'mask/{mask}'"):
                demos = [name.rstrip(b"\0").decode() for name in self._file.strings(f"mask/{mask}")]
            for demo in demos:
                found.setdefault(demo, []).append(mask)
        return found


def action_of(environment: Mapping[str, Any]) -> ActionField:
    """What robosuite's environment arguments tell of the action."""
    keywords = _mapping(environment.get("env_kwargs")) or environment
    controller = keywords.get("controller_configs")
    config = _mapping(controller[0] if isinstance(controller, list) and controller else controller)
    parts = _mapping(config.get("body_parts"))
    arm = _mapping(next((part for name, part in parts.items() if name in ("right", "arms")), config))
    arm = _mapping(arm.get("right", arm))
    delta = arm.get("control_delta", arm.get("input_type", "delta") == "delta")
    rate = keywords.get("control_freq", 0)
    return ActionField(
        ("actions",),
        controller=str(arm.get("type", "unknown")).lower(),
        mode="delta" if delta else "absolute",
        rate=float(rate) if isinstance(rate, int | float) and not isinstance(rate, bool) else 0.0,
    )


def _json_attribute(path: Path, attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    with reading(path, f"the attribute {name} of 'data'"):
        return _mapping(json.loads(str(attributes[name]))) if name in attributes else {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
