"""Lift a cube from the table (robosuite's Lift)."""

from __future__ import annotations

from flywheel.core.specs import ArraySpec
from flywheel.tasks._pick_place import LiftTask

TABLE_HEIGHT = 0.8
"""Metres, as robosuite builds its table."""


class Lift(LiftTask):
    """Success: the cube's centre is more than 4 cm above the table, which is robosuite's own criterion."""

    name = "lift"
    instruction = "lift the cube"
    world = "Lift"
    objects = {  # noqa: RUF012
        "cube_pos": ArraySpec((3,), unit="m"),
        "cube_quat": ArraySpec((4,), unit="xyzw"),
        "gripper_to_cube_pos": ArraySpec((3,), unit="m"),
    }
    thing = "cube_pos"
    height = TABLE_HEIGHT + 0.04
    success_detector = "lift-height-v1"
