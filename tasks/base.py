"""What a task is: a scene, a length, and success, all told from observations alone, so that it holds on hardware too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from flywheel.core import registry
from flywheel.core.policy import Policy
from flywheel.core.specs import ArraySpec, Observation
from flywheel.robots.base import Scene


class Task(ABC):
    """One thing to do. A subclass in a file of its own is all that a new task needs."""

    name: str
    """The file's name."""
    instruction: str
    """What one would tell a person."""
    horizon: int
    """The number of steps after which an attempt ends."""
    world: str
    """The scene's world, see `robots.base.Scene`."""
    objects: Mapping[str, ArraySpec]
    """The object observations that the task needs."""
    success_detector: str
    """The name and version of `success`, recorded beside every label that it gives."""

    @abstractmethod
    def success(self, observation: Observation) -> bool:
        """Whether the task is done."""

    def reward(self, observation: Observation) -> float:
        """1 when the task is done, else 0."""
        return float(self.success(observation))

    @abstractmethod
    def expert(self, imperfection: float = 1.0) -> Policy:
        """A script that does the task, imperfectly; at an imperfection of 0 it is careful and nearly always succeeds."""

    def scene(self, seed: int) -> Scene:
        """The initial state of one attempt."""
        return Scene(self.world, self.objects, seed)


def make_task(name: str) -> Task:
    """A task by name; raises `FlywheelError` with the nearest name when there is none."""
    return registry.load("tasks", name, Task)()  # type: ignore[type-abstract]
