"""Lift the red cube, in the world of `stack`."""

from __future__ import annotations

from flywheel.tasks._pick_place import LiftTask
from flywheel.tasks.lift import TABLE_HEIGHT
from flywheel.tasks.stack import Stack


class LiftRed(LiftTask):
    """Success: the centre of the red cube, of 4 cm, is more than 4 cm above the table; on the green cube it is, too."""

    name = "lift_red"
    instruction = "lift the red cube"
    world = Stack.world
    objects = Stack.objects
    thing = "cubeA_pos"
    height = TABLE_HEIGHT + 0.04
    success_detector = "lift-red-height-v1"
