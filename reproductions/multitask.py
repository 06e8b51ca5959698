"""MT-Opt's table on three tasks of one world: whom episodes are offered to, and whether batches are rebalanced.

    python -m reproductions.multitask              all six runs, then the table
    python -m reproductions.multitask --quick      minutes, to see that it works
    python -m reproductions.multitask --show       the table of what is checked in

One task, lift_red, has a twentieth of the others' episodes. Every run learns the same three tasks from the same store with the
same algorithm, settings, seed and number of updates, and its last update is evaluated on initial states that nothing was trained
on. What is done already is not done again. After Kalashnikov et al. 2021 (MT-Opt, arXiv 2104.08212), whose tasks and robots are
others: their numbers cannot be compared with these.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from flywheel.algorithms.iql import IQLConfig
from flywheel.bench.machine import describe
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.statistics import wilson
from flywheel.training.impersonation import Impersonate
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, train
from reproductions.kept import command, keep, read, read_all
from reproductions.progress import progress

RESULTS = Path(__file__).parent / "results" / "multitask"
"""The results that are checked in."""
RARE = "lift_red"
TASKS = (RARE, "lift_green", "stack")
"""All in robosuite's world Stack; the first two are of one skill group (acquire), stack of another (place)."""
ALGORITHM = IQLConfig(inverse_temperature=10.0, imitate="successes", actor_dropout=0.1, average_rate=0.002)
"""As was chosen for Lift alone, long before (`training.presets`), but that failures are not imitated."""
N_STEP = 10
SUCCESS_SHARE = 0.5
"""Of each task's part of a rebalanced batch."""
FIRST_SEED = 40_000_000
"""Of the evaluation; no setting was chosen on these."""


@dataclass(frozen=True)
class Config:
    """The experiment."""

    episodes: int = 200
    """Episodes of each task but the rare one, which has a twentieth."""
    updates: int = 6_000
    """Gradient updates of each run."""
    evaluations: int = 100
    """Evaluation episodes per task."""
    seeds: tuple[int, ...] = (0,)
    """A training seed for each of six runs."""
    robot: str = "sim"
    """The robot, by name."""
    root: Path = Path("runs/multitask")
    """Where the store and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    processes: int = 1
    """Processes for collecting and evaluating; training takes one core."""
    quick: bool = False
    """40 episodes, 500 updates, 10 evaluation episodes per task; the results are kept under root alone."""
    show: bool = False
    """Run nothing."""


@dataclass(frozen=True)
class Result:
    """One run, evaluated at its last update."""

    impersonate: str
    rebalance: bool
    seed: int
    updates: int
    store: dict[str, list[int]]
    """By task: episodes and successes."""
    snapshot: str
    """The hash of what was learned from."""
    algorithm: str
    settings: dict[str, Any]
    success_share: float
    """Of each task's part of a rebalanced batch."""
    first_seed: int
    evaluations: int
    """Episodes per task."""
    successes: dict[str, int]
    """By task."""
    training_seconds: float
    evaluation_seconds: float
    """Both of the last process alone, where an interrupted one went on."""
    command: str
    machine: dict[str, Any]
    """What it ran on, and the commit that it was trained with (``code``)."""


def reproduce(config: Config) -> list[Result]:
    """The results of all runs, of which those that are missing are run."""
    return [
        _load(config, mode, rebalance, seed) or _run(config, mode, rebalance, seed)
        for seed, mode, rebalance in product(config.seeds, get_args(Impersonate), (False, True))
    ]


def load(folder: Path) -> list[Result]:
    """The results that a folder holds, in the table's order."""
    found = read_all(Result, folder)
    return sorted(found, key=_place)


def _place(result: Result) -> tuple[int, int, int, bool]:
    return result.store[RARE][0], result.seed, get_args(Impersonate).index(result.impersonate), result.rebalance


def table(results: list[Result]) -> str:
    """In Markdown: a row per run, successes and Wilson's 95 % interval per task."""
    lines = [
        f"| {RARE} has | episodes of other tasks | batches | seed | {' | '.join(TASKS)} | mean |",
        "|---|---|---|---|" + "---|" * (len(TASKS) + 1),
    ]
    for result in results:
        cells = []
        for task in TASKS:
            low, high = wilson(result.successes[task], result.evaluations)
            cells.append(f"{result.successes[task]} of {result.evaluations} ({low:.0%} to {high:.0%})")
        mean = sum(result.successes.values()) / result.evaluations / len(TASKS)
        batches = "rebalanced" if result.rebalance else "uniform"
        run = [str(result.store[RARE][0]), result.impersonate, batches, str(result.seed)]
        lines.append(f"| {' | '.join([*run, *cells])} | {mean:.0%} |")
    return "\n".join(lines)


def _path(config: Config, mode: str, rebalance: bool, seed: int) -> Path:
    name = f"{mode}-{'rebalanced' if rebalance else 'uniform'}-{config.episodes}-{config.updates}-seed{seed}.json"
    return config.results / name


def _load(config: Config, mode: str, rebalance: bool, seed: int) -> Result | None:
    path = _path(config, mode, rebalance, seed)
    found = read(Result, path)
    is_this = found and (found.evaluations, found.settings, found.success_share) == (
        config.evaluations,
        _settings(),
        SUCCESS_SHARE,
    )
    return found if is_this else None


def _settings() -> dict[str, Any]:
    return {**configs.to_dict(ALGORITHM), "n_step": N_STEP}


def _run(config: Config, mode: Impersonate, rebalance: bool, seed: int) -> Result:
    store = _collect(config)
    folder = config.root / _path(config, mode, rebalance, seed).stem
    data = DataConfig(tasks=TASKS, impersonate=mode, rebalance=rebalance, success_share=SUCCESS_SHARE, n_step=N_STEP)
    training = _train(TrainConfig("iql", ALGORITHM, store.path, folder / "train", config.updates, seed, data))
    evaluation = _timed(folder / "evaluation_seconds.json", lambda: [_evaluate(config, folder, task) for task in TASKS])
    policy = LearnedPolicy.load(folder / "train")
    result = Result(
        impersonate=mode,
        rebalance=rebalance,
        seed=seed,
        updates=config.updates,
        store=_count(store),
        snapshot=policy.snapshot,
        algorithm="iql",
        settings=_settings(),
        success_share=SUCCESS_SHARE,
        first_seed=FIRST_SEED,
        evaluations=config.evaluations,
        successes={task: _evaluate(config, folder, task) for task in TASKS},
        training_seconds=training,
        evaluation_seconds=evaluation,
        command=command("multitask"),
        machine={**describe(), "code": policy.header.code_version},
    )
    path = _path(config, mode, rebalance, seed)
    keep(path, result)
    return result


def _train(run: TrainConfig) -> float:
    return _timed(run.output / "seconds.json", lambda: train(run, progress(f"updates of {run.output.parent.name}")))


def _timed(kept: Path, work: Callable[[], Any]) -> float:
    """The seconds that the work took, also where it was done before."""
    if not kept.exists():
        began = time.monotonic()
        work()
        write_atomically(kept, json.dumps(round(time.monotonic() - began, 1)).encode())
    seconds: float = json.loads(kept.read_text())
    return seconds


def _collect(config: Config) -> EpisodeStore:
    for task in TASKS:
        found = collect(
            CollectConfig(
                task,
                config.robot,
                store=config.root / "data",
                dataset=f"stack_world_{config.episodes}",
                episodes=config.episodes // 20 if task == RARE else config.episodes,
                experiment="multitask",
                processes=config.processes,
            ),
            progress(f"episodes of {task}"),
        )
    return EpisodeStore.open(found.dataset)


def _count(store: EpisodeStore) -> dict[str, list[int]]:
    rows = store.rows()
    return {task: [sum(r.task == task for r in rows), sum(r.task == task and r.success for r in rows)] for task in TASKS}


def _evaluate(config: Config, folder: Path, task: str) -> int:
    evaluation = evaluate(
        EvaluateConfig(
            task,
            folder / f"evaluation-{task}",
            config.robot,
            str(folder / "train"),
            config.evaluations,
            FIRST_SEED,
            processes=config.processes,
        ),
        progress(f"evaluation episodes of {task}"),
    )
    return evaluation.successes


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Print the table."""
    if config.quick:
        config = replace(config, episodes=40, updates=500, evaluations=10, results=config.root / "quick")
    if config.show:
        print(table(load(config.results)))
    else:
        print(table(reproduce(config)))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
