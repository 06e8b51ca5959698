"""Stack one cube on another (robosuite's Stack)."""

from __future__ import annotations

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import Array, ArraySpec, Observation
from flywheel.tasks._expert import GRIP, Imperfection, Vector, fingers_open, raised
from flywheel.tasks._pick_place import PlaceExpert
from flywheel.tasks.base import Task

STACKED = 0.045
"""Metres between the centres of the cubes: half of 4 cm and half of 5 cm."""


class Stack(Task):
    """Success: cube A rests centred on cube B, and the fingers are too wide to hold it."""

    name = "stack"
    instruction = "stack the red cube on the green cube"
    skill = "place"
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


class StackExpert(PlaceExpert):
    """Grasps where it believes cube A to be, and aligns the cubes as it sees them."""

    def grasp(self, observation: Observation) -> Array:
        """The middle of cube A."""
        return observation["cubeA_pos"]

    def apart(self, observation: Observation) -> Vector:
        """To the top of cube B."""
        return raised(observation["cubeB_pos"] - observation["cubeA_pos"], STACKED)
