"""The loop of `flywheel.online` with d3rlpy as the learner: the same data, updates, rounds and initial states, on our tasks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array, Observation
from flywheel.datasets.store import EpisodeStore
from flywheel.online import OnlineConfig
from flywheel.rollout.rollout import rollout
from flywheel.rollout.statistics import wilson
from flywheel.tasks.env import Env, make_env
from reproductions.progress import progress

_PEER = Path(__file__).with_name("peer_d3rlpy.py")


class Peer:
    """d3rlpy in a process of its own, as a policy that can be trained."""

    agent_id = "d3rlpy"
    checkpoint = ""
    snapshot = ""

    def __init__(self, process: subprocess.Popen[str], env: Env, reward_scale: float) -> None:
        self._process, self._spec, self._action = process, env.robot.observation_spec, env.robot.action_spec
        self._reward_scale = reward_scale
        self.explore = False

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; raises `FlywheelError` if the process has ended."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise FlywheelError("d3rlpy's process ended; run reproductions/peer_d3rlpy.py by hand to see why.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def reset(self, seed: int) -> None:
        """It draws from generators of its own."""

    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """The robot's action, (A,) float32, from one in [-1, 1]."""
        answer = self.ask(do="act", state=self._spec.pack_state(observation).tolist(), explore=self.explore)
        return self._action.denormalize(np.clip(np.array(answer["action"], np.float32), -1.0, 1.0))

    def learn_from(self, episodes: Sequence[Episode], path: Path, *, new: bool) -> None:
        """Give it episodes through a file."""
        np.savez(
            path,
            state=np.concatenate([self._spec.pack_state(e.observation)[: e.transitions] for e in episodes]),
            action=np.concatenate([self._action.normalize(e.action[: e.transitions]) for e in episodes]),
            reward=self._reward_scale * np.concatenate([e.reward[: e.transitions] for e in episodes]).astype(np.float32),
            length=np.array([e.transitions for e in episodes]),
            terminal=np.array([e.is_terminal[-1] for e in episodes]),
        )
        self.ask(do="episodes", path=str(path), new=new)


def improve(
    config: OnlineConfig,
    python: Path,
    algorithm: str,
    store: EpisodeStore,
    offline_updates: int,
    seed: int,
    ends: tuple[int, int],
    n_step: int = 1,
    reward_scale: float = 1.0,
) -> tuple[dict[str, Any], list[int], list[int]]:
    """The curve as `flywheel.online.Curve.to_json` has it, and successes and episodes of the first and the last policy.

    These two are measured on ``ends``: the first seed, and the number of episodes. Targets go over ``n_step`` steps, and
    rewards are multiplied by ``reward_scale``.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    with (
        make_env(config.task, config.robot) as env,
        make_env(config.task, config.robot, safe=config.safe) as safe,
        _peer(python, [algorithm, str(seed), str(n_step)], env, reward_scale) as peer,
    ):
        peer.learn_from(list(store.episodes()), config.output / "old.npz", new=False)
        peer.ask(do="train", updates=offline_updates)
        points, steps, updates, collected = [_point(config, env, peer, 0, 0, 0)], 0, 0, []
        first = _measure(env, peer, *ends)
        show = progress("episodes collected")
        for number in range(config.episodes // config.per_round):
            peer.explore = config.explore
            seeds = range(config.first_seed + number * config.per_round, config.first_seed + (number + 1) * config.per_round)
            episodes = [rollout(safe, peer, each) for each in seeds]
            peer.learn_from(episodes, config.output / "new.npz", new=True)
            own = sum(episode.transitions for episode in episodes)
            steps, due = steps + own, max(1, round(own * config.updates_per_step))
            peer.ask(do="train", updates=due)
            updates += due
            collected += [bool(episode.metadata.success) for episode in episodes]
            show(len(collected), config.episodes)
            if len(collected) % config.evaluate_every == 0 or len(collected) == config.episodes:
                points.append(_point(config, env, peer, len(collected), steps, updates))
        last = _measure(env, peer, *ends)
    dip = max(0.0, points[0]["success"] - min(point["success"] for point in points))
    return {"points": points, "dip": dip, "collected": collected}, first, last


def _point(config: OnlineConfig, env: Env, peer: Peer, episodes: int, steps: int, updates: int) -> dict[str, Any]:
    successes, count = _measure(env, peer, config.evaluation_seed, config.evaluation_episodes)
    found = {"successes": successes, "of": count, "success": successes / count, "ci95": list(wilson(successes, count))}
    return {"episodes": episodes, "steps": steps, "updates": updates, **found}


def _measure(env: Env, peer: Peer, first_seed: int, episodes: int) -> list[int]:
    peer.explore = False
    results = [rollout(env, peer, seed).metadata.success for seed in range(first_seed, first_seed + episodes)]
    return [sum(map(bool, results)), episodes]


@contextmanager
def _peer(python: Path, arguments: Sequence[str], env: Env, reward_scale: float) -> Iterator[Peer]:
    if not python.exists():
        raise FlywheelError(f"There is no {python}; make it with: make .venv-peers/.ready.")
    command = [str(python), str(_PEER), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Peer(process, env, reward_scale)
        assert process.stdin
        process.stdin.close()
