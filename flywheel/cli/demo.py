"""flywheel demo: the whole loop on this machine, from an imperfect script to a policy improved by its own episodes.

Every stage resumes by itself, so an interrupted demo goes on where it was when it is started again.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.cli.background import in_background
from flywheel.cli.console import console, parse_config, progress, say
from flywheel.cli.demo_report import Demo, tuned_runs, write_report
from flywheel.cli.evaluate import sentence
from flywheel.cli.train import train_visibly
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.goals import Goals
from flywheel.rollout.results import Evaluation
from flywheel.rollout.rollout import EVALUATION_SEED
from flywheel.tasks.env import make_env
from flywheel.training import presets
from flywheel.training.train import TrainConfig

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
    _check(config)
    demo = _Run(config)
    with demo.wall():
        demo.turn()
    report = write_report(demo.result())
    say(f"\nThe report is {report}; open it in a browser. Its figures are in summary.json beside it.")


def _check(config: DemoConfig) -> None:
    """Refuse what no stage could do, before the first one writes anything."""
    make_env(TASK, config.robot)
    least = {"rounds": 0, "videos": 0, "seed": 0}
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, int) and value < least.get(item.name, 1):
            raise FlywheelError(f"The demo's {item.name} must be at least {least.get(item.name, 1)}, not {value}.")


class _Run:
    """One demo's folder, its stages and their times."""

    def __init__(self, config: DemoConfig) -> None:
        self.config, self.folder = config, config.output
        self.evaluations: dict[str, Evaluation] = {}
        self.stages: dict[str, float] = self._load("stages.json")

    def turn(self) -> None:
        """All stages in their order; what does not depend on each other runs at once."""
        with self._stage("collect"):
            self._collect("script", self.config.episodes, policy="expert", safe=False)
        self._pretrain()
        self._finetune_offline()
        for number, (before, after) in enumerate(itertools.pairwise(tuned_runs(self.config.rounds))):
            self._improve(number, before, after)
        with self._stage("evaluate final"):
            self._evaluate("final", str(self.folder / tuned_runs(self.config.rounds)[-1]), videos=self.config.videos)

    def _pretrain(self) -> None:
        """Actionable Models and the baseline beside it, while the script is evaluated."""
        config, seed = self.config, {"seed": self.config.seed}
        pretrain = presets.pretrain(self.store, self.folder / "pretrain", config.pretrain_updates, **seed)
        goal_bc = presets.clone_goals(self.store, self.folder / "goal-bc", config.goal_bc_updates, **seed)
        with self._beside("pretrain", pretrain), self._beside("goal-conditioned BC", goal_bc), self._stage("evaluate the script"):
            self._evaluate(
                "logging",
                "expert",
                episodes=round(_SCRIPT_EPISODES * config.evaluation_episodes),
                processes=max(1, config.processes - 2),
                videos=config.videos,
                keep_ends=True,
            )

    def _finetune_offline(self) -> None:
        """IQL on the script's episodes, while the pretrained policies are asked for goals."""
        offline = self._finetune("offline", "pretrain", self.config.offline_updates)
        with self._beside("finetune offline", offline), self._stage("evaluate goal reaching"):
            for name, run in (("pretrained", "pretrain"), ("goal_bc", "goal-bc")):
                self._reach_goals(name, run)
        with self._stage("evaluate offline"):
            self._evaluate("offline", str(self.folder / "offline"))

    def _improve(self, number: int, before: str, after: str) -> None:
        """One round: a policy collects, and is finetuned on the store that holds its episodes, too."""
        count = self.config.own_episodes
        with self._stage("collect its own"):
            first_seed = self.config.episodes + number * count
            self._collect(before, count, policy=str(self.folder / before), first_seed=first_seed, explore=True)
        with self._stage("finetune online"):
            config = self._finetune(after, before, self.config.online_updates, new_fraction=0.5)
            train_visibly(config, "Finetuning online")

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

    @contextmanager
    def _beside(self, stage: str, config: TrainConfig) -> Iterator[None]:
        """Trains in the background from here on, and waits for it at the end."""
        with in_background(stage, config) as training:
            console.print(f"  {stage}: {config.updates:,} updates in the background")
            yield
            with progress(f"  {stage}", "updates") as report:
                self._add(stage, training.wait(report))
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
        try:
            return {str(stage): float(seconds) for stage, seconds in json.loads(path.read_bytes()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):
            raise FlywheelError(f"{path} is damaged; delete it and start again: only the times until now are lost.") from None
