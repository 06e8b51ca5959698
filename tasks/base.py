"""What a task is: a scene, a length, and success, all told from observations alone, so that it holds on hardware too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.policy import Policy
from flywheel.core.specs import ArraySpec, Observation
from flywheel.robots.base import Robot, Scene, make_robot


class Task(ABC):
    """One thing to do. A subclass in a file of its own is all that a new task needs."""

    name: str
    """The file's name, with the variant after a colon where there is one."""
    variants: tuple[str, ...] = ()
    """What must stand after the colon of a name, as in ``ogbench:scene``; it is passed to the constructor."""
    instruction: str
    """What one would tell a person."""
    skill: str
    """The group of tasks that share episodes, as in MT-Opt (Kalashnikov et al. 2021), for example ``acquire`` or ``place``."""
    horizon: int
    """The number of steps after which an attempt ends."""
    world: str
    """The scene's world, see `robots.base.Scene`."""
    objects: Mapping[str, ArraySpec]
    """The object observations that the task needs."""
    success_detector: str
    """The name and version of `success`, recorded beside every label that it gives."""
    sets_goals: bool = False
    """Whether every attempt comes with a goal of its own, see `goal`."""

    @abstractmethod
    def success(self, observation: Observation) -> bool:
        """Whether the task is done, in any observation that `judges` accepts, whatever was tried in its episode."""

    def judges(self, keys: Collection[str]) -> bool:
        """Whether observations with these keys show the task's objects, so that `success` can be asked about them."""
        return all(key in keys for key in self.objects)

    def reward(self, observation: Observation) -> float:
        """1 when the task is done, else 0."""
        return float(self.success(observation))

    @abstractmethod
    def expert(self, imperfection: float = 1.0) -> Policy:
        """A script that does the task, imperfectly; at an imperfection of 0 it is careful and nearly always succeeds."""

    def scene(self, seed: int) -> Scene:
        """The initial state of one attempt."""
        return Scene(self.world, self.objects, seed)

    def robot(self, name: str, cameras: Mapping[str, tuple[int, int]] | None = None) -> Robot:
        """A robot by name in the task's scene, with cameras; raises `FlywheelError` for one that there is not."""
        return make_robot(name, replace(self.scene(0), cameras=cameras or {}))

    def goal(self) -> Observation | None:
        """The goal of the attempt that was begun last, where the task sets goals."""
        return None


def make_task(name: str) -> Task:
    """A task by name, with a variant after a colon where it has some; raises `FlywheelError` with the nearest name."""
    kind, _, variant = name.partition(":")
    cls: Any = registry.load("tasks", kind, Task)
    if variant not in (cls.variants or ("",)):
        raise FlywheelError(registry.unknown(f"variant of task {kind}", variant, cls.variants))
    task: Task = cls(variant) if variant else cls()
    return task
