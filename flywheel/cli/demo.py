"""flywheel demo: the whole loop on this machine, from an imperfect script to a policy improved by its own episodes.

Every stage resumes by itself, so an interrupted demo goes on where it was when it is started again.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from flywheel.cli.console import console, parse_config, progress, say
from flywheel.cli.demo_report import Demo, tuned_runs, write_report
from flywheel.cli.evaluate import sentence
from flywheel.core.files import write_atomically
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.goals import Goals
from flywheel.rollout.results import Evaluation
from flywheel.rollout.rollout import EVALUATION_SEED
from flywheel.training import presets
from flywheel.training.train import TrainConfig, train

TASK = "lift"
_FIRST_SEED = EVALUATION_SEED + 4_000_000
"""The demo is evaluated on initial states that no setting of it was ever chosen on."""
_SCRIPT_EPISODES = 2.4
"""Episodes that the script is evaluated on, per episode of the others: its successes there are the goals to reach."""


@dataclass(frozen=True)
class DemoConfig:
    """The whole loop: collect, pretrain without rewards, finetune, evaluate, improve from its own episodes, report."""

    output: Path = Path("runs/demo")
    """Where everything goes; started again, the demo goes on from what is there."""
    robot: str = "sim"
    """The robot, by name."""
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that simulate at once."""
    episodes: int = 400
    """Episodes that the imperfect script collects."""
    own_episodes: int = 100
    """Episodes that the finetuned policy collects in each round, through the safety layer."""
    rounds: int = 2
    """Rounds of collecting its own episodes and finetuning on the grown store."""
    evaluation_episodes: int = 100
    """Episodes of each evaluation."""
    pretrain_updates: int = 3_000
    """Updates of Actionable Models, without rewards."""
    goal_bc_updates: int = 5_000
    """Updates of the baseline beside it, goal-conditioned behaviour cloning, which are cheaper."""
    offline_updates: int = 5_000
    """Updates of IQL on the script's episodes."""
    online_updates: int = 2_500
    """Updates of IQL after its own episodes have been added."""
    videos: int = 3
    """Episodes filmed of the script and of the final policy."""
    seed: int = 0
    """The seed of training."""


def run(arguments: list[str]) -> None:
    """Turn the flywheel once, and write the report."""
    config = parse_config(DemoConfig, arguments, "flywheel demo", __doc__)
    demo = _Run(config)
    with demo.wall():
        demo.turn()
    report = write_report(demo.result())
    say(f"\nThe report is {report}; open it in a browser. Its figures are in summary.json beside it.")


class _Run:
    """One demo's folder, its stages and their times."""

    def __init__(self, config: DemoConfig) -> None:
        self.config, self.folder = config, config.output
        self.evaluations: dict[str, Evaluation] = {}
        self.stages: dict[str, float] = self._load("stages.json")

    def turn(self) -> None:
        """All stages in their order; what does not depend on each other runs at once."""
        config = self.config
        with self._stage("collect"):
            self._collect("script", config.episodes, policy="expert", safe=False)
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            where, seed = self.store, {"seed": config.seed}
            pretrain = presets.pretrain(where, self.folder / "pretrain", config.pretrain_updates, **seed)
            goal_bc = presets.clone_goals(where, self.folder / "goal-bc", config.goal_bc_updates, **seed)
            pretrained, cloned = pool.submit(_timed_train, pretrain), pool.submit(_timed_train, goal_bc)
            with self._stage("evaluate the script"):
                episodes = round(_SCRIPT_EPISODES * config.evaluation_episodes)
                processes = max(1, config.processes - 2)
                self._evaluate("logging", "expert", episodes=episodes, processes=processes, videos=config.videos, keep_ends=True)
            self._await("pretrain", pretrained)
            self._await("goal-conditioned BC", cloned)
            offline = pool.submit(_timed_train, self._finetune("offline", "pretrain", config.offline_updates))
            with self._stage("evaluate goal reaching"):
                for name, run in (("pretrained", "pretrain"), ("goal_bc", "goal-bc")):
                    self._reach_goals(name, run)
            self._await("finetune offline", offline)
        with self._stage("evaluate offline"):
            self._evaluate("offline", str(self.folder / "offline"))
        for number, (before, after) in enumerate(itertools.pairwise(tuned_runs(config.rounds))):
            with self._stage("collect its own"):
                first_seed = config.episodes + number * config.own_episodes
                self._collect(before, config.own_episodes, policy=str(self.folder / before), first_seed=first_seed, explore=True)
            with self._stage("finetune online"), progress("Finetuning online", "updates") as report:
                train(self._finetune(after, before, config.online_updates, new_fraction=0.5), report)
        with self._stage("evaluate final"):
            self._evaluate("final", str(self.folder / tuned_runs(config.rounds)[-1]), videos=config.videos)

    def result(self) -> Demo:
        """What the report is made of."""
        return Demo(
            folder=self.folder,
            store=self.store,
            evaluations=self.evaluations,
            rounds=self.config.rounds,
            stages=self.stages,
            wall_seconds=self.stages["all"],
        )

    @cached_property
    def store(self) -> Path:
        """The growing store."""
        return self.folder / "store"

    @contextmanager
    def wall(self) -> Iterator[None]:
        """Adds up the wall time over interruptions."""
        with self._stage("all", quiet=True):
            yield

    def _collect(self, name: str, episodes: int, *, safe: bool = True, **settings: Any) -> None:
        config = CollectConfig(
            task=TASK,
            robot=self.config.robot,
            store=self.store,
            episodes=episodes,
            experiment=f"demo-{name}",
            processes=self.config.processes,
            safe=safe,
            **settings,
        )
        with progress("Collecting", "episodes") as report:
            result = collect(config, report)
        rows = [row for row in EpisodeStore.open(self.store).rows() if row.experiment_id == config.experiment]
        successes = sum(row.success for row in rows)
        say(f"  {len(rows)} episodes, {successes} of them successful, are in {result.dataset}")

    def _finetune(self, run: str, initial: str, updates: int, new_fraction: float = 0.0) -> TrainConfig:
        return presets.finetune(
            self.store, self.folder / run, TASK, self.folder / initial, updates, new_fraction, seed=self.config.seed
        )

    def _reach_goals(self, name: str, run: str) -> None:
        """Ask a policy for the ends of the script's successful evaluation episodes, each from where that episode began."""
        goals = self.folder / "evaluations" / "logging" / "ends.npz"
        known = len(Goals.load(goals))
        if known < self.config.evaluation_episodes:
            say(f"  The script reached only {known} goals in its evaluation, so that many are asked for.")
        self._evaluate(name, str(self.folder / run), episodes=min(self.config.evaluation_episodes, known), goals=goals)

    def _evaluate(self, name: str, policy: str, **settings: Any) -> None:
        defaults = {"episodes": self.config.evaluation_episodes, "processes": self.config.processes, "first_seed": _FIRST_SEED}
        config = EvaluateConfig(
            task=TASK,
            robot=self.config.robot,
            policy=policy,
            output=self.folder / "evaluations" / name,
            **{**defaults, **settings},
        )
        with progress(f"Evaluating {name}", "episodes") as report:
            self.evaluations[name] = evaluate(config, report)
        say(f"  {name}: {sentence(self.evaluations[name])}")

    def _await(self, stage: str, training: Future[float]) -> None:
        seconds = training.result()
        self._add(stage, seconds)
        console.print(f"  {stage}: done in {self.stages[stage]:.0f} s")

    @contextmanager
    def _stage(self, name: str, *, quiet: bool = False) -> Iterator[None]:
        if not quiet:
            console.print(f"[bold]{name}[/bold]")
        started = time.monotonic()
        try:
            yield
        finally:
            self._add(name, time.monotonic() - started)

    def _add(self, name: str, seconds: float) -> None:
        self.stages[name] = self.stages.get(name, 0.0) + seconds
        write_atomically(self.folder / "stages.json", json.dumps(self.stages, indent=1).encode())

    def _load(self, name: str) -> dict[str, float]:
        path = self.folder / name
        values: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        return values


def _timed_train(config: TrainConfig) -> float:
    """Train in a process of its own; returns the seconds it took."""
    started = time.monotonic()
    train(config)
    return time.monotonic() - started
