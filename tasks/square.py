"""Put a square nut on a square peg (robosuite's NutAssemblySquare)."""

from __future__ import annotations

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import Array, ArraySpec, Observation
from flywheel.tasks._expert import Imperfection, Vector, heading, nearest_turn
from flywheel.tasks._pick_place import PlaceExpert
from flywheel.tasks.base import Task

TABLE_HEIGHT = 0.82
"""Metres, as robosuite builds this table."""
_PEG, _PEG_TOP = np.array([0.23, 0.1]), 0.95
"""Where the square peg stands, (2,), and how high it ends, metres."""
_HANDLE = 0.054
"""Metres from the nut's centre, along its x axis, to its handle's."""
_DEEPER = -0.006
"""Metres from the handle's middle to where the fingers aim: the handle is 2 cm high, and lies."""
_LET_GO = 0.042
"""Metres between nut and hand: robosuite's criterion is 1 - tanh(10 d) < 0.6."""


class Square(Task):
    """Success: the nut is around the peg, lower than 5 cm above the table, and the hand has left it, as robosuite has it."""

    name = "square"
    instruction = "put the square nut on the square peg"
    skill = "place"
    horizon = 200
    world = "NutAssemblySquare"
    objects = {  # noqa: RUF012
        "SquareNut_pos": ArraySpec((3,), unit="m"),
        "SquareNut_quat": ArraySpec((4,), unit="xyzw"),
        "SquareNut_to_robot0_eef_pos": ArraySpec((3,), unit="m"),
        "SquareNut_to_robot0_eef_quat": ArraySpec((4,), unit="xyzw"),
    }
    success_detector = "square-peg-v1"

    def success(self, observation: Observation) -> bool:
        """Whether the nut is on the peg and let go."""
        place = observation["SquareNut_pos"]
        around = (np.abs(place[:2] - _PEG) < 0.03).all() and place[2] < TABLE_HEIGHT + 0.05
        return bool(around and np.linalg.norm(place - observation["eef_pos"]) > _LET_GO)

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Grasp the nut's handle, bring it over the peg, turn it to fit, let it slide down; a missed grasp is not noticed."""
        flaws = Imperfection(grasp_offset=0.012, height_offset=0.004, action_noise=0.12, hasty=0.15, slowness=0.3)
        return SquareExpert("square-expert", flaws.scaled(imperfection))


class SquareExpert(PlaceExpert):
    """Grasps the handle across, where it believes it to be, and aligns the nut with the peg as it sees it."""

    clearance = 0.06
    aim = 0.004
    funnel = 0.0

    def grasp(self, observation: Observation) -> Array:
        """The middle of the handle."""
        angle = heading(observation["SquareNut_quat"])
        return np.asarray(observation["SquareNut_pos"] + (_HANDLE * np.cos(angle), _HANDLE * np.sin(angle), _DEEPER))

    def hold(self, observation: Observation) -> Vector:
        """Kept down: the closing fingers lift a hand that is merely told to stay, and the handle is flat."""
        return np.array([*observation["eef_pos"][:2], (self.grasp(observation) + self.offset)[2]])

    def apart(self, observation: Observation) -> Vector:
        """To just above the peg."""
        return np.array([*_PEG, _PEG_TOP + 0.02]) - observation["SquareNut_pos"]

    def turn(self, observation: Observation) -> float:
        """First the hand along the handle, either way around; then the nut along the peg, its handle not away from the robot.

        A hand beyond the peg would be at the end of an arm's reach.
        """
        nut = heading(observation["SquareNut_quat"])
        if self.phase == "carry":
            turn = nearest_turn(-nut, np.pi / 2)
            return turn + np.copysign(np.pi / 2, nut) if abs(nut + turn) < 0.1 else turn
        if self.phase == "reach":
            return nearest_turn(nut - heading(observation["eef_quat"]), np.pi)
        return 0.0
