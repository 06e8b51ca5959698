"""What scripts have in common: closed-loop, from observations alone, and imperfect in the ways that real scripts are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel.core.specs import Array, Observation

Vector = npt.NDArray[np.float64]

OPEN, CLOSE = -1.0, 1.0

DOWN: Vector = np.array([0.0, 0.0, -1.0])

_NEAR, _PATIENCE = 0.03, 6
"""Metres and steps: near a thing for so long, a script closes its fingers although it has not arrived exactly, as scripts do."""

GRIP = 0.06
"""Fingers closer than this, in metres, may hold a thing; they open to 8 cm."""

FACING = 0.15
"""Radians: so well must the hand be turned before it goes to a thing."""


@dataclass(frozen=True)
class Imperfection:
    """Standard deviations of what is wrong with a script: a calibration error per episode, and noise per step."""

    grasp_offset: float = 0.0
    """Metres, horizontally, constant over an episode: the camera's calibration."""
    height_offset: float = 0.0
    """Metres, vertically, constant over an episode."""
    action_noise: float = 0.0
    """In units of action, independent per step: a shaky drive."""
    hasty: float = 0.0
    """The probability that an episode's script closes its fingers before it has arrived."""
    slowness: float = 0.0
    """The largest relative loss of gain, drawn uniformly per episode."""

    def scaled(self, factor: float) -> Imperfection:
        """All of it, more or less."""
        values = (self.grasp_offset, self.height_offset, self.action_noise, self.hasty, self.slowness)
        return Imperfection(*(factor * value for value in values))


class ScriptedExpert:
    """Draws an episode's imperfections at reset; a subclass decides where to go and what the fingers do."""

    checkpoint = ""
    snapshot = ""
    tool_axis = DOWN
    """Where the hand points, (3,), of length 1."""

    def __init__(self, agent_id: str, imperfection: Imperfection) -> None:
        """Name the script and say how imperfect it is."""
        self.agent_id = agent_id
        self._imperfection = imperfection
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Draw this episode's imperfections."""
        # A stream of its own: the scene is drawn from the same seed.
        self._rng = np.random.default_rng([seed, 1])
        flaw = self._imperfection
        spread = np.array([flaw.grasp_offset, flaw.grasp_offset, flaw.height_offset])
        self.offset: Vector = self._rng.normal(size=3) * spread
        self._reach = 0.035 if self._rng.random() < flaw.hasty else 0.012
        self._waited = 0
        self._gain = 15.0 * (1.0 - self._rng.random() * min(flaw.slowness, 0.9))

    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """Seven delta-pose actions toward the script's current target; the goal is ignored."""
        target, fingers = self.plan(observation)
        action = np.empty(7)
        action[:3] = self._gain * (target - observation["eef_pos"])
        action[3:6] = tilt(observation["eef_quat"], self.tool_axis)
        action[5] += self.turn(observation)
        action[6] = fingers
        action[:6] += self._imperfection.action_noise * self._rng.normal(size=6) * np.repeat([1.0, 0.2], 3)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def plan(self, observation: Observation) -> tuple[Vector, float]:
        """Where the end effector should go, (3,) metres, and what the fingers do (`OPEN` or `CLOSE`)."""
        raise NotImplementedError

    def turn(self, observation: Observation) -> float:
        """The angle in radians, counterclockwise from above, by which the hand has yet to turn; 0 where its heading is free."""
        return 0.0

    def facing(self, observation: Observation) -> bool:
        """Whether the hand is turned well enough to go to a thing."""
        return abs(self.turn(observation)) < FACING

    def approach(self, observation: Observation, place: Array) -> tuple[Vector, bool]:
        """Short of the believed place (3,) of a thing, then along the tool to it: the target, and whether to close the hand."""
        grasp = place + self.offset
        way = grasp - observation["eef_pos"]
        ahead = float(way @ self.tool_axis)
        aside = float(np.linalg.norm(way - ahead * self.tool_axis))
        if aside > 0.02 + 0.3 * max(0.0, ahead) or not self.facing(observation):
            return grasp - 0.08 * self.tool_axis, False
        away = max(aside, abs(ahead))
        self._waited += away < _NEAR
        return grasp, away < self._reach or self._waited > _PATIENCE


def raised(place: Array, height: float) -> Vector:
    """The place `height` metres above another, (3,)."""
    above: Vector = place + np.array([0.0, 0.0, height])
    return above


def tilt(quaternion: Array, axis: Vector) -> Vector:
    """The action that points the end effector along an axis (3,) of length 1, keeping its turn about it, (3,).

    The tool's axis is the third column of the rotation matrix; its cross product with the other is the turn needed.
    """
    x, y, z, w = quaternion
    tool = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    turn: Vector = np.cross(tool, axis)
    return turn


def heading(quaternion: Array) -> float:
    """The angle of a body's own x axis from the world's, seen from above, in radians."""
    x, y, z, w = quaternion
    return float(np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)))


def nearest_turn(angle: float, period: float) -> float:
    """The smallest angle that differs from another by a multiple of the period: within half a period of 0."""
    return float((angle + period / 2) % period - period / 2)


def fingers_open(observation: Observation) -> float:
    """The opening between the two fingers, in metres."""
    left, right = observation["gripper_qpos"][:2]
    return float(left - right)


def fingers_closed(observation: Observation) -> bool:
    """Whether the fingers have stopped, on a thing or on each other."""
    return fingers_open(observation) < GRIP and bool(np.abs(observation["gripper_qvel"]).max() < 0.01)
