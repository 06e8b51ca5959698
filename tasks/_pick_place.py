"""Handling loose things: the task of lifting one, and the scripts that lift one and place one. Neither notices a missed grasp."""

from __future__ import annotations

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import Array, Observation
from flywheel.tasks._expert import CLOSE, GRIP, OPEN, Imperfection, ScriptedExpert, Vector, fingers_closed, fingers_open, raised
from flywheel.tasks.base import Task


class LiftTask(Task):
    """Success: the thing's centre is above a height. A subclass says which thing, in which world."""

    skill = "acquire"
    horizon = 80
    thing: str
    """The name of the observation that says where the thing is, (3,) metres."""
    height: float
    """Metres: lifted is what is higher."""
    flaws = Imperfection(grasp_offset=0.017, height_offset=0.006, action_noise=0.25, hasty=0.2, slowness=0.5)

    def success(self, observation: Observation) -> bool:
        """Whether the thing is above the height."""
        return bool(observation[self.thing][2] > self.height)

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Move above, descend, close, lift; a missed grasp is not noticed."""
        return LiftExpert(f"{self.name}-expert", self.flaws.scaled(imperfection), self.thing)


class LiftExpert(ScriptedExpert):
    """Grasps where it believes the thing to be, and lifts."""

    def __init__(self, agent_id: str, imperfection: Imperfection, thing: str) -> None:
        """Take the name of the observation that says where the thing is, (3,) metres."""
        self._thing = thing
        super().__init__(agent_id, imperfection)

    def reset(self, seed: int) -> None:
        """Start with open fingers, above."""
        super().reset(seed)
        self._closing = self._lifting = False

    def plan(self, observation: Observation) -> tuple[Vector, float]:
        """Aim above the thing, at it, hold while the fingers close, then up."""
        if not self._closing:
            target, self._closing = self.approach(observation, observation[self._thing])
            return target, CLOSE if self._closing else OPEN
        self._lifting |= fingers_closed(observation)
        return raised(observation["eef_pos"], 0.1 if self._lifting else 0.0), CLOSE


class PlaceExpert(ScriptedExpert):
    """Grasps where it believes the thing to be, and brings it to its goal as it sees them."""

    clearance = 0.05
    """Metres above its goal at which the thing is carried there."""
    aim = 0.01
    """Metres that the thing may be beside its goal when it is let go."""
    funnel = 0.3
    """Metres that it may be further aside per metre above."""

    def reset(self, seed: int) -> None:
        """Start with open fingers, above."""
        super().reset(seed)
        self.phase = "reach"

    def grasp(self, observation: Observation) -> Array:
        """Where to grasp the thing, (3,) metres."""
        raise NotImplementedError

    def hold(self, observation: Observation) -> Vector:
        """Where the hand is kept while the fingers close, (3,) metres."""
        return raised(observation["eef_pos"], 0.0)

    def apart(self, observation: Observation) -> Vector:
        """From where the thing is to where it should be let go, (3,) metres."""
        raise NotImplementedError

    def plan(self, observation: Observation) -> tuple[Vector, float]:
        """One phase after the other, each ended by what is seen."""
        hand = observation["eef_pos"]
        if self.phase == "reach":
            target, arrived = self.approach(observation, self.grasp(observation))
            self.phase = "close" if arrived else "reach"
            return target, CLOSE if arrived else OPEN
        if self.phase == "close" and fingers_closed(observation):
            self.phase = "carry"
        if self.phase == "close":
            return self.hold(observation), CLOSE
        if self.phase == "carry":
            return self._carry(observation)
        return raised(hand, 0.1 if fingers_open(observation) > GRIP else 0.0), OPEN

    def _carry(self, observation: Observation) -> tuple[Vector, float]:
        hand, apart = observation["eef_pos"], self.apart(observation)
        aside, above = float(np.hypot(*apart[:2])), float(-apart[2])
        if aside > self.aim + self.funnel * max(0.0, above) or abs(self.turn(observation)) > _ALIGNED:
            sideways = apart[:2] if above > self.clearance - _LOWEST else (0.0, 0.0)
            return hand + np.array([*sideways, self.clearance - above]), CLOSE
        if above < _LET_GO:
            self.phase = "release"
            return raised(hand, 0.0), OPEN
        return hand + apart, CLOSE


_LOWEST = 0.05
"""Metres below the height for carrying at which a thing may already move sideways."""
_LET_GO = 0.004
"""Metres above its goal at which a thing is let go."""
_ALIGNED = 0.1
"""Radians that the thing may be turned when it is lowered."""
