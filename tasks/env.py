"""A task on a robot, behind the gymnasium interface: the same class drives a simulated and a real arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium import spaces

from flywheel.core.specs import Array, ArraySpec
from flywheel.robots.base import Robot
from flywheel.robots.safety import SafeRobot, SafetyEvent
from flywheel.tasks.base import Task, make_task


class Env(gymnasium.Env[dict[str, Array], Array]):
    """Success ends an episode as terminal with the task's reward; the horizon, or a stopped robot, truncates it.

    `info` holds ``success`` and, after a step, ``executed``, the action that the robot really executed, (A,); after a reset
    ``goal``, the observation to reach, or None where the task sets none.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's own declaration)
    render_mode = "rgb_array"

    def __init__(self, task: Task, robot: Robot, cameras: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Join a task and a robot, which has these cameras; the robot is connected at the first reset."""
        self.task, self.robot = task, robot
        self._cameras = dict(cameras or {})
        action = robot.action_spec
        self.action_space = spaces.Box(*action.bounds, dtype=np.float32)
        self.observation_space: Any = spaces.Dict({key: _box(spec) for key, spec in robot.observation_spec.arrays.items()})
        self._steps = 0
        self._seed = 0

    @property
    def config(self) -> dict[str, Any]:
        """What `make_env` needs to build this environment again."""
        cameras = {name: list(size) for name, size in self._cameras.items()}
        made = {"task_name": self.task.name, "robot_name": self.robot.name, "safe": isinstance(self.robot, SafeRobot)}
        return made | ({"cameras": cameras} if cameras else {})

    @property
    def safety_events(self) -> list[SafetyEvent]:
        """What the safety layer changed since the last reset; empty without one."""
        return self.robot.events if isinstance(self.robot, SafeRobot) else []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
        """Start an episode; without a seed the one after the last is used."""
        self._seed = self._seed + 1 if seed is None else seed
        super().reset(seed=self._seed)
        self.robot.connect()
        self.robot.reset(self.task.scene(self._seed))
        self._steps = 0
        observation = self.robot.observe()
        return observation, {"success": self.task.success(observation), "goal": self.task.goal()}

    def step(self, action: Array) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """Execute one action: (observation, reward, terminated, truncated, info)."""
        executed = self.robot.act(action)
        observation = self.robot.observe()
        self._steps += 1
        success = self.task.success(observation)
        truncated = not success and (self._steps >= self.task.horizon or self.robot.is_stopped)
        return observation, self.task.reward(observation), success, truncated, {"success": success, "executed": executed}

    def render(self, height: int = 256, width: int = 256) -> Array:
        """A picture, (height, width, 3) uint8."""
        return self.robot.render(height, width)

    def close(self) -> None:
        """Stop and disconnect the robot."""
        self.robot.stop()
        self.robot.disconnect()

    def __enter__(self) -> Self:
        """Connect the robot."""
        self.robot.connect()
        return self


def make_env(
    task_name: str, robot_name: str = "sim", *, safe: bool = False, cameras: Mapping[str, Sequence[int]] | None = None
) -> Env:
    """The environment of a task and a robot by name, with simulated cameras by name and (height, width).

    `safe` puts the safety layer between them.
    """
    task = make_task(task_name)
    sizes = {name: (int(height), int(width)) for name, (height, width) in (cameras or {}).items()}
    robot = task.robot(robot_name, sizes)
    return Env(task, SafeRobot(robot) if safe else robot, sizes)


def _box(spec: ArraySpec) -> spaces.Box:
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.floating):
        return spaces.Box(-np.inf, np.inf, spec.shape, dtype.type)
    return spaces.Box(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), spec.shape, dtype.type)
