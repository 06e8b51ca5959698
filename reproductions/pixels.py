"""Lift and Can from two 84 x 84 cameras and the arm's own joints, without any object's state: imitation, and goals as pictures.

    python -m reproductions.pixels                 every row that has no result yet, then the table
    python -m reproductions.pixels lift-bc can-bc  these alone
    python -m reproductions.pixels --quick         minutes, to see that it works
    python -m reproductions.pixels --show          the table of what is checked in

`bc` imitates the successes among the first 200 imperfect episodes; it is evaluated on the task. `bc-judged` does, too, where a
detector that learned from the other 200 says which those are. The others learn from all 400 without rewards to reach what a
picture shows; they are shown the last picture of a scripted success from the same initial state, and have reached it when the
task is done. The last update is evaluated, on initial states that nothing was trained on. What is done already is not done again.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from flywheel.algorithms.base import AlgorithmConfig
from flywheel.bench.machine import describe
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.datasets.relabel import ActionableGoals
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.labelling.verdicts import label_episodes
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.goals import Goals
from flywheel.rollout.statistics import wilson
from flywheel.tasks.base import make_task
from flywheel.training.detector import DetectorConfig, train_detector
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from reproductions.kept import command, keep, read, read_all
from reproductions.progress import progress

RESULTS = Path(__file__).parent / "results" / "pixels"
"""The results that are checked in."""
LOGGED, IMITATED, SCRIPTED = 400, 200, 220
CAMERAS = ("agentview", "eye_in_hand")
GOAL_CAMERA = "agentview"


@dataclass(frozen=True)
class Row:
    """One run."""

    task: str
    algorithm: str
    settings: dict[str, Any]
    updates: int
    logged: int = LOGGED
    """Episodes in the store."""
    has_goals: bool = False
    """Whether it is shown what to reach, and learns from all episodes; it imitates the successes of the first 200 otherwise."""
    is_judged: bool = False
    """Whether a detector says which those are."""

    @property
    def config(self) -> AlgorithmConfig:
        """The algorithm's."""
        return algorithm_class(self.algorithm).Config(**self.settings)

    def data(self, imitated: int) -> DataConfig:
        """What it sees and learns from; what only a simulator knows is hidden."""
        data = DataConfig(batch_size=128, pictures=CAMERAS, hide=tuple(make_task(self.task).objects))
        if not self.has_goals:
            return replace(data, where=f"seed < {imitated} and success")
        data = replace(data, goal_pictures=(GOAL_CAMERA,))
        is_actionable = self.algorithm == "actionable_models"
        return replace(data, relabel="actionable", actionable=ActionableGoals(p_chained=0.2)) if is_actionable else data


_ACTIONABLE = {"learning_rate": 3e-4, "actor_dropout": 0.1, "average_rate": 0.002}
ROWS = {
    "lift-bc": Row("lift", "bc", {}, 8_000),
    "lift-bc-judged": Row("lift", "bc", {}, 8_000, is_judged=True),
    "lift-gcbc": Row("lift", "gcbc", {"hidden": (256, 256)}, 5_000, has_goals=True),
    "lift-gciql": Row("lift", "gciql", {"hidden": (256, 256)}, 5_000, has_goals=True),
    "lift-gciql-alpha-1": Row("lift", "gciql", {"hidden": (256, 256), "alpha": 1.0}, 5_000, has_goals=True),
    "lift-actionable_models": Row("lift", "actionable_models", _ACTIONABLE, 5_000, has_goals=True),
    "can-bc": Row("can", "bc", {}, 8_000, logged=IMITATED),
}


@dataclass(frozen=True)
class Config:
    """The table."""

    rows: tyro.conf.Positional[tuple[str, ...]] = tuple(ROWS)
    """Which rows, by name."""
    episodes: int = 100
    """Evaluation episodes."""
    seeds: tuple[int, ...] = (0,)
    """A training seed for each run."""
    robot: str = "sim"
    """The robot, by name."""
    root: Path = Path("runs/pixels")
    """Where the stores and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    processes: int = 2
    """Processes for collecting and evaluating; training takes one core."""
    quick: bool = False
    """40 logged episodes, 20 updates, 4 evaluation episodes; the results are kept under root alone."""
    show: bool = False
    """Run nothing."""


@dataclass(frozen=True)
class Result:
    """One run, evaluated at its last update."""

    row: str
    seed: int
    updates: int
    batch_size: int
    logged: list[int]
    """Episodes that it learned from, and successes among them, as they were recorded."""
    snapshot: str
    settings: dict[str, Any]
    successes: int
    evaluations: int
    seconds: float
    """Of training and evaluation, in the process that ended them."""
    command: str
    machine: dict[str, Any]
    """What it ran on, and the commit that it was trained with (``code``)."""


def reproduce(config: Config) -> list[Result]:
    """The results of all rows, of which those that are missing are run."""
    if unknown := [name for name in config.rows if name not in ROWS]:
        raise FlywheelError(f"There is no row '{unknown[0]}'; there are {', '.join(ROWS)}.")
    return [read(Result, _path(config, name, seed)) or _run(config, name, seed) for name in config.rows for seed in config.seeds]


def table(results: list[Result]) -> str:
    """In Markdown: a row per run, with Wilson's 95 % interval."""
    lines = ["| run | seed | learns from | updates | success |", "|---|---|---|---|---|"]
    for result in results:
        learned = f"{result.logged[0]} episodes, {result.logged[1]} successes"
        cells = [result.row, str(result.seed), learned, f"{result.updates:,} x {result.batch_size}"]
        low, high = wilson(result.successes, result.evaluations)
        lines.append(f"| {' | '.join(cells)} | {result.successes} of {result.evaluations} ({low:.0%} to {high:.0%}) |")
    return "\n".join(lines)


def _path(config: Config, name: str, seed: int) -> Path:
    return config.results / f"{name}-seed{seed}.json"


def _run(config: Config, name: str, seed: int) -> Result:
    row = ROWS[name]
    logged, updates, imitated = (40, 20, 20) if config.quick else (row.logged, row.updates, IMITATED)
    recorded = store = _logged(config, row.task, logged)
    if row.is_judged:
        store = _judged(config, recorded, imitated, updates)
    began = time.monotonic()
    folder, data = config.root / "runs" / (f"{name}-{seed}" if seed else name), row.data(imitated)
    run = TrainConfig(row.algorithm, row.config, store, folder, updates, seed, data, save_every=500)
    policy = train(run, progress(f"updates of {name}"))
    successes, evaluations = _evaluate(config, folder, row)
    result = Result(
        row=name,
        seed=seed,
        updates=updates,
        batch_size=data.batch_size,
        logged=_learned(recorded, folder),
        snapshot=policy.snapshot,
        settings=configs.to_dict(row.config),
        successes=successes,
        evaluations=evaluations,
        seconds=round(time.monotonic() - began, 1),
        command=command("pixels"),
        machine={**describe(), "code": policy.header.code_version},
    )
    keep(_path(config, name, seed), result)
    return result


def _logged(config: Config, task: str, episodes: int) -> Path:
    """The store of imperfect episodes."""
    collection = CollectConfig(
        task, config.robot, store=config.root / "data", episodes=episodes, cameras=CAMERAS, processes=config.processes
    )
    return collect(collection, progress(f"episodes of {task}")).dataset


def _judged(config: Config, recorded: Path, imitated: int, updates: int) -> Path:
    """A copy of the store where a detector that learned from the later episodes says which of the first ones succeeded."""
    run = DetectorConfig(
        (recorded,), config.root / "detector", cameras=CAMERAS, where=f"seed >= {imitated}", updates=min(updates, 3_000)
    )
    detector = train_detector(run, progress("updates of the detector"), progress("episodes read"))
    folder = config.root / "judged" / recorded.parent.name / recorded.name
    if not folder.exists():
        with TemporaryDirectory(dir=config.root) as temporary:
            copied = shutil.copytree(recorded, Path(temporary) / recorded.name)
            folder.parent.mkdir(parents=True, exist_ok=True)
            copied.rename(folder)
    store = EpisodeStore.open(folder)
    label_episodes(store, detector, store.query(f"seed < {imitated}"), on_progress=progress("episodes judged"))
    return folder


def _evaluate(config: Config, run: Path, row: Row) -> tuple[int, int]:
    """Successes, and how many episodes."""
    folder = config.root / "evals"
    goals = None
    if row.has_goals:
        goals = folder / "expert" / "ends.npz"
        scripted = EvaluateConfig(
            row.task,
            folder / "expert",
            config.robot,
            episodes=12 if config.quick else SCRIPTED,
            processes=config.processes,
            cameras=CAMERAS,
            keep_ends=True,
        )
        evaluate(scripted, progress("scripted episodes, which set the goals"))
    wanted = min(config.episodes, len(Goals.load(goals)) if goals else config.episodes)
    evaluation = EvaluateConfig(
        row.task, folder / run.name, config.robot, str(run), wanted, goals=goals, processes=config.processes
    )
    found = evaluate(evaluation, progress(f"evaluation episodes of {run.name}"))
    return found.successes, len(found.results)


def _learned(store: Path, run: Path) -> list[int]:
    """How many episodes it learned from, and successes among them."""
    entries = {entry.episode_id for entry in Snapshot.load(run / "snapshot.json").entries}
    rows = [row for row in EpisodeStore.open(store).rows() if row.episode_id in entries]
    return [len(rows), sum(row.success for row in rows)]


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Print the table."""
    if config.quick:
        config = replace(config, episodes=4, root=config.root / "quick", results=config.root / "quick" / "results")
    print(table(read_all(Result, config.results) if config.show else reproduce(config)))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
