"""Open a door: turn its handle, then pull (robosuite's Door)."""

from __future__ import annotations

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import ArraySpec, Observation
from flywheel.tasks._expert import CLOSE, FACING, OPEN, Imperfection, ScriptedExpert, Vector, fingers_closed, tilt
from flywheel.tasks.base import Task

OPENED = 0.3
"""Radians of the hinge: robosuite's own criterion; it goes to 0.4."""
TURNED = 1.0
"""Radians of the handle, at which the latch has left the frame; it goes to 1.57."""
_TURNED_WELL = 1.3
"""Radians to which the script turns it before it pulls: against a latch that still touches, the fingers slip off."""
_TILT = 0.7
"""Radians from straight down toward the door: so both fingers reach around the handle, and the hand stays clear of the door."""


class Door(Task):
    """Success: the hinge is open by more than 0.3 radians."""

    name = "door"
    instruction = "open the door"
    skill = "articulate"
    horizon = 150
    world = "Door"
    objects = {  # noqa: RUF012
        "door_pos": ArraySpec((3,), unit="m"),
        "handle_pos": ArraySpec((3,), unit="m"),
        "hinge_qpos": ArraySpec((), unit="rad"),
        "handle_qpos": ArraySpec((), unit="rad"),
        "door_to_eef_pos": ArraySpec((3,), unit="m"),
        "handle_to_eef_pos": ArraySpec((3,), unit="m"),
    }
    success_detector = "door-hinge-v1"

    def success(self, observation: Observation) -> bool:
        """Whether the door is open."""
        return bool(observation["hinge_qpos"] > OPENED)

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Grasp the handle, press it down, pull; a missed grasp is not noticed."""
        flaws = Imperfection(grasp_offset=0.016, height_offset=0.005, action_noise=0.2, hasty=0.15, slowness=0.4)
        return DoorExpert("door-expert", flaws.scaled(imperfection))


class DoorExpert(ScriptedExpert):
    """Grasps where it believes the handle to be, presses it down and pulls it open."""

    tool_axis = np.array([0.0, -np.sin(_TILT), -np.cos(_TILT)])

    def reset(self, seed: int) -> None:
        """Start with open fingers."""
        super().reset(seed)
        self._phase = "reach"

    def facing(self, observation: Observation) -> bool:
        """Whether the hand is tilted toward the door."""
        return float(np.linalg.norm(tilt(observation["eef_quat"], self.tool_axis))) < FACING

    def plan(self, observation: Observation) -> tuple[Vector, float]:
        """One phase after the other, each ended by what is seen."""
        hand, handle = observation["eef_pos"], observation["handle_pos"] + self.offset
        if self._phase == "reach":
            target, arrived = self.approach(observation, observation["handle_pos"])
            self._phase = "close" if arrived else "reach"
            return target, CLOSE if arrived else OPEN
        if self._phase == "close" and fingers_closed(observation):
            self._phase = "turn"
        if self._phase == "close":
            return hand + np.zeros(3), CLOSE
        if self._phase == "turn" and observation["handle_qpos"] > _TURNED_WELL:
            self._phase = "pull"
        if self._phase == "turn":
            return np.array([handle[0], handle[1], hand[2] - 0.06]), CLOSE
        return handle + np.array([0.0, 0.1, -0.02]), CLOSE
