"""Lift the green cube, in the world of `stack`."""

from __future__ import annotations

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import Observation
from flywheel.tasks._expert import heading, nearest_turn
from flywheel.tasks._pick_place import LiftExpert, LiftTask
from flywheel.tasks.lift import TABLE_HEIGHT
from flywheel.tasks.stack import Stack


class LiftGreen(LiftTask):
    """Success: the centre of the green cube, of 5 cm, is more than 4.5 cm above the table."""

    name = "lift_green"
    instruction = "lift the green cube"
    world = Stack.world
    objects = Stack.objects
    thing = "cubeB_pos"
    height = TABLE_HEIGHT + 0.045
    success_detector = "lift-green-height-v1"

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Turn to the cube's sides, move above, descend, close, lift; a missed grasp is not noticed."""
        return GreenExpert(f"{self.name}-expert", self.flaws.scaled(imperfection), self.thing)


class GreenExpert(LiftExpert):
    """Minds the cube's heading: its diagonal is nearly as long as the fingers open."""

    def turn(self, observation: Observation) -> float:
        """To the nearest pair of sides."""
        return nearest_turn(heading(observation["cubeB_quat"]) - heading(observation["eef_quat"]), np.pi / 2)
