"""Collecting for several tasks: which one comes next is decided from what the store holds.

MT-Opt collects for the tasks that have the fewest successes (Kalashnikov et al. 2021, section 5). Here the task with the fewest
successes is next, and now and then one that is drawn at random: a task that nobody can do yet would otherwise take every turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import IndexRow
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, Collection, Progress, collect
from flywheel.tasks.env import make_env


@dataclass(frozen=True)
class ScheduleConfig:
    """Collect episodes of several tasks into one growing store."""

    tasks: tuple[str, ...]
    """The tasks, by name; their observations must be the same."""
    dataset: str
    """The dataset's name."""
    robot: str = "sim"
    """The robot, by name; ``sim:UR5e`` chooses another simulated arm."""
    policy: str = "expert"
    """Who acts: each task's ``expert``, ``random``, or the path of a policy trained on these tasks."""
    store: Path = Path("data")
    """The folder of datasets."""
    episodes: int = 200
    """How many episodes, of all tasks together."""
    turn: int = 10
    """Episodes of the same task until the next is chosen."""
    exploration: float = 0.2
    """The share of turns that go to any task at random."""
    seed: int = 0
    """With what the store holds it decides which turns these are."""
    first_seed: int = 0
    """The seed of each task's first episode; each goes on behind the last one of its experiment."""
    experiment: str = "collect"
    """Recorded with every episode."""
    processes: int = 4
    """How many episodes run at once."""
    safe: bool = False
    """Act through the safety layer."""
    explore: bool = False
    """Sample a trained policy's actions in place of its best ones."""


class Count(NamedTuple):
    """What a store holds of a task."""

    episodes: int
    successes: int


class Turn(NamedTuple):
    """What is collected next, and why."""

    task: str
    reason: str


@dataclass
class Scheduled:
    """What a collection for several tasks did."""

    turns: list[Turn] = field(default_factory=list)
    collections: list[Collection] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """Episodes stored now."""
        return sum(collection.stored for collection in self.collections)


def next_turn(counts: dict[str, Count], exploration: float, seed: int) -> Turn:
    """The task with the fewest successes, among equals that with the fewest episodes, then the first; or any, at random.

    A pure function of its arguments: a turn that was interrupted is decided again, from what is stored by then.
    """
    rng = np.random.default_rng([seed, *(number for count in counts.values() for number in count)])
    if rng.random() < exploration:
        return Turn(list(counts)[int(rng.integers(len(counts)))], "drawn at random")
    task = min(counts, key=lambda name: (counts[name].successes, counts[name].episodes))
    others = ", ".join(f"{name} {count.successes}" for name, count in counts.items() if name != task)
    return Turn(task, f"fewest successes: {counts[task].successes} of {counts[task].episodes} episodes; {others}")


def count(rows: Sequence[IndexRow], tasks: Sequence[str]) -> dict[str, Count]:
    """The valid episodes of each task, and the successes among them."""
    valid = [row for row in rows if not (row.invalid or row.deleted)]
    return {
        task: Count(sum(row.task == task for row in valid), sum(row.task == task and row.success for row in valid))
        for task in tasks
    }


def collect_tasks(
    config: ScheduleConfig,
    on_turn: Callable[[Turn], None] = lambda turn: None,
    on_progress: Progress = lambda done, total: None,
) -> Scheduled:
    """Collect `config.episodes` more episodes, turn by turn.

    Raises `FlywheelError` for settings that make no sense, for tasks whose observations differ, and as `collect` does.
    """
    _check(config)
    done = Scheduled()
    while done.stored < config.episodes:
        rows = _rows(config)
        turn = next_turn(count(rows, config.tasks), config.exploration, config.seed)
        on_turn(turn)
        episodes, before = min(config.turn, config.episodes - done.stored), done.stored
        one = _one(config, turn.task, episodes, _next_seed(config, rows, turn.task))
        done.turns.append(turn)
        done.collections.append(collect(one, lambda now, _, before=before: on_progress(before + now, config.episodes)))  # type: ignore[misc]
    return done


def _check(config: ScheduleConfig) -> None:
    if len(set(config.tasks)) < max(len(config.tasks), 2):
        raise FlywheelError("Name at least two tasks, each once; for one there is 'flywheel collect TASK'.")
    if min(config.episodes, config.turn) < 1 or not 0.0 <= config.exploration <= 1.0 or config.seed < 0:
        raise FlywheelError("episodes and turn must be at least 1, exploration within [0, 1], and the seed at least 0.")
    first, *others = ((task, make_env(task, config.robot).robot.observation_spec) for task in config.tasks)
    for task, spec in others:
        if spec != first[1]:
            raise FlywheelError(f"{first[0]} and {task} are observed differently and need datasets of their own; leave one out.")


def _rows(config: ScheduleConfig) -> list[IndexRow]:
    """What the store holds, with what was deleted: its seeds are used."""
    try:
        return EpisodeStore.open(config.store / config.dataset).rows(deleted=True)
    except FlywheelError:
        return []  # the first turn creates it, and says what is wrong with it


def _next_seed(config: ScheduleConfig, rows: Sequence[IndexRow], task: str) -> int:
    seeds = [row.seed for row in rows if (row.task, row.experiment_id) == (task, config.experiment)]
    return max([config.first_seed - 1, *seeds]) + 1


def _one(config: ScheduleConfig, task: str, episodes: int, first_seed: int) -> CollectConfig:
    return CollectConfig(
        task,
        config.robot,
        config.policy,
        config.store,
        config.dataset,
        episodes,
        first_seed,
        config.experiment,
        min(config.processes, episodes),
        config.safe,
        config.explore,
    )
