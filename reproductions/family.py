"""The family on one task: what each algorithm makes of the same imperfect episodes, with its defaults and the same budget.

    python -m reproductions.family                 a row for each algorithm that has none elsewhere, then the table
    python -m reproductions.family bc td3_bc       these alone
    python -m reproductions.family --quick         minutes, to see that it works
    python -m reproductions.family --show          the table of what is checked in

No published table can be run without downloads; this one says how the algorithms compare on a robot's task here. The last update
is evaluated, on initial states that nothing was trained on or chosen by. What is done already is not done again.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from flywheel.algorithms.base import AlgorithmConfig
from flywheel.bench.machine import describe
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.statistics import wilson
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from reproductions.kept import command, keep, read, read_all
from reproductions.progress import progress

RESULTS = Path(__file__).parent / "results" / "family"
"""The results that are checked in."""
ALGORITHMS = ("bc", "awr", "awac", "iql", "td3_bc", "brac", "bear", "qt_opt")
"""All that choose continuous actions by a task's rewards, but CQL and Cal-QL, which `offline_to_online` has."""
WARM_UP = 0.2
"""Of the updates, where an algorithm has a warm-up: the defaults (20,000 and 40,000) are longer than this budget."""
FIRST_SEED = 42_000_000
"""Of the evaluation."""


@dataclass(frozen=True)
class Config:
    """The table."""

    algorithms: tyro.conf.Positional[tuple[str, ...]] = ALGORITHMS
    """The rows, by name."""
    task: str = "lift"
    """The task, by name."""
    logged: int = 400
    """Episodes of imperfect scripts in the store."""
    updates: int = 10_000
    """Gradient updates of each run."""
    evaluations: int = 100
    """Evaluation episodes."""
    seeds: tuple[int, ...] = (0,)
    """A training seed for each run."""
    robot: str = "sim"
    """The robot, by name."""
    root: Path = Path("runs/family")
    """Where the store and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    processes: int = 1
    """Processes for collecting and evaluating; training takes one core."""
    quick: bool = False
    """20 logged episodes, 200 updates, 10 evaluation episodes; the results are kept under root alone."""
    show: bool = False
    """Run nothing."""


@dataclass(frozen=True)
class Result:
    """One run, evaluated at its last update."""

    algorithm: str
    task: str
    seed: int
    updates: int
    logged: list[int]
    """Episodes of the scripts, and successes among them."""
    snapshot: str
    """The hash of what was learned from."""
    settings: dict[str, Any]
    first_seed: int
    successes: int
    evaluations: int
    seconds: float
    """Of training and evaluation, in the process that ended them."""
    command: str
    machine: dict[str, Any]
    """What it ran on, and the commit that it was trained with (``code``)."""


def reproduce(config: Config) -> list[Result]:
    """The results of all rows, of which those that are missing are run."""
    return [_load(config, name, seed) or _run(config, name, seed) for name in config.algorithms for seed in config.seeds]


def load(folder: Path) -> list[Result]:
    """The results that a folder holds, by task, algorithm and seed."""
    return read_all(Result, folder)


def table(results: list[Result]) -> str:
    """In Markdown: a row per run, with Wilson's 95 % interval."""
    lines = ["| algorithm | seed | task | script | updates | success |", "|---|---|---|---|---|---|"]
    for result in results:
        cells = [result.algorithm, str(result.seed), result.task, _share(*result.logged[::-1]), f"{result.updates:,}"]
        lines.append(f"| {' | '.join(cells)} | {_share(result.successes, result.evaluations)} |")
    return "\n".join(lines)


def _share(successes: int, episodes: int) -> str:
    low, high = wilson(successes, episodes)
    return f"{successes} of {episodes} ({100 * low:.0f} to {100 * high:.0f} %)"


def _settings(config: Config, name: str) -> AlgorithmConfig:
    settings = algorithm_class(name).Config()
    shorter: dict[str, Any] = {"warm_up": int(WARM_UP * config.updates)} if getattr(settings, "warm_up", 0) else {}
    return replace(settings, **shorter)


def _path(config: Config, name: str, seed: int) -> Path:
    return config.results / f"{config.task}-{name}-{config.logged}-{config.updates}-seed{seed}.json"


def _load(config: Config, name: str, seed: int) -> Result | None:
    path = _path(config, name, seed)
    found = read(Result, path)
    asked = configs.to_dict(_settings(config, name)), config.evaluations
    return found if found and (found.settings, found.evaluations) == asked else None


def _run(config: Config, name: str, seed: int) -> Result:
    settings, folder = _settings(config, name), config.root / _path(config, name, seed).stem
    collection = CollectConfig(
        config.task,
        config.robot,
        store=config.root / "data",
        dataset=f"{config.task}_{config.logged}",
        episodes=config.logged,
        experiment="family",
        processes=config.processes,
    )
    store = collect(collection, progress("episodes")).dataset
    began = time.monotonic()
    data = DataConfig(task=config.task)
    run = TrainConfig(name, settings, store, folder / "train", config.updates, seed, data)
    policy: LearnedPolicy = train(run, progress(f"updates of {name}"))
    evaluation = EvaluateConfig(
        config.task,
        folder / "evaluation",
        config.robot,
        str(run.output),
        config.evaluations,
        FIRST_SEED,
        processes=config.processes,
    )
    found = evaluate(evaluation, progress(f"evaluation episodes of {name}"))
    rows = [row for row in EpisodeStore.open(store).rows() if row.task == config.task]
    result = Result(
        algorithm=name,
        task=config.task,
        seed=seed,
        updates=config.updates,
        logged=[len(rows), sum(row.success for row in rows)],
        snapshot=policy.snapshot,
        settings=configs.to_dict(settings),
        first_seed=FIRST_SEED,
        successes=found.successes,
        evaluations=len(found.results),
        seconds=round(time.monotonic() - began, 1),
        command=command("family"),
        machine={**describe(), "code": policy.header.code_version},
    )
    path = _path(config, name, seed)
    keep(path, result)
    return result


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Print the table."""
    if config.quick:
        config = replace(config, logged=20, updates=200, evaluations=10, results=config.root / "quick")
    print(table(load(config.results) if config.show else reproduce(config)))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
