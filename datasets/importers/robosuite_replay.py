"""Observations of recorded simulator states: robosuite, imported by name and only here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import need, reading

_ALLOWED = ("env_name", "robots", "controller_configs", "env_configuration")
"""What a file may say of its environment; anything else robosuite would take, too, and nobody knows what for."""


@dataclass(frozen=True)
class Demonstration:
    """What a demonstration consists of."""

    model: str
    """MuJoCo's XML of its scene."""
    states: Array
    """(T, S), or (T + 1, S) with the final one."""
    actions: Array
    """(T, A)"""


@dataclass(frozen=True)
class Played:
    """What the simulator tells of it."""

    observation: dict[str, Array]
    """(T + 1, ...)"""
    reward: Array
    """(T,) of the state that each action led to."""
    success: bool
    """In the final state."""


class Replay:
    """A robosuite environment that recorded states are set in."""

    rate = 20
    """collect_human_demonstrations records at 20 Hz, whatever the file says."""

    def __init__(self, path: Path, environment: Mapping[str, Any]) -> None:
        os.environ.setdefault("MUJOCO_GL", "egl")
        suite = need("robosuite", "sim")
        self.path = path
        self.version = metadata.version("robosuite")
        self.mujoco_version = metadata.version("mujoco")
        self.arguments = {key: environment[key] for key in _ALLOWED if environment.get(key)}
        robots = environment.get("robots", [])
        self.robots = [str(robot) for robot in (robots if isinstance(robots, list) else [robots])]
        with reading(path, "its environment"):
            if self.arguments.get("env_name") not in suite.ALL_ENVIRONMENTS:
                raise FlywheelError(f"robosuite has no environment {self.arguments.get('env_name')!r}.")
            if environment.get("controller"):
                load = need("robosuite.controllers").load_composite_controller_config
                self.arguments["controller_configs"] = load(controller=environment["controller"], robot=self.robots[0])
            options = {"has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False, "ignore_done": True}
            self._environment = suite.make(**self.arguments, **options, reward_shaping=False, control_freq=self.rate)

    def play(self, demo: Demonstration, name: str) -> Played:
        """Set state after state; raises `FlywheelError` naming the demonstration if the simulator refuses one."""
        count = len(demo.actions)
        if len(demo.states) not in (count, count + 1) or demo.states.ndim != 2 or not np.isfinite(demo.states).all():
            raise FlywheelError(f"{self.path}, {name}: its states are {demo.states.shape}, not finite ones for {count} actions.")
        with reading(self.path, name), redirect_stdout(StringIO()):
            self._begin(demo)
            found = [self._look(state) for state in demo.states]
            if len(found) == count:
                self._environment.step(np.asarray(demo.actions[-1], np.float64))
                found.append(self._observe())
        names = found[0][0].keys()
        return Played(
            observation={key: np.stack([step[0][key] for step in found]) for key in names},
            reward=np.array([step[1] for step in found[1:]]),
            success=found[-1][2],
        )

    def _begin(self, demo: Demonstration) -> None:
        environment = self._environment
        environment.reset()
        environment.reset_from_xml_string(environment.edit_model_xml(demo.model))
        environment.sim.reset()
        expected = len(environment.sim.get_state().flatten())
        if demo.states.shape[1] != expected:
            raise FlywheelError(f"its states have {demo.states.shape[1]} numbers, and those of this scene have {expected}.")

    def _look(self, state: Array) -> tuple[dict[str, Array], float, bool]:
        self._environment.sim.set_state_from_flattened(np.asarray(state, np.float64))
        self._environment.sim.forward()
        return self._observe()

    def _observe(self) -> tuple[dict[str, Array], float, bool]:
        observation = self._environment._get_observations(force_update=True)
        arrays = {key: np.array(value) for key, value in observation.items()}
        return arrays, float(self._environment.reward()), bool(self._environment._check_success())
