"""Lift a cube from the table (robosuite's Lift)."""

from __future__ import annotations

from flywheel.core.policy import Policy
from flywheel.core.specs import ArraySpec, Observation
from flywheel.tasks._expert import CLOSE, OPEN, Imperfection, ScriptedExpert, Vector, fingers_closed, raised
from flywheel.tasks.base import Task

TABLE_HEIGHT = 0.8
"""Metres, as robosuite builds its table."""
LIFTED = 0.04
"""Metres above the table: robosuite's own criterion."""


class Lift(Task):
    """Success: the cube's centre is more than 4 cm above the table."""

    name = "lift"
    instruction = "lift the cube"
    horizon = 80
    world = "Lift"
    objects = {  # noqa: RUF012
        "cube_pos": ArraySpec((3,), unit="m"),
        "cube_quat": ArraySpec((4,), unit="xyzw"),
        "gripper_to_cube_pos": ArraySpec((3,), unit="m"),
    }
    success_detector = "lift-height-v1"

    def success(self, observation: Observation) -> bool:
        """Whether the cube is above the height."""
        return bool(observation["cube_pos"][2] > TABLE_HEIGHT + LIFTED)

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Move above, descend, close, lift; a missed grasp is not noticed."""
        flaws = Imperfection(grasp_offset=0.017, height_offset=0.006, action_noise=0.25, hasty=0.2, slowness=0.5)
        return LiftExpert("lift-expert", flaws.scaled(imperfection))


class LiftExpert(ScriptedExpert):
    """Grasps where it believes the cube to be."""

    def reset(self, seed: int) -> None:
        """Start with open fingers, above."""
        super().reset(seed)
        self._closing = self._lifting = False

    def plan(self, observation: Observation) -> tuple[Vector, float]:
        """Aim above the cube, at it, hold while the fingers close, then up."""
        if not self._closing:
            target, self._closing = self.approach(observation, "cube_pos")
            return target, CLOSE if self._closing else OPEN
        self._lifting |= fingers_closed(observation)
        return raised(observation["eef_pos"], 0.1 if self._lifting else 0.0), CLOSE
