"""Stack one cube on another (robosuite's Stack)."""

from __future__ import annotations

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import ArraySpec, Observation
from flywheel.tasks._expert import CLOSE, GRIP, OPEN, Imperfection, ScriptedExpert, Vector, fingers_closed, fingers_open, raised
from flywheel.tasks.base import Task

STACKED = 0.045
"""Metres between the centres of the cubes: half of 4 cm and half of 5 cm."""


class Stack(Task):
    """Success: cube A rests centred on cube B, and the fingers are too wide to hold it."""

    name = "stack"
    instruction = "stack the red cube on the green cube"
    horizon = 150
    world = "Stack"
    objects = {  # noqa: RUF012
        "cubeA_pos": ArraySpec((3,), unit="m"),
        "cubeA_quat": ArraySpec((4,), unit="xyzw"),
        "cubeB_pos": ArraySpec((3,), unit="m"),
        "cubeB_quat": ArraySpec((4,), unit="xyzw"),
        "gripper_to_cubeA": ArraySpec((3,), unit="m"),
        "gripper_to_cubeB": ArraySpec((3,), unit="m"),
        "cubeA_to_cubeB": ArraySpec((3,), unit="m"),
    }
    success_detector = "stack-pose-v1"

    def success(self, observation: Observation) -> bool:
        """Whether A is on B and let go."""
        apart = observation["cubeA_pos"] - observation["cubeB_pos"]
        on_top = np.hypot(apart[0], apart[1]) < 0.03 and abs(apart[2] - STACKED) < 0.006
        return bool(on_top and fingers_open(observation) > GRIP)

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Grasp A, carry it above B, lower, let go, retreat; a missed grasp is not noticed."""
        flaws = Imperfection(grasp_offset=0.016, height_offset=0.005, action_noise=0.2, hasty=0.15, slowness=0.4)
        return StackExpert("stack-expert", flaws.scaled(imperfection))


class StackExpert(ScriptedExpert):
    """Grasps where it believes cube A to be, and aligns the cubes as it sees them."""

    def reset(self, seed: int) -> None:
        """Start with open fingers, above."""
        super().reset(seed)
        self._phase = "reach"

    def plan(self, observation: Observation) -> tuple[Vector, float]:
        """One phase after the other, each ended by what is seen."""
        hand = observation["eef_pos"]
        if self._phase == "reach":
            target, arrived = self.approach(observation, "cubeA_pos")
            self._phase = "close" if arrived else "reach"
            return target, CLOSE if arrived else OPEN
        if self._phase == "close" and fingers_closed(observation):
            self._phase = "carry"
        if self._phase == "close":
            return raised(hand, 0.0), CLOSE
        if self._phase == "carry":
            return self._carry(observation)
        return raised(hand, 0.1 if fingers_open(observation) > GRIP else 0.0), OPEN

    def _carry(self, observation: Observation) -> tuple[Vector, float]:
        hand, apart = observation["eef_pos"], observation["cubeB_pos"] - observation["cubeA_pos"]
        aside, above = float(np.hypot(*apart[:2])), float(-apart[2]) - STACKED
        if aside > 0.01 + 0.3 * max(0.0, above):
            return hand + np.array([*(apart[:2] if above > 0.0 else (0.0, 0.0)), 0.05 - above]), CLOSE
        if above < 0.004:
            self._phase = "release"
            return raised(hand, 0.0), OPEN
        return hand + np.array([apart[0], apart[1], -above]), CLOSE
