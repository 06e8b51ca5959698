"""Other people's benchmarks as tasks: a gymnasium environment that brings its robot, its goals and its verdict along."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import package_versions
from flywheel.core.policy import Policy
from flywheel.core.specs import ActionSpec, Array, Observation, ObservationSpec
from flywheel.robots._graphics import chosen_graphics, drawing
from flywheel.robots.base import Robot, Scene
from flywheel.tasks.base import Task

GymEnv = Any
"""A ``gymnasium.Env``; the benchmarks type theirs in ways of their own."""


class ForeignTask(Task):
    """A task of a benchmark. Its robot is the simulation's own, so it is joined with no other.

    Success is the benchmark's verdict, which only the simulation can give, and only on what it has just shown.
    """

    observation: ObservationSpec
    """What an observation holds."""
    action: ActionSpec
    """What an action means."""
    packages: tuple[str, ...]
    """The benchmark's packages, whose versions are recorded with every episode; the first names its robot."""
    success_key: str = "success"
    """Where in a step's info the verdict is."""

    def __init__(self) -> None:
        """The simulation is built when its robot is connected."""
        self.simulation = ForeignRobot(self)

    @abstractmethod
    def build(self) -> GymEnv:
        """The simulation; raises `FlywheelError` where its package is not installed."""

    @abstractmethod
    def begin(self, simulation: GymEnv, seed: int) -> tuple[Array, Mapping[str, Any]]:
        """Reset it to the initial state of a seed, the same bit for bit whatever happened before: (observation, info)."""

    def unpack(self, raw: Any) -> dict[str, Array]:
        """Our form of an observation of the simulation's."""
        return {"state": np.asarray(raw, np.float32)}

    def showing(self) -> AbstractContextManager[None]:
        """What makes an observation goes in here, as pictures are drawn; raises `FlywheelError` where they cannot be."""
        has_picture = any(len(spec.shape) == 3 for spec in self.observation.arrays.values())
        return drawing() if has_picture else nullcontext()

    def robot(self, name: str, cameras: Mapping[str, tuple[int, int]] | None = None) -> Robot:
        """The simulation's own; raises `FlywheelError` for any other than ``sim``, and for cameras that it is to be given."""
        if cameras:
            raise FlywheelError(f"The task {self.name} shows what its benchmark shows, and takes no cameras; leave them out.")
        if name not in ("sim", self.simulation.name):
            raise FlywheelError(f"The task {self.name} brings its own robot and cannot use '{name}'; leave --robot out.")
        return self.simulation

    def success(self, observation: Observation) -> bool:
        """The simulation's verdict on its newest observation; raises `FlywheelError` for any other."""
        return self.simulation.verdict(observation)

    def judges(self, keys: Collection[str]) -> bool:
        """Never: what was stored cannot be judged again."""
        return False

    def goal(self) -> Observation | None:
        """The goal that the last reset set."""
        return self.simulation.goal if self.sets_goals else None

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Raises `FlywheelError`: the benchmark has no script that does the task from observations."""
        raise FlywheelError(f"The task {self.name} has no scripted expert; give --policy random or a trained policy.")


class ForeignRobot(Robot):
    """The robot of a benchmark's simulation, which waits between actions."""

    def __init__(self, task: ForeignTask) -> None:
        """Belongs to the task that builds the simulation."""
        self._task = task
        self.name = f"sim:{task.packages[0]}"
        self._sim: GymEnv = None
        self._observation: dict[str, Array] = {}
        self._info: Mapping[str, Any] = {}
        self._steps = 0

    @property
    def observation_spec(self) -> ObservationSpec:
        """The task's."""
        return self._task.observation

    @property
    def action_spec(self) -> ActionSpec:
        """The task's."""
        return self._task.action

    @property
    def software(self) -> dict[str, str]:
        """The versions of the benchmark, the physics and the arithmetic."""
        return package_versions(*self._task.packages, "mujoco", "numpy")

    @property
    def goal(self) -> dict[str, Array]:
        """The goal that the last reset set."""
        self._connected()
        return self._task.unpack(self._info["goal"])

    def verdict(self, observation: Observation) -> bool:
        """Whether the newest observation is a success; raises `FlywheelError` for another observation."""
        newest = self.observe()
        if any(not np.array_equal(observation[key], value) for key, value in newest.items()):
            raise FlywheelError(f"Only the simulation of {self._task.name} decides success, and only of what it shows now.")
        return bool(self._info.get(self._task.success_key, False))

    def connect(self) -> None:
        """Build the simulation and begin the episode of seed 0."""
        if self._sim is None:
            with chosen_graphics():  # it imports MuJoCo
                self._sim = self._task.build()
            self.reset(self._task.scene(0))

    def disconnect(self) -> None:
        """Free the simulation."""
        if self._sim is not None:
            self._sim.close()
        self._sim = None

    def reset(self, scene: Scene) -> None:
        """Begin the episode of the scene's seed."""
        with self._task.showing():
            raw, info = self._task.begin(self._connected(), scene.seed)
        self._observation, self._info, self._steps = self._task.unpack(raw), dict(info), 0

    def observe(self) -> dict[str, Array]:
        """The state after the last action."""
        self._connected()
        return {key: value.copy() for key, value in self._observation.items()}

    def act(self, action: Array) -> Array:
        """Simulate one control period with the action clipped to its bounds."""
        executed = np.clip(self.action_spec.validate(action), *self.action_spec.bounds)
        with self._task.showing():
            raw, _, _, _, info = self._connected().step(executed)
        self._observation = self._task.unpack(raw)
        self._info = {**self._info, **info}  # the goal is told at the reset alone
        self._steps += 1
        return executed

    def stop(self) -> None:
        """It stands still by itself."""

    def clock(self) -> float:
        """Simulated seconds since the reset."""
        return self._steps / self.action_spec.rate

    def render(self, height: int, width: int) -> Array:
        """The benchmark's own picture, its nearest pixels taken, (height, width, 3) uint8."""
        with drawing():
            picture = np.asarray(self._connected().render(), np.uint8)
        rows, columns = (np.arange(size) * length // size for size, length in zip((height, width), picture.shape, strict=False))
        found: Array = picture[rows][:, columns]
        return found

    def _connected(self) -> GymEnv:
        if self._sim is None:
            raise FlywheelError(f"The robot '{self.name}' is not connected; call connect() or use it in a with statement.")
        return self._sim


def import_benchmark(package: str, extra: str) -> Any:
    """The benchmark's package; raises `FlywheelError` with the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise FlywheelError(f"This task needs {package}; install it with: pip install 'flywheel-robotics[{extra}]'.") from None
