"""One episode: a policy acts in an environment, and everything that happened is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import tyro

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.lineage import code_version, json_hash
from flywheel.core.policy import Policy
from flywheel.core.specs import Array, Observation
from flywheel.tasks.env import Env

EVALUATION_SEED = 10_000_000
LARGEST_SEED = 2**63 - 1
"""Seeds below are for collecting and training, seeds from here on for evaluating."""
TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
"""A task by name: on the command line the first word."""


def rollout(
    env: Env,
    policy: Policy,
    seed: int,
    *,
    goal: Observation | None = None,
    experiment: str = "",
    episode_id: str = "",
    frames: list[Array] | None = None,
    frame_size: tuple[int, int] = (256, 256),
) -> Episode:
    """Run one episode from the initial state of `seed`, to success, the horizon or a stop.

    A policy is given `goal`, or the goal that the task sets.
    The action recorded is the one that the robot executed. Pictures, (height, width, 3) uint8, are appended to `frames`
    where it is given, one per observation. Without an `episode_id`, a random one is made.
    """
    started_at_ns = time.time_ns()
    observation, info = env.reset(seed=seed)
    goal = info["goal"] if goal is None else goal
    policy.reset(seed)
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    _draw(env, frames, frame_size)
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = env.step(policy.act(observation, goal))
        observations.append(observation)
        actions.append(info["executed"])
        rewards.append(reward)
        _draw(env, frames, frame_size)
    facts: dict[str, Any] = {"episode_id": episode_id} if episode_id else {}
    metadata = EpisodeMetadata(
        agent_id=policy.agent_id,
        experiment_id=experiment,
        environment_config=_json(env.config),
        task=env.task.name,
        robot=env.robot.name,
        seed=seed,
        success=bool(info["success"]),
        success_detector=env.task.success_detector,
        policy_checkpoint=policy.checkpoint,
        policy_snapshot=policy.snapshot,
        code_version=code_version(),
        safety_events=_json([asdict(event) for event in env.safety_events]) if env.safety_events else "",
        controller=_json(env.robot.action_spec.to_json()),
        software=_json(env.robot.software),
        started_at_ns=started_at_ns,
        **facts,
    )
    return Episode.from_transitions(observations, actions, rewards, terminal=terminated, metadata=metadata)


def deterministic_id(
    experiment: str,
    task: str,
    robot: str,
    policy: str,
    seed: int,
    *,
    safe: bool = False,
    explore: bool = False,
    cameras: Mapping[str, tuple[int, int]] | None = None,
) -> str:
    """The id of the episode that these give: the same again after an interruption, so that it is stored once."""
    told = {"safe": safe, "explore": explore, "cameras": cameras}
    changed = {name: value for name, value in told.items() if value}  # ids from before they counted stay
    return json_hash({"experiment": experiment, "task": task, "robot": robot, "policy": policy, "seed": seed, **changed})


def _draw(env: Env, frames: list[Array] | None, size: tuple[int, int]) -> None:
    if frames is not None:
        frames.append(env.render(*size))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
