"""From the word that a person writes to the policy that acts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.policy import Policy
from flywheel.core.specs import ActionSpec, Array, Observation, ObservationSpec
from flywheel.rollout.goals import Goals
from flywheel.tasks.env import Env, make_env

if TYPE_CHECKING:  # it imports torch
    from flywheel.policy import LearnedPolicy

SCRIPTED = ("expert", "random")


class RandomPolicy:
    """Uniform actions within the declared limits: the floor that any policy must beat."""

    agent_id = "random"
    checkpoint = ""
    snapshot = ""

    def __init__(self, action: ActionSpec) -> None:
        """Take the limits from the robot."""
        self._low, self._high = action.bounds
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start the episode's own random stream."""
        self._rng = np.random.default_rng([seed, 2])

    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """Any action, (A,) float32."""
        return self._rng.uniform(self._low, self._high).astype(np.float32)


def policy_name(source: str) -> str:
    """What identifies a policy source whatever its path: ``expert``, ``random``, or the checkpoint's hash."""
    if source in SCRIPTED:
        return source
    from flywheel.policy import LearnedPolicy

    return LearnedPolicy.load(_existing(source)).checkpoint


@contextmanager
def open_policy(source: str, env: Env, *, explore: bool = False) -> Iterator[Policy]:
    """The policy that a source names: ``expert``, ``random``, or the path of a trained policy; `explore` samples its actions.

    A learned policy acts with one thread, which is fastest for one observation and gives the same numbers in any process.
    Raises `FlywheelError` when there is no such policy, or when it was made for another robot or task.
    """
    if source == "expert":
        yield env.task.expert()
        return
    if source == "random":
        yield RandomPolicy(env.robot.action_spec)
        return
    import torch

    from flywheel.policy import LearnedPolicy

    policy = LearnedPolicy.load(_existing(source))
    policy.deterministic = not explore
    policy.choose_task(env.task.name)
    _check_observations(policy.observation_spec, env.robot.observation_spec, source)
    _check_actions(policy.action_spec.to_json(), env.robot.action_spec.to_json(), source)
    _tell_of_other_software(policy.header.software, env.robot.software, source)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield policy
    finally:
        torch.set_num_threads(threads)


def check_policy(source: str, env: Env) -> None:
    """Raise as `open_policy` does, before anything is written or started."""
    with open_policy(source, env):
        return


def env_for(
    source: str, task: str, robot: str, *, safe: bool = False, cameras: Mapping[str, tuple[int, int]] | None = None
) -> Env:
    """The environment for a policy: with the cameras that it sees beside those that are asked for.

    Raises `FlywheelError` for a camera that is asked for in another size than the policy sees.
    """
    env, asked = make_env(task, robot, safe=safe, cameras=cameras), dict(cameras or {})
    seen = {key: size for key, size in _pictures(source).items() if key not in env.robot.observation_spec.arrays or key in asked}
    for name, size in seen.items():
        if asked.get(name, size) != size:
            raise FlywheelError(
                f"The policy {source} sees the camera '{name}' in {size} pixels, not {asked[name]}; ask for that."
            )
    return make_env(task, robot, safe=safe, cameras=asked | seen) if seen else env


def _pictures(source: str) -> dict[str, tuple[int, int]]:
    """The (height, width) of the pictures that a policy sees."""
    if source in SCRIPTED:
        return {}
    from flywheel.policy import LearnedPolicy

    policy = LearnedPolicy.load(_existing(source))
    shapes = {key: policy.observation_spec.arrays[key].shape for key in policy.header.pictures}
    return {key: (height, width) for key, (height, width, _) in shapes.items()}


def _existing(source: str) -> Path:
    path = Path(source)
    if not path.exists():
        raise FlywheelError(f"There is no policy '{source}'; give {', '.join(SCRIPTED)}, or the path of a trained policy.")
    return path


def _check_observations(policy: ObservationSpec, robot: ObservationSpec, source: str) -> None:
    """What the robot observes beside what the policy sees does not matter."""
    for key, spec in policy.arrays.items():
        if (given := robot.arrays.get(key)) != spec:
            has = f"gives {given.dtype} {given.shape} {given.unit}".rstrip() if given else "does not give it"
            raise FlywheelError(
                f"The policy {source} was trained on other observations than this robot and task give: it sees '{key}' as "
                f"{spec.dtype} {spec.shape} {spec.unit}".rstrip()
                + f", and the robot {has}."
            )


def _check_actions(policy: dict[str, object], robot: dict[str, object], source: str) -> None:
    different = sorted(key for key in policy.keys() | robot.keys() if policy.get(key) != robot.get(key))
    if different:
        raise FlywheelError(
            f"The policy {source} was trained on other actions than this robot and task give: {different} differ."
        )


def _tell_of_other_software(known: Sequence[str], here: Mapping[str, str], source: str) -> None:
    """Pictures change with what draws them (MuJoCo 3.3.3 made LIBERO darker), and with them what a policy does."""
    before = [json.loads(software) for software in known]
    if not before or here in before:
        return
    last = before[-1]
    changed = sorted(name for name in here.keys() | last.keys() if here.get(name) != last.get(name))
    told = ", ".join(f"{name} {last.get(name, 'none')} then, {here.get(name, 'none')} now" for name in changed)
    warnings.warn(
        f"The policy {source} learned from pictures that something else drew ({told}), and may do worse here.", stacklevel=3
    )


def goal_camera(source: str) -> str:
    """The one camera that shows a policy its goals; raises `FlywheelError` where there is none, or several."""
    from flywheel.policy import LearnedPolicy

    shown = () if source in SCRIPTED else LearnedPolicy.load(_existing(source)).header.goal_pictures
    if len(shown) != 1:
        by = f"by the cameras {', '.join(shown)}" if shown else "by no camera"
        raise FlywheelError(
            f"The policy {source} is shown its goals {by}, not by one; give --goals FILE, an npz with all of them."
        )
    return shown[0]


def check_goals(source: str, *, goals: Goals | None, set_by_task: bool) -> None:
    """Raises `FlywheelError` for a policy that needs goals and has none, is given some and takes none, or cannot see these."""
    if source in SCRIPTED:
        return
    from flywheel.policy import LearnedPolicy

    policy = LearnedPolicy.load(_existing(source))
    if goals is not None and not policy.header.goal_conditioned:
        raise FlywheelError(f"The policy {source} takes no goals; leave --goals out.")
    if goals is not None:
        _check_goal(policy, goals.at(0), source)
    if not (goals or set_by_task) and policy.header.goal_conditioned and policy.goal is None:
        raise FlywheelError(f"The policy {source} reaches goals and was given none; pass goal observations (--goals FILE).")


def _check_goal(policy: LearnedPolicy, goal: Observation, source: str) -> None:
    for key, spec in policy.goal_spec.arrays.items():
        shape = goal[key].shape if key in goal else None
        if shape != spec.shape:
            given = f"is {shape} in the goals" if shape else "is missing in the goals"
            raise FlywheelError(f"'{key}' {given}, and the policy {source} sees it as {spec.shape}; give goals of that.")
        spec.validate(goal[key], f"'{key}' in the goals")
