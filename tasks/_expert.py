"""Scripted pick-and-place: closed-loop, from observations alone, and imperfect in the ways that real scripts are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel.core.specs import Array, Observation

Vector = npt.NDArray[np.float64]

OPEN, CLOSE = -1.0, 1.0

_NEAR, _PATIENCE = 0.03, 6
"""Metres and steps: near a cube for so long, a script closes its fingers although it has not arrived exactly, as scripts do."""

GRIP = 0.06
"""Fingers closer than this, in metres, may hold a cube; they open to 8 cm."""


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
        self._offset: Vector = self._rng.normal(size=3) * spread
        self._reach = 0.035 if self._rng.random() < flaw.hasty else 0.012
        self._waited = 0
        self._gain = 15.0 * (1.0 - self._rng.random() * min(flaw.slowness, 0.9))

    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """Seven delta-pose actions toward the script's current target; the goal is ignored."""
        target, fingers = self.plan(observation)
        action = np.empty(7)
        action[:3] = self._gain * (target - observation["eef_pos"])
        action[3:6] = upright(observation["eef_quat"])
        action[6] = fingers
        action[:6] += self._imperfection.action_noise * self._rng.normal(size=6) * np.repeat([1.0, 0.2], 3)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def plan(self, observation: Observation) -> tuple[Vector, float]:
        """Where the end effector should go, (3,) metres, and what the fingers do (`OPEN` or `CLOSE`)."""
        raise NotImplementedError

    def approach(self, observation: Observation, cube: str) -> tuple[Vector, bool]:
        """Above the believed place of a cube first, then down to it: the target, and whether to close the fingers."""
        hand, grasp = observation["eef_pos"], observation[cube] + self._offset
        aside, above = float(np.hypot(*(grasp - hand)[:2])), float(hand[2] - grasp[2])
        if aside > 0.02 + 0.3 * max(0.0, above):
            return raised(grasp, 0.08), False
        away = max(aside, abs(above))
        self._waited += away < _NEAR
        return grasp, away < self._reach or self._waited > _PATIENCE


def raised(place: Array, height: float) -> Vector:
    """The place `height` metres above another, (3,)."""
    above: Vector = place + np.array([0.0, 0.0, height])
    return above


def upright(quaternion: Array) -> Vector:
    """The action that turns the end effector back to pointing down, keeping its turn about the vertical, (3,).

    The tool's axis is the third column of the rotation matrix; its cross product with straight down is the turn needed.
    """
    x, y, z, w = quaternion
    axis = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    turn: Vector = np.cross(axis, np.array([0.0, 0.0, -1.0]))
    return turn


def fingers_open(observation: Observation) -> float:
    """The opening between the two fingers, in metres."""
    left, right = observation["gripper_qpos"][:2]
    return float(left - right)


def fingers_closed(observation: Observation) -> bool:
    """Whether the fingers have stopped, on a cube or on each other."""
    return fingers_open(observation) < GRIP and bool(np.abs(observation["gripper_qvel"]).max() < 0.01)
