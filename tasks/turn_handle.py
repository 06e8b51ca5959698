"""Turn the door's handle until the latch is free, in the world of `door`."""

from __future__ import annotations

from flywheel.core.policy import Policy
from flywheel.core.specs import Observation
from flywheel.tasks._expert import Imperfection
from flywheel.tasks.base import Task
from flywheel.tasks.door import TURNED, Door, DoorExpert


class TurnHandle(Task):
    """Success: the handle is turned by more than 1 radian."""

    name = "turn_handle"
    instruction = "turn the door's handle"
    skill = "articulate"
    horizon = 100
    world = Door.world
    objects = Door.objects
    success_detector = "handle-turn-v1"

    def success(self, observation: Observation) -> bool:
        """Whether the handle is turned."""
        return bool(observation["handle_qpos"] > TURNED)

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Grasp the handle and press it down; a missed grasp is not noticed."""
        flaws = Imperfection(grasp_offset=0.06, height_offset=0.02, action_noise=0.3, hasty=0.2, slowness=0.5)
        return DoorExpert("turn-handle-expert", flaws.scaled(imperfection))
