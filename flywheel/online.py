"""Offline to online: a policy collects, is finetuned on the store that holds its episodes, and collects again.

Each round is an ordinary training run that goes on where the last one ended, optimizer included, with half of each batch from
episodes that the initial run has not seen and half from those that it has (symmetric sampling: RLPD, Ball et al. 2023, section
4.1). Unseen are this loop's episodes and what else of the task has come into the store since; a loop that is to learn from its
own alone needs a copy of the store. Learning rates have no schedule anywhere. What is killed goes on when it is started again.
Each round's training is bit-identical then; a whole loop is not, as the times in its episodes' records enter the order of draws.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.index import IndexRow
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.report.learning import Line, learning_curve
from flywheel.rollout.collect import CollectConfig, collect, episode_ids
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.policies import check_goals, check_policy, env_for
from flywheel.rollout.results import Evaluation
from flywheel.rollout.rollout import EVALUATION_SEED, TaskName
from flywheel.training.checks import finished_updates
from flywheel.training.train import TrainConfig, load_config, train

Report = Callable[[int, int], None]


class Watch(Protocol):
    """What shows a stage's progress: called with the stage's name and what it counts."""

    def __call__(self, title: str, unit: str) -> AbstractContextManager[Report]:
        """Yields the callback that takes (done, total)."""


def unwatched(title: str, unit: str) -> AbstractContextManager[Report]:
    """Nobody looks."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class OnlineConfig:
    """Improve a policy by its own episodes."""

    task: TaskName
    """The task, by name."""
    initial: Path
    """The run folder to start from, whose algorithm, settings and weights go on."""
    output: Path
    """Where the rounds, the evaluations and the curve go; started again, the loop goes on from what is there."""
    robot: str = "sim"
    """The robot, by name."""
    episodes: int = 100
    """Episodes that the policy collects in all."""
    per_round: int = 10
    """Episodes between two rounds of training."""
    updates_per_step: float = 1.0
    """Gradient updates per action taken: the update-to-data ratio."""
    new_fraction: float = 0.5
    """The share of each batch from episodes that the initial run has not seen; the others are the old ones."""
    explore: bool = True
    """Collect with sampled actions in place of the best ones."""
    safe: bool = True
    """Collect through the safety layer."""
    first_seed: int = 5_000_000
    """The seed of the first episode."""
    evaluate_every: int = 20
    """Episodes between two evaluations; the first comes before any, the last at the end. A multiple of per-round."""
    evaluation_episodes: int = 50
    """Episodes of each evaluation; they teach nothing."""
    evaluation_seed: int = EVALUATION_SEED
    """The seed of an evaluation's first episode."""
    processes: int = 1
    """How many episodes run at once."""

    def __post_init__(self) -> None:
        counts = (self.episodes, self.per_round, self.evaluate_every, self.evaluation_episodes, self.processes)
        if min(counts) < 1 or self.episodes % self.per_round or self.evaluate_every % self.per_round:
            raise FlywheelError(
                "episodes, per-round, evaluate-every, evaluation-episodes and processes must be at least 1, and episodes and "
                "evaluate-every multiples of per-round."
            )
        if not 0.0 < self.updates_per_step < math.inf or not 0.0 <= self.new_fraction <= 1.0:
            raise FlywheelError("updates-per-step must be above 0, and new-fraction in [0, 1].")
        if not 0 <= self.first_seed <= EVALUATION_SEED - self.episodes or self.evaluation_seed < EVALUATION_SEED:
            raise FlywheelError(f"Seeds to learn from lie from 0 to {EVALUATION_SEED - 1}, those of evaluations from there on.")


@dataclass(frozen=True)
class Point:
    """What an evaluation found after so many episodes."""

    episodes: int
    """Episodes collected by then."""
    steps: int
    """Actions taken in them."""
    updates: int
    """Updates that the policy has had since the initial run."""
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Without the evaluation's single episodes, which lie in its own folder."""
        found = self.evaluation
        return {
            "episodes": self.episodes,
            "steps": self.steps,
            "updates": self.updates,
            "successes": found.successes,
            "of": len(found.results),
            "success": found.success,
            "ci95": list(found.ci95),
        }


@dataclass(frozen=True)
class Curve:
    """How the policy fared."""

    points: tuple[Point, ...]
    """The first is the initial policy's."""
    collected: tuple[bool, ...]
    """The success of each collected episode, in the order of their seeds."""
    policy: Path
    """The run folder of the last policy."""

    @property
    def dip(self) -> float:
        """How far the success fell below the initial policy's at worst, at least 0."""
        return max(0.0, self.points[0].evaluation.success - min(point.evaluation.success for point in self.points))

    def to_json(self) -> dict[str, Any]:
        """Points, dip and the collected episodes' successes."""
        return {"points": [point.to_json() for point in self.points], "dip": self.dip, "collected": list(self.collected)}


def improve(config: OnlineConfig, watch: Watch = unwatched) -> Curve:
    """All rounds and evaluations; writes curve.json and curve.svg into the output folder.

    Raises `FlywheelError` for an initial run that has no task's rewards to go on with, and for an output folder that holds
    another loop.
    """
    loop = _Loop(config, watch)
    points = tuple(loop.points())
    curve = Curve(points, tuple(row.success for row in loop.collected), loop.policy)
    write_atomically(config.output / "curve.json", json.dumps(curve.to_json(), indent=1).encode())
    line = Line(
        config.initial.name, [(point.episodes, point.evaluation.success, *point.evaluation.ci95) for point in curve.points]
    )
    write_atomically(config.output / "curve.svg", learning_curve([line], f"Success at {config.task}").encode())
    return curve


class _Loop:
    """One loop's folder and store."""

    def __init__(self, config: OnlineConfig, watch: Watch) -> None:
        self.config, self.watch = config, watch
        self.base = _base(config)
        self.store = EpisodeStore.open(self.base.store)
        self.began = LearnedPolicy.load(config.initial)
        self.experiment = f"online-{self.began.checkpoint[:8]}"
        self.collected: list[IndexRow] = []
        self.policy = config.initial
        _check_acts(config)
        _claim(config)

    def points(self) -> Iterator[Point]:
        """Collect, train and evaluate in turn."""
        config, steps, before = self.config, 0, self.began.header.updates
        updates = before
        yield Point(0, 0, 0, self._evaluate(0))
        for number in range(1, config.episodes // config.per_round + 1):
            rows = self._collect(number)
            self.collected += rows
            own = sum(row.length for row in rows)
            steps, updates = steps + own, self._updates(number, updates + max(1, round(own * config.updates_per_step)))
            self.policy = self._train(number, updates)
            collected = number * config.per_round
            if collected % config.evaluate_every == 0 or collected == config.episodes:
                yield Point(collected, steps, updates - before, self._evaluate(collected))

    def _collect(self, number: int) -> list[IndexRow]:
        """The round's episodes in the order of their seeds, also those that somebody has deleted since: they were collected."""
        config = self.config
        collection = CollectConfig(
            task=config.task,
            robot=config.robot,
            policy=str(self.policy),
            store=self.store.path.parents[1],
            dataset=self.store.name,
            episodes=config.per_round,
            first_seed=config.first_seed + (number - 1) * config.per_round,
            experiment=self.experiment,
            processes=config.processes,
            safe=config.safe,
            explore=config.explore,
        )
        with self.watch(f"Round {number}: collecting", "episodes") as report:
            collect(collection, report)
        rows = {row.episode_id: row for row in self.store.rows(deleted=True)}
        return [rows[name] for name in episode_ids(collection).values()]

    def _run(self, number: int) -> Path:
        return self.config.output / f"round-{number:03d}"

    def _updates(self, number: int, due: int) -> int:
        """All that there are after this round; one that has begun keeps its number, also where episodes were trimmed since."""
        begun = self._run(number) / "config.yaml"
        return load_config(begun).updates if begun.exists() else due

    def _train(self, number: int, updates: int) -> Path:
        run = self._run(number)
        data = replace(self.base.data, new_fraction=self.config.new_fraction, old=self.config.initial)
        with self.watch(f"Round {number}: finetuning", "updates") as report:
            train(replace(self.base, output=run, updates=updates, data=data, initial=self.policy, go_on=True), report)
        return run

    def _evaluate(self, collected: int) -> Evaluation:
        config = self.config
        evaluation = EvaluateConfig(
            task=config.task,
            robot=config.robot,
            policy=str(self.policy),
            output=config.output / "evaluations" / f"after-{collected:04d}",
            episodes=config.evaluation_episodes,
            first_seed=config.evaluation_seed,
            processes=config.processes,
        )
        with self.watch(f"Evaluating after {collected} episodes", "episodes") as report:
            return evaluate(evaluation, report)


def _base(config: OnlineConfig) -> TrainConfig:
    """The settings of the run that goes on."""
    base = load_config(config.initial / "config.yaml")
    if base.data.task != config.task:
        learned = f"learned {base.data.task}" if base.data.task else "did not learn one task's rewards"
        raise FlywheelError(
            f"{config.initial} {learned}, so it cannot go on online with {config.task}; finetune it offline first."
        )
    data = base.data
    if config.new_fraction and (data.where or data.shares or data.balance != "transitions"):
        raise FlywheelError(
            f"{config.initial} chose itself what it draws (where, balance or shares), which may leave own episodes out; finetune "
            "it offline without them first, or set --new-fraction 0."
        )
    return base


def _check_acts(config: OnlineConfig) -> None:
    """Refuse a robot or a goal that the policy is not made for, or half a run, while the folder is still free for another try."""
    finished_updates(config.initial)
    env = env_for(str(config.initial), config.task, config.robot)
    check_policy(str(config.initial), env)
    check_goals(str(config.initial), goals=None, set_by_task=env.task.sets_goals)


def _claim(config: OnlineConfig) -> None:
    """Refuse a folder of another loop, before anything is collected."""
    path = config.output / "online.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        configs.save(config, path)
        return
    held, asked = configs.load_dict(path), configs.to_dict(config)
    different = sorted(key for key in asked if key not in ("processes", "output") and asked[key] != held.get(key))
    if different:
        raise FlywheelError(f"{config.output} holds a loop with other settings ({', '.join(different)}); give another --output.")
