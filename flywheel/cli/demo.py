"""flywheel demo: the whole loop on this machine, from an imperfect script to a policy improved by its own episodes.

Every stage resumes by itself, so an interrupted demo goes on where it was when it is started again.
"""

from __future__ import annotations

import io
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

import numpy as np

from flywheel.cli.console import console, parse_config, progress
from flywheel.cli.demo_report import Demo, write_report
from flywheel.cli.evaluate import sentence
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, Evaluation, evaluate
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train

TASK = "lift"
HELD_OUT_SEED = 5_000_000
"""Where the held-out episodes begin whose ends are the goals to reach; no store that is trained on holds them."""
HELD_OUT_EPISODES = 40


@dataclass(frozen=True)
class DemoConfig:
    """The whole loop: collect, pretrain without rewards, finetune, evaluate, improve from its own episodes, report."""

    output: Path = Path("runs/demo")
    """Where everything goes; started again, the demo goes on from what is there."""
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that simulate at once."""
    episodes: int = 200
    """Episodes that the imperfect script collects."""
    own_episodes: int = 60
    """Episodes that the finetuned policy collects, through the safety layer."""
    evaluation_episodes: int = 100
    """Episodes of each evaluation."""
    pretrain_updates: int = 6_000
    """Updates of Actionable Models, and of the goal-conditioned behaviour cloning beside it."""
    offline_updates: int = 3_000
    """Updates of IQL on the script's episodes."""
    online_updates: int = 2_000
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
    console.print(
        f"\nThe report is [bold]{report}[/bold]; open it in a browser. The figures are in {report.with_name('summary.json')}."
    )


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
            self._collect("expert", "script", config.episodes)
        with self._stage("held-out goals"):
            self._hold_out()
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            pretrained = pool.submit(_timed_train, self._train("pretrain", "actionable_models", config.pretrain_updates))
            cloned = pool.submit(
                _timed_train, self._train("goal-bc", "bc", config.pretrain_updates, data=DataConfig(relabel="hindsight"))
            )
            with self._stage("evaluate the script"):
                self._evaluate("logging", "expert", processes=max(1, config.processes - 2), videos=config.videos)
            self._await("pretrain", pretrained)
            self._await("goal-conditioned BC", cloned)
            offline = pool.submit(_timed_train, self._finetune("offline", "pretrain", config.offline_updates))
            with self._stage("evaluate goal reaching"):
                for name, source in (("pretrained", "pretrain"), ("goal_bc", "goal-bc")):
                    self._evaluate(name, str(self.folder / source), goals=self.folder / "goals.npz")
            self._await("finetune offline", offline)
        with self._stage("evaluate offline"):
            self._evaluate("offline", str(self.folder / "offline"))
        with self._stage("collect its own"):
            self._collect(str(self.folder / "offline"), "own", config.own_episodes, safe=True, explore=True)
        with self._stage("finetune online"), progress("Finetuning online", "updates") as report:
            train(self._finetune("online", "offline", config.online_updates, new_fraction=0.5), report)
        with self._stage("evaluate final"):
            self._evaluate("final", str(self.folder / "online"), videos=config.videos)

    def result(self) -> Demo:
        """What the report is made of."""
        return Demo(
            folder=self.folder,
            store=self.store,
            evaluations=self.evaluations,
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

    def _collect(self, policy: str, experiment: str, episodes: int, *, safe: bool = False, explore: bool = False) -> None:
        config = CollectConfig(
            task=TASK,
            policy=policy,
            store=self.store,
            episodes=episodes,
            experiment=f"demo-{experiment}",
            processes=self.config.processes,
            safe=safe,
            explore=explore,
            first_seed=0 if experiment == "script" else self.config.episodes,
        )
        with progress("Collecting", "episodes") as report:
            result = collect(config, report)
        rows = [row for row in EpisodeStore.open(self.store).rows() if row.experiment_id == config.experiment]
        successes = sum(row.success for row in rows)
        console.print(f"  {len(rows)} episodes of '{policy}' are in {result.dataset}, {successes} of them successful")

    def _hold_out(self) -> None:
        """Goals to reach: the last observations of successful episodes that nothing is trained on."""
        path = self.folder / "goals.npz"
        if path.exists():
            return
        config = CollectConfig(
            task=TASK,
            store=self.folder / "held-out",
            episodes=HELD_OUT_EPISODES,
            first_seed=HELD_OUT_SEED,
            experiment="demo-held-out",
            processes=self.config.processes,
        )
        with progress("Collecting held-out episodes", "episodes") as report:
            collect(config, report)
        store = EpisodeStore.open(config.store)
        ends = [episode.observation for episode in store.episodes() if episode.metadata.success]
        if not ends:
            raise FlywheelError("No held-out episode succeeded, so there are no goals to reach; run the demo with more episodes.")
        buffer = io.BytesIO()
        np.savez(buffer, **{key: np.stack([end[key][-1] for end in ends]) for key in ends[0]})
        write_atomically(path, buffer.getvalue())

    def _train(self, run: str, name: str, updates: int, **settings: Any) -> TrainConfig:
        return TrainConfig(
            name=name,
            algorithm=algorithm_class(name).Config(),
            store=self.store,
            output=self.folder / run,
            updates=updates,
            seed=self.config.seed,
            **settings,
        )

    def _finetune(self, run: str, initial: str, updates: int, new_fraction: float = 0.0) -> TrainConfig:
        data = DataConfig(task=TASK, relabel="task_goal", new_fraction=new_fraction)
        return self._train(run, "iql", updates, data=data, initial=self.folder / initial)

    def _evaluate(self, name: str, policy: str, *, processes: int = 0, goals: Path | None = None, videos: int = 0) -> None:
        config = EvaluateConfig(
            task=TASK,
            policy=policy,
            output=self.folder / "evaluations" / name,
            episodes=self.config.evaluation_episodes,
            goals=goals,
            processes=processes or self.config.processes,
            videos=videos,
        )
        with progress(f"Evaluating {name}", "episodes") as report:
            self.evaluations[name] = evaluate(config, report)
        console.print(f"  {name}: {sentence(self.evaluations[name])}")

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
