"""Lift the can from its bin, in the world of `can`."""

from __future__ import annotations

from flywheel.tasks._pick_place import LiftTask
from flywheel.tasks.can import BIN_FLOOR, STANDING, Can


class LiftCan(LiftTask):
    """Success: the can's centre is more than 4 cm above where it stands."""

    name = "lift_can"
    instruction = "lift the can"
    world = Can.world
    objects = Can.objects
    thing = "Can_pos"
    height = BIN_FLOOR + STANDING + 0.04
    success_detector = "lift-can-height-v1"
