"""Gymnasium-Robotics' Fetch tasks (Plappert et al. 2018): ``gymnasium_robotics:push`` and others.

A goal here is a place in space and no observation, so it is one of the observation's arrays, and the policy sees it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec
from flywheel.tasks._foreign import ForeignTask, GymEnv, import_benchmark

_PLACE = ArraySpec((3,), unit="m")
_TASKS = {
    "reach": ("FetchReach-v4", "bring the hand to the marked place", 10),
    "push": ("FetchPush-v4", "push the block to the marked place", 25),
    "slide": ("FetchSlide-v4", "hit the puck so that it slides to the marked place", 25),
    "pick-and-place": ("FetchPickAndPlace-v4", "bring the block to the marked place", 25),
}


class Fetch(ForeignTask):
    """Success: the hand (reach) or the object is within 5 cm of the place, which is Gymnasium-Robotics' verdict."""

    variants = tuple(_TASKS)
    world = ""
    objects: Mapping[str, ArraySpec] = {}
    horizon = 50
    packages = ("gymnasium-robotics",)
    success_detector = "gymnasium-robotics-info-is_success"
    success_key = "is_success"
    action = ActionSpec((-1.0,) * 4, (1.0,) * 4, "mocap", "delta", "world", (0.05, 0.05, 0.05, 1.0), 25.0)

    def __init__(self, task: str) -> None:
        """Choose the task: reach, push, slide or pick-and-place."""
        self.environment, self.instruction, length = _TASKS[task]
        self.name = f"gymnasium_robotics:{task}"
        self.skill = task
        arrays = {"observation": ArraySpec((length,)), "achieved_goal": _PLACE, "desired_goal": _PLACE}
        self.observation = ObservationSpec(arrays)
        super().__init__()

    def build(self) -> GymEnv:
        """The environment with the sparse reward, without the limit on steps, which is ours to keep."""
        gymnasium.register_envs(import_benchmark("gymnasium_robotics", "gymnasium-robotics"))
        return gymnasium.make(self.environment, disable_env_checker=True, render_mode="rgb_array").unwrapped

    def begin(self, simulation: GymEnv, seed: int) -> tuple[Array, Mapping[str, Any]]:
        """The environment's own reset; all it draws comes from its generator."""
        observation, info = simulation.reset(seed=seed)
        return observation, info

    def unpack(self, raw: Any) -> dict[str, Array]:
        """The three arrays."""
        return {key: np.asarray(raw[key], np.float32) for key in self.observation.arrays}
