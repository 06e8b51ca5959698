"""Lift from two 84 x 84 cameras and the arm's own joints, without any object's state: imitation, and goals as pictures.

    python -m reproductions.pixels                 every row that has no result yet, then the table
    python -m reproductions.pixels bc gcbc         these alone
    python -m reproductions.pixels --quick         minutes, to see that it works
    python -m reproductions.pixels --show          the table of what is checked in

`bc` imitates the successes among the first 200 imperfect episodes; it is evaluated on the task. The others learn from all 400
without rewards to reach what a picture shows; they are shown the last picture of a scripted success from the same initial
state, and have reached it when the task is done. The last update is evaluated, on initial states that nothing was trained on.
What is done already is not done again.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from flywheel.algorithms.base import AlgorithmConfig
from flywheel.bench.machine import describe
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.relabel import ActionableGoals
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.goals import Goals
from flywheel.rollout.statistics import wilson
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from reproductions.progress import progress

RESULTS = Path(__file__).parent / "results" / "pixels"
"""The results that are checked in."""
TASK, LOGGED, SCRIPTED = "lift", 400, 220
CAMERAS = ("agentview", "eye_in_hand")
HIDDEN = ("cube_pos", "cube_quat", "gripper_to_cube_pos")
"""What only a simulator knows."""
_SEEN = DataConfig(batch_size=128, pictures=CAMERAS, hide=HIDDEN)
_GOALS = replace(_SEEN, goal_pictures=("agentview",))


@dataclass(frozen=True)
class Row:
    """One run."""

    algorithm: str
    settings: dict[str, Any]
    data: DataConfig
    updates: int
    save_every: int = 500

    @property
    def config(self) -> AlgorithmConfig:
        """The algorithm's."""
        return algorithm_class(self.algorithm).Config(**self.settings)

    @property
    def has_goals(self) -> bool:
        """Whether it is shown what to reach."""
        return bool(self.data.goal_pictures)


ROWS = {
    "bc": Row("bc", {}, replace(_SEEN, where="seed < 200 and success"), 8_000, 1_000),
    "gcbc": Row("gcbc", {"hidden": (256, 256)}, _GOALS, 5_000),
    "gciql": Row("gciql", {"hidden": (256, 256)}, _GOALS, 5_000),
    "actionable_models": Row(
        "actionable_models",
        {"learning_rate": 3e-4, "actor_dropout": 0.1, "average_rate": 0.002},
        replace(_GOALS, relabel="actionable", actionable=ActionableGoals(p_chained=0.2)),
        5_000,
    ),
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
    """Where the store and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    processes: int = 2
    """Processes for collecting and evaluating; training takes one core."""
    quick: bool = False
    """20 logged episodes, 20 updates, 4 evaluation episodes; the results are kept under root alone."""
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
    """Episodes that it learned from, and successes among them."""
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
    return [_load(config, name, seed) or _run(config, name, seed) for name in config.rows for seed in config.seeds]


def table(results: list[Result]) -> str:
    """In Markdown: a row per run, with Wilson's 95 % interval."""
    lines = ["| algorithm | seed | learns from | updates | success |", "|---|---|---|---|---|"]
    for result in results:
        learned = f"{result.logged[0]} episodes, {result.logged[1]} successes"
        cells = [result.row, str(result.seed), learned, f"{result.updates:,} x {result.batch_size}"]
        low, high = wilson(result.successes, result.evaluations)
        lines.append(f"| {' | '.join(cells)} | {result.successes} of {result.evaluations} ({low:.0%} to {high:.0%}) |")
    return "\n".join(lines)


def _path(config: Config, name: str, seed: int) -> Path:
    return config.results / f"{TASK}-{name}-seed{seed}.json"


def _load(config: Config, name: str, seed: int) -> Result | None:
    path = _path(config, name, seed)
    return Result(**json.loads(path.read_text())) if path.exists() else None


def _run(config: Config, name: str, seed: int) -> Result:
    row = ROWS[name]
    episodes, updates = (20, 20) if config.quick else (LOGGED, row.updates)
    store = _logged(config, episodes)
    began = time.monotonic()
    folder = config.root / "runs" / (f"{name}-{seed}" if seed else name)
    run = TrainConfig(row.algorithm, row.config, store, folder, updates, seed, row.data, save_every=row.save_every)
    policy = train(run, progress(f"updates of {name}"))
    successes, evaluations = _evaluate(config, folder, row)
    learned = _learned(store, folder)
    result = Result(
        row=name,
        seed=seed,
        updates=updates,
        batch_size=row.data.batch_size,
        logged=learned,
        snapshot=policy.snapshot,
        settings=configs.to_dict(row.config),
        successes=successes,
        evaluations=evaluations,
        seconds=round(time.monotonic() - began, 1),
        command=shlex.join(["python", "-m", "reproductions.pixels", *sys.argv[1:]]),
        machine={**describe(), "code": policy.header.code_version},
    )
    path = _path(config, name, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(asdict(result), indent=1) + "\n").encode())
    return result


def _logged(config: Config, episodes: int) -> Path:
    """The store of imperfect episodes."""
    collection = CollectConfig(
        TASK, config.robot, store=config.root / "data", episodes=episodes, cameras=CAMERAS, processes=config.processes
    )
    return collect(collection, progress("episodes")).dataset


def _evaluate(config: Config, run: Path, row: Row) -> tuple[int, int]:
    """Successes, and how many episodes."""
    folder = config.root / "evals"
    goals = None
    if row.has_goals:
        goals = folder / "expert" / "ends.npz"
        scripted = EvaluateConfig(
            TASK,
            folder / "expert",
            config.robot,
            episodes=12 if config.quick else SCRIPTED,
            processes=config.processes,
            cameras=CAMERAS,
            keep_ends=True,
        )
        evaluate(scripted, progress("scripted episodes, which set the goals"))
    wanted = min(config.episodes, len(Goals.load(goals)) if goals else config.episodes)
    evaluation = EvaluateConfig(TASK, folder / run.name, config.robot, str(run), wanted, goals=goals, processes=config.processes)
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
        config = replace(config, episodes=4, results=config.root / "quick")
    found = sorted(config.results.glob("*.json"))
    print(table([Result(**json.loads(path.read_text())) for path in found] if config.show else reproduce(config)))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
