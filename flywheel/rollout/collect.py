"""Collecting: a policy acts, in parallel processes, and every finished episode is in the store at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flywheel.core.episode import EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.policies import check_policy, env_for, open_policy, policy_name
from flywheel.rollout.rollout import EVALUATION_SEED, TaskName, deterministic_id, rollout
from flywheel.rollout.workers import run_job
from flywheel.tasks.env import Env

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CollectConfig:
    """Collect episodes into a growing store."""

    task: TaskName
    """The task, by name."""
    robot: str = "sim"
    """The robot, by name; ``sim:UR5e`` chooses another simulated arm."""
    policy: str = "expert"
    """Who acts: ``expert``, ``random``, or the path of a trained policy."""
    store: Path = Path("data")
    """The folder of datasets."""
    dataset: str = ""
    """The dataset's name; ``<robot>_<task>`` where it is empty."""
    episodes: int = 200
    """How many episodes, of consecutive seeds."""
    first_seed: int = 0
    """The seed of the first episode; training seeds lie below 10,000,000."""
    experiment: str = "collect"
    """Recorded with every episode; the same seed in another experiment, or with other settings, is another episode."""
    processes: int = 4
    """How many episodes run at once."""
    safe: bool = False
    """Act through the safety layer."""
    explore: bool = False
    """Sample a trained policy's actions in place of its best ones."""
    cameras: tuple[str, ...] = ()
    """Simulated cameras to record, by name: agentview, frontview, sideview, birdview, eye_in_hand; those that a policy sees are
    recorded anyway."""
    picture_size: int = 84
    """The height and width of their pictures, in pixels."""

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """The cameras that are asked for, with their (height, width)."""
        return dict.fromkeys(self.cameras, (self.picture_size, self.picture_size))

    def env(self) -> Env:
        """Where the policy acts; raises `FlywheelError` where it cannot."""
        return env_for(self.policy, self.task, self.robot, safe=self.safe, cameras=self.sizes)


@dataclass(frozen=True)
class Collection:
    """What a collection did."""

    dataset: Path
    """The dataset's folder."""
    stored: int
    """Episodes stored now."""
    skipped: int
    """Episodes that an earlier run had stored already."""
    successes: int
    """Successes among those stored now."""
    steps: int
    """Actions taken now."""


def dataset_name(robot: str, task: str) -> str:
    """The name of the dataset that a robot and a task collect into, as TFDS allows it."""
    return re.sub(r"\W+", "_", f"{robot}_{task}").lower()


def collect(config: CollectConfig, on_progress: Progress = lambda done, total: None) -> Collection:
    """Collect `config.episodes` episodes; one that was interrupted goes on where it was when started again.

    Raises `FlywheelError` for evaluation seeds, for names that do not exist, and when a process dies; every episode
    counted by `on_progress` is in the store by then.
    """
    _check(config)
    check_policy(config.policy, config.env())
    store = _open_store(config)
    ids = episode_ids(config)
    stored = {row.episode_id for row in store.rows(deleted=True)}  # what was deleted is not made again
    missing = [seed for seed, name in ids.items() if name not in stored]
    skipped, successes, steps = len(ids) - len(missing), 0, 0
    on_progress(skipped, len(ids))
    with closing(run_job(CollectJob(config, policy_name(config.policy)), missing, config.processes)) as results:
        for done, (metadata, transitions) in enumerate(results, start=1):
            successes, steps = successes + metadata.success, steps + transitions
            on_progress(skipped + done, len(ids))
    return Collection(store.path, len(missing), skipped, successes, steps)


def episode_ids(config: CollectConfig) -> dict[int, str]:
    """The id of each seed's episode, stored or not; raises `FlywheelError` where there is no such policy."""
    policy = policy_name(config.policy)
    return {seed: _id(config, policy, seed) for seed in range(config.first_seed, config.first_seed + config.episodes)}


@dataclass(frozen=True)
class CollectJob:
    """What one process does: it appends through a writer of its own."""

    config: CollectConfig
    policy: str
    """The policy's identity, see `policy_name`."""

    @contextmanager
    def open(self) -> Iterator[Callable[[int], tuple[EpisodeMetadata, int]]]:
        """Yields the function that runs and stores the episode of a seed: its metadata and its number of actions."""
        config = self.config
        with (
            config.env() as env,
            open_policy(config.policy, env, explore=config.explore) as policy,
            _open_store(config).writer() as writer,
        ):

            def work(seed: int) -> tuple[EpisodeMetadata, int]:
                name = _id(config, self.policy, seed)
                episode = rollout(env, policy, seed, experiment=config.experiment, episode_id=name)
                writer.append(episode)
                return episode.metadata, episode.transitions

            yield work


def _check(config: CollectConfig) -> None:
    if config.episodes < 1:
        raise FlywheelError(f"A collection needs at least one episode, not {config.episodes}.")
    if config.processes < 1:
        raise FlywheelError(f"A collection needs at least one process, not {config.processes}.")
    if not 0 <= config.first_seed <= EVALUATION_SEED - config.episodes:
        raise FlywheelError(
            f"Seeds {config.first_seed} to {config.first_seed + config.episodes - 1} reach into those kept for evaluation; "
            f"training seeds lie from 0 to {EVALUATION_SEED - 1}."
        )


def _open_store(config: CollectConfig) -> EpisodeStore:
    robot = config.env().robot
    name = config.dataset or dataset_name(config.robot, config.task)
    return EpisodeStore.create(config.store, name, Schema(robot.observation_spec, robot.action_spec))


def _id(config: CollectConfig, policy: str, seed: int) -> str:
    return deterministic_id(
        config.experiment,
        config.task,
        config.robot,
        policy,
        seed,
        safe=config.safe,
        explore=config.explore,
        cameras=config.sizes,
    )
