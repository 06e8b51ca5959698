"""Take a can from one bin and put it into a compartment of the other (robosuite's PickPlaceCan)."""

from __future__ import annotations

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import Array, ArraySpec, Observation
from flywheel.tasks._expert import Imperfection, Vector
from flywheel.tasks._pick_place import PlaceExpert
from flywheel.tasks.base import Task

BIN_FLOOR = 0.82
"""Metres, as robosuite builds its bins; their walls are 8 cm high."""
STANDING = 0.04
"""Metres from the floor to the centre of a can that stands."""
_CORNER, _SIDES = np.array([0.1, 0.28]), np.array([0.195, 0.245])
"""The can's compartment: its nearest corner and its sides along x and y, metres."""
_GOAL = np.array([*(_CORNER + 0.055), BIN_FLOOR + STANDING + 0.01])
"""Where the script lets go, (3,) metres: near the corner, because the middle is at the end of an arm's reach."""
_LET_GO = 0.042
"""Metres between can and hand: robosuite's criterion is 1 - tanh(10 d) < 0.6."""


class Can(Task):
    """Success: the can is in its compartment, below the walls' top, and the hand has left it: robosuite's own criterion."""

    name = "can"
    instruction = "put the can into its bin"
    skill = "place"
    horizon = 200
    world = "PickPlaceCan"
    objects = {  # noqa: RUF012
        "Can_pos": ArraySpec((3,), unit="m"),
        "Can_quat": ArraySpec((4,), unit="xyzw"),
        "Can_to_robot0_eef_pos": ArraySpec((3,), unit="m"),
        "Can_to_robot0_eef_quat": ArraySpec((4,), unit="xyzw"),
    }
    success_detector = "can-bin-v1"

    def success(self, observation: Observation) -> bool:
        """Whether the can is inside and let go."""
        place = observation["Can_pos"]
        inside = ((place[:2] > _CORNER) & (place[:2] < _CORNER + _SIDES)).all() and 0.8 < place[2] < 0.9
        return bool(inside and np.linalg.norm(place - observation["eef_pos"]) > _LET_GO)

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Grasp the can, carry it over the walls, lower it, let go, retreat; a missed grasp is not noticed."""
        flaws = Imperfection(grasp_offset=0.016, height_offset=0.005, action_noise=0.2, hasty=0.15, slowness=0.4)
        return CanExpert("can-expert", flaws.scaled(imperfection))


class CanExpert(PlaceExpert):
    """Grasps where it believes the can to be, and brings it to the nearest part of the compartment."""

    clearance = 0.2
    aim = 0.02

    def grasp(self, observation: Observation) -> Array:
        """The middle of the can."""
        return observation["Can_pos"]

    def apart(self, observation: Observation) -> Vector:
        """To just above where it stands."""
        return _GOAL - observation["Can_pos"]
