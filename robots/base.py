"""What a robot is: the one interface through which simulated and real arms are driven alike."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec


@dataclass(frozen=True)
class Scene:
    """What stands around the robot. On hardware a person (or a reset machine) builds it; a simulator loads it."""

    world: str = ""
    """The simulator's name for it, for example robosuite's ``Lift``; empty for the robot's plainest world."""
    objects: Mapping[str, ArraySpec] = field(default_factory=dict)
    """The object observations that perception gives, by name, for example ``cube_pos``: (3,), metres."""
    seed: int = 0
    """The seed of the initial state."""
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """The simulated cameras that are to be observed, by name, with their pictures' (height, width) in pixels: each is an array
    (height, width, 3) uint8 of the observation, RGB, the top row first. An arm of hardware has cameras of its own."""

    @property
    def pictures(self) -> dict[str, ArraySpec]:
        """What its cameras add to an observation."""
        return {name: ArraySpec((height, width, 3), "uint8") for name, (height, width) in self.cameras.items()}

    def with_seed(self, seed: int) -> Scene:
        """The same scene from another initial state."""
        return replace(self, seed=seed)


class Robot(ABC):
    """An arm and its gripper. A subclass is constructed with the scene alone; everything else has a default.

    The specifications can be read before `connect`. Observations keep the names and units that the specification gives.
    """

    name: str
    """What episodes record as the robot, for example ``sim:Panda``."""
    variants: tuple[str, ...] = ()
    """What may stand after the colon of a name, as in ``sim:UR5e``; it is passed to the constructor after the scene."""
    is_real_time: bool = False
    """Whether the arm moves on when nobody calls `act`; a simulation waits."""
    is_stopped: bool = False
    """Whether the robot refuses to move until the next `reset`."""

    @property
    @abstractmethod
    def observation_spec(self) -> ObservationSpec:
        """What `observe` returns."""

    @property
    @abstractmethod
    def action_spec(self) -> ActionSpec:
        """What `act` takes."""

    @property
    def software(self) -> dict[str, str]:
        """Versions of whatever decides how the robot behaves (simulator, drivers), for the episode's metadata."""
        return {}

    @abstractmethod
    def connect(self) -> None:
        """Reach the hardware (or build the simulation); a second call does nothing. Raises `FlywheelError`."""

    @abstractmethod
    def disconnect(self) -> None:
        """Let go of the hardware; a second call does nothing."""

    @abstractmethod
    def reset(self, scene: Scene) -> None:
        """Go to the initial state; in simulation the same scene gives the same state bit for bit."""

    @abstractmethod
    def observe(self) -> dict[str, Array]:
        """The newest measurement, as `observation_spec` declares it."""

    @abstractmethod
    def act(self, action: Array) -> Array:
        """Execute one action for one control period, and return the action that was really executed, (A,) float32.

        Raises `SpecError` for a wrong shape or a number that is not finite.
        """

    @abstractmethod
    def stop(self) -> None:
        """Come to rest and hold; a second call does nothing."""

    def clock(self) -> float:
        """Seconds on the robot's own monotonic clock: simulated time in a simulation."""
        return time.monotonic()

    def render(self, height: int, width: int) -> Array:
        """A picture of the scene, (height, width, 3) uint8; raises `FlywheelError` where there is no camera."""
        raise FlywheelError(f"The robot '{self.name}' cannot draw pictures; ask for no videos.")

    def __enter__(self) -> Self:
        """Connect."""
        self.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop and disconnect, whatever happened."""
        try:
            self.stop()
        finally:
            self.disconnect()


def make_robot(name: str, scene: Scene | None = None) -> Robot:
    """A robot by name: ``fake``, ``sim``, or with a variant after a colon, ``sim:UR5e``.

    Raises `FlywheelError` with the nearest name when there is none.
    """
    kind, _, variant = name.partition(":")
    cls: Any = registry.load("robots", kind, Robot)
    if variant and variant not in cls.variants:
        raise FlywheelError(registry.unknown(f"variant of robot {kind}", variant, cls.variants))
    scene = scene or Scene()
    robot: Robot = cls(scene, variant) if variant else cls(scene)
    return robot


def hold_action(spec: ActionSpec) -> Array:
    """The delta action that asks for no motion, (A,); raises `FlywheelError` for a robot of absolute actions."""
    if spec.mode != "delta":
        raise FlywheelError(f"An action of mode '{spec.mode}' has no neutral value to hold with; use a delta controller.")
    return np.zeros(spec.dim, np.float32)
