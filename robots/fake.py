"""An arm of pure kinematics, without a physics library, whose faults can be chosen: for tests and for trying things out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec
from flywheel.robots.base import Robot, Scene

_TABLE = 0.82
_FINGERS = 0.04
_FINGER_STEP = 0.01
_REACH = 0.03
_STEP = 0.02
_BETWEEN = "_to_"
_FROM_HAND = "_to_eef_pos"  # robosuite's name for where an object is from the hand, in the world's frame ...
_IN_HAND_FRAME = "_to_robot0_eef_"  # ... and in the hand's, which points down
_TO_HAND_FRAME = np.array([1.0, -1.0, -1.0])
_UPRIGHT, _POINTING_DOWN = np.array([0.0, 0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0])
_WOOD = (120, 90, 60)
_TREMOR = 1e-4  # no living sensor repeats itself to the last bit

_OWN = {
    "joint_pos": ArraySpec((7,), unit="rad"),
    "joint_vel": ArraySpec((7,), unit="rad/s"),
    "eef_pos": ArraySpec((3,), unit="m"),
    "eef_quat": ArraySpec((4,), unit="xyzw"),
    "gripper_qpos": ArraySpec((2,), unit="m"),
    "gripper_qvel": ArraySpec((2,), unit="m/s"),
}


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and from which step on; None means never."""

    latency: float = 0.0
    """Seconds by which every observation is late."""
    frozen_after: int | None = None
    """The sensors repeat their last values."""
    nan_after: int | None = None
    """The end effector's position is NaN."""
    disconnect_after: int | None = None
    """The arm cannot be reached until it is connected again."""


class FakeRobot(Robot):
    """A point with two fingers above a table: it goes where it is told, and carries an object that it closes on.

    An object is whatever the scene names ``<object>_pos``, ``<one>_to_<other>`` is where the other is from the one, as robosuite
    names it, and ``<object>_to_eef`` where the object is from the hand; an object's other observations are constant.
    Time passes by one control period per action, and by the latency per observation.
    """

    name = "fake"

    def __init__(self, scene: Scene | None = None, faults: Faults | None = None) -> None:
        """Choose the scene and what goes wrong."""
        self._scene, self._faults = scene or Scene(), faults or Faults()
        self._connected = False
        self._time = 0.0
        self._hand: Array
        self._fingers: float
        self._measured: dict[str, Array]
        self._begin(self._scene)

    @property
    def observation_spec(self) -> ObservationSpec:
        """The same names as a simulated Panda's."""
        return ObservationSpec({**_OWN, **self._scene.objects, **self._scene.pictures})

    @property
    def action_spec(self) -> ActionSpec:
        """Delta pose and gripper, as a simulated Panda takes them."""
        scale = (_STEP, _STEP, _STEP, 0.5, 0.5, 0.5, 1.0)
        return ActionSpec((-1.0,) * 7, (1.0,) * 7, "kinematic", "delta", "base", scale, 20.0)

    def connect(self) -> None:
        """Reach the arm."""
        self._connected = True

    def disconnect(self) -> None:
        """Let go of the arm."""
        self._connected = False

    def reset(self, scene: Scene) -> None:
        """Draw the positions of the objects from the scene's seed."""
        self._reach()
        self._begin(scene)

    def observe(self) -> dict[str, Array]:
        """The state, with the chosen faults."""
        self._reach()
        self._time += self._faults.latency
        if not _due(self._faults.frozen_after, self._steps):
            self._measured = self._state()
        observation = {key: value.copy() for key, value in self._measured.items()}
        observation |= {camera: self.render(*size) for camera, size in self._scene.cameras.items()}
        if _due(self._faults.nan_after, self._steps):
            observation["eef_pos"][:] = np.nan
        return observation

    def act(self, action: Array) -> Array:
        """Move by the action, clipped to [-1, 1]."""
        executed = np.clip(self.action_spec.validate(action), -1.0, 1.0)
        self._reach()
        self._steps += 1
        self._time += 1.0 / self.action_spec.rate
        self._hand = np.clip(self._hand + _STEP * executed[:3], (-0.4, -0.4, _TABLE), (0.4, 0.4, 1.3)).astype(np.float32)
        before = self._fingers
        # As robosuite's grippers do, only the sign counts, and zero holds.
        self._fingers = float(np.clip(before - _FINGER_STEP * np.sign(executed[6]), 0.0, _FINGERS))
        self._grasp(closing=bool(executed[6] > 0))
        self._finger_speed = (self._fingers - before) * self.action_spec.rate
        return executed

    def stop(self) -> None:
        """It stands still by itself."""

    def clock(self) -> float:
        """The robot's own seconds."""
        return self._time

    def render(self, height: int, width: int) -> Array:
        """The wooden table from above: the hand white, the objects red."""
        picture = np.full((height, width, 3), _WOOD, np.uint8)
        size = max(1, height // 32)
        for place, colour in [*((value, (255, 0, 0)) for value in self._objects.values()), (self._hand, (255, 255, 255))]:
            row, column = (int(np.clip((0.4 - place[axis]) / 0.8, 0, 1) * (side - 1)) for axis, side in ((0, height), (1, width)))
            picture[max(0, row - size) : row + size, max(0, column - size) : column + size] = colour
        return picture

    def _begin(self, scene: Scene) -> None:
        self._rng = rng = np.random.default_rng(scene.seed)
        self._steps = 0
        self._hand = np.array([-0.1, 0.0, 1.0], np.float32) + rng.normal(0.0, 0.01, 3).astype(np.float32)
        self._fingers = _FINGERS
        self._finger_speed = 0.0
        names = [key for key in sorted(self._scene.objects) if key.endswith("_pos") and _BETWEEN not in key]
        self._objects = {key: np.append(rng.uniform(-0.1, 0.1, 2), _TABLE).astype(np.float32) for key in names}
        self._held: str | None = None
        self._measured = self._state()

    def _grasp(self, *, closing: bool) -> None:
        near = [key for key, place in self._objects.items() if np.linalg.norm(place - self._hand) < _REACH]
        if not closing and self._fingers >= _FINGERS / 2:
            self._held = None
        elif closing and self._held is None and near and self._fingers <= _FINGERS / 2:
            self._held = near[0]
        if self._held is not None:
            self._fingers = _FINGERS / 2
            self._objects[self._held] = self._hand.copy()
        for key, place in self._objects.items():
            if key != self._held:
                place[2] = self._support(key)

    def _support(self, key: str) -> float:
        """Where an object that nobody holds comes to lie: on the table, or on another object."""
        place = self._objects[key]
        below = [
            other[2] + 0.045
            for name, other in self._objects.items()
            if name != key and other[2] < place[2] - 0.02 and np.linalg.norm((other - place)[:2]) < 0.03
        ]
        return float(max(below, default=_TABLE))

    def _state(self) -> dict[str, Array]:
        speed = np.float32(self._finger_speed)
        state: dict[str, Array] = {
            "joint_pos": np.append(self._hand, np.zeros(4)),
            "joint_vel": self._rng.normal(0.0, _TREMOR, 7),
            "eef_pos": self._hand,
            "eef_quat": _POINTING_DOWN,
            "gripper_qpos": np.array([self._fingers, -self._fingers]),
            "gripper_qvel": np.array([speed, -speed]),
        }
        state |= {key: self._observe_object(key, spec) for key, spec in self._scene.objects.items()}
        return {key: value.astype(np.float32) for key, value in state.items()}

    def _observe_object(self, key: str, spec: ArraySpec) -> Array:
        if key in self._objects:
            return self._objects[key]
        if spec.unit == "xyzw":
            return _POINTING_DOWN if key.endswith(_IN_HAND_FRAME + "quat") else _UPRIGHT
        if key.endswith(_IN_HAND_FRAME + "pos"):
            return np.asarray(_TO_HAND_FRAME * (self._objects[key.replace(_IN_HAND_FRAME, "_")] - self._hand))
        if key.endswith(_FROM_HAND):
            return np.asarray(self._objects[key.replace(_FROM_HAND, "_pos")] - self._hand)
        if _BETWEEN in key:
            one, other = (self._place(name) for name in key.removesuffix("_pos").split(_BETWEEN))
            return np.asarray(other - one)
        return np.zeros(spec.shape)

    def _place(self, name: str) -> Array:
        return self._hand if name == "gripper" else self._objects[f"{name}_pos"]

    def _reach(self) -> None:
        if _due(self._faults.disconnect_after, self._steps):
            self._connected = False
        if not self._connected:
            raise FlywheelError("The robot 'fake' is not connected; call connect() or use it in a with statement.")


def _due(after: int | None, steps: int) -> bool:
    return after is not None and steps >= after
