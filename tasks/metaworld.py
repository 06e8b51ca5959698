"""Meta-World's fifty tasks on states (Yu et al. 2019; version 3): ``metaworld:reach`` and others, each with its scripted expert.

The goal is drawn anew with every seed and ends the observation, as in the benchmark's multi-task settings.
The reward is 1 at success and 0 before, as everywhere here; Meta-World's shaped one is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from flywheel.core.policy import Policy
from flywheel.core.specs import ActionSpec, Array, ArraySpec, Observation, ObservationSpec
from flywheel.tasks._foreign import ForeignTask, GymEnv, import_benchmark

_NAMES = """
assembly basketball bin-picking box-close button-press button-press-topdown button-press-topdown-wall button-press-wall
coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open door-unlock drawer-close
drawer-open faucet-close faucet-open hammer hand-insert handle-press handle-press-side handle-pull handle-pull-side
lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall plate-slide plate-slide-back
plate-slide-back-side plate-slide-side push push-back push-wall reach reach-wall shelf-place soccer stick-pull
stick-push sweep sweep-into window-close window-open
"""
NAMES = tuple(_NAMES.split())
_NOISE = 0.3
"""The standard deviation of what an expert of imperfection 1 adds to every action."""


class MetaWorld(ForeignTask):
    """Success is Meta-World's own, and ends the attempt."""

    variants = NAMES
    world = ""
    objects: Mapping[str, ArraySpec] = {}
    horizon = 500
    packages = ("metaworld",)
    success_detector = "metaworld-info-success"
    observation = ObservationSpec({"state": ArraySpec((39,))})
    """Hand, fingers and two objects, now and one step before, and the goal."""
    action = ActionSpec((-1.0,) * 4, (1.0,) * 4, "mocap", "delta", "world", (0.01, 0.01, 0.01, 1.0), 80.0)

    def __init__(self, task: str) -> None:
        """Choose the task, one of `NAMES`."""
        self.task = task
        self.name = f"metaworld:{task}"
        self.instruction = task.replace("-", " ")
        self.skill = task.split("-")[0]
        super().__init__()

    def build(self) -> GymEnv:
        """The environment whose observation holds the goal."""
        environments = import_benchmark("metaworld", "metaworld").ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        env = environments[f"{self.task}-v3-goal-observable"](seed=0, render_mode="rgb_array")
        env._freeze_rand_vec, env.seeded_rand_vec = (
            False,
            True,
        )  # a new goal at every reset, drawn from the environment's generator
        return env

    def begin(self, simulation: GymEnv, seed: int) -> tuple[Array, Mapping[str, Any]]:
        """Seed the generator, which Meta-World's own reset leaves as it is."""
        simulation.seed(seed)
        observation, info = simulation.reset()
        return observation, info

    def expert(self, imperfection: float = 1.0) -> Policy:
        """Meta-World's script for the task, with noise on its actions; raises `FlywheelError` without the metaworld package."""
        policies = import_benchmark("metaworld.policies", "metaworld")
        return MetaWorldExpert(
            f"metaworld-{self.task}-expert", policies.ENV_POLICY_MAP[f"{self.task}-v3"](), _NOISE * imperfection
        )


class MetaWorldExpert:
    """A script of Meta-World's behind our interface."""

    checkpoint = ""
    snapshot = ""

    def __init__(self, agent_id: str, script: Any, noise: float) -> None:
        """Take the script, and the standard deviation of the noise."""
        self.agent_id, self._script, self._noise = agent_id, script, noise
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start the episode's own stream of noise."""
        self._rng = np.random.default_rng([seed, 1])

    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """The script's action with noise, (4,) float32 in [-1, 1]; the goal is in the observation."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its own constants are too high
            action: Array = self._script.get_action(np.asarray(observation["state"], np.float64))
        action = action + self._noise * self._rng.normal(size=4)
        return np.asarray(np.clip(action, -1.0, 1.0), np.float32)
