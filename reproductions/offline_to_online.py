"""From a store where half of the episodes fail to a policy that hardly does, within 100 episodes of its own.

    python -m reproductions.offline_to_online lift iql          collect, learn offline, go on online; a row and its curve
    python -m reproductions.offline_to_online lift iql --quick  minutes, to see that it works
    python -m reproductions.offline_to_online lift iql --code d3rlpy      the same row with d3rlpy as the learner
    python -m reproductions.offline_to_online --show            the table of what is checked in

Imperfect scripts fill the store, each algorithm learns offline from a copy of it, then collects 100 episodes into that copy and
learns from them (`flywheel finetune online`). The last policy is the result, measured on initial states that nothing was chosen
or trained on; the points in between are measured on others. What is done already is not done again.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from flywheel.algorithms.base import AlgorithmConfig
from flywheel.algorithms.cal_ql import CalQLConfig
from flywheel.algorithms.cql import CQLConfig
from flywheel.algorithms.iql import IQLConfig
from flywheel.bench.machine import describe
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.store import EpisodeStore
from flywheel.online import OnlineConfig, improve
from flywheel.report.learning import Line, learning_curve
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.statistics import wilson
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, train
from reproductions import d3rlpy_online
from reproductions.kept import command, keep, read, read_all
from reproductions.progress import progress

RESULTS = Path(__file__).parent / "results" / "offline_to_online"
"""The results that are checked in."""


class Setting(NamedTuple):
    """An algorithm, and what its targets are made of."""

    algorithm: AlgorithmConfig
    online: AlgorithmConfig | None = None
    """Where it is to have others with own episodes; it gets used to them for a twentieth of the offline updates more (5 %)."""
    n_step: int = 1
    reward_scale: float = 1.0


_ASCENT: dict[str, Any] = {
    "actor_loss": "ddpgbc",
    "imitation_weight": 0.05,
    "actor_dropout": 0.1,
    "average_rate": 0.002,
}
_LAGRANGE: dict[str, Any] = {"conservative_weight": 1.0, "lagrange_threshold": 5.0, "actor_learning_rate": 3e-4}
SETTINGS = {
    "iql": Setting(IQLConfig(**_ASCENT), IQLConfig(**_ASCENT, imitate="successes"), n_step=10),
    "cql": Setting(CQLConfig(**_LAGRANGE)),
    "cal_ql": Setting(CalQLConfig(**_LAGRANGE), n_step=10),
}
"""As was chosen on development seeds (docs/results.md): IQL on Can, the others on Lift."""
CURVE_SEED, FINAL_SEED = 25_000_000, 41_000_000
"""Of the evaluations on the way, and of the last."""


@dataclass(frozen=True)
class Config:
    """One row."""

    task: tyro.conf.Positional[str] = "lift"
    """The task, by name."""
    algorithm: tyro.conf.Positional[str] = "iql"
    """iql, cql or cal_ql."""
    seeds: tuple[int, ...] = (0,)
    """A training seed for each run."""
    code: Literal["flywheel", "d3rlpy"] = "flywheel"
    """Ours, or d3rlpy's algorithm in the same loop, which needs the environment that 'make .venv-peers/.ready' makes."""
    logged: int = 200
    """Episodes of imperfect scripts in the store."""
    offline_updates: int = 5_000
    """Gradient updates before the first own episode."""
    episodes: int = 100
    """Own episodes."""
    updates_per_step: float = 1.0
    """Gradient updates per action of them."""
    explore: bool = True
    """Collect with sampled actions in place of the best ones."""
    evaluations: int = 200
    """Evaluation episodes of the first and the last policy; those between have a quarter."""
    robot: str = "sim"
    """The robot, by name."""
    root: Path = Path("runs/offline_to_online")
    """Where the stores and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    processes: int = 1
    """Processes for collecting and evaluating; training takes one core."""
    python: Path = Path(".venv-peers/bin/python")
    """The interpreter that has d3rlpy."""
    quick: bool = False
    """20 logged episodes, 200 updates, 20 own episodes, 8 evaluations; the result is kept under root alone."""
    show: bool = False
    """Run nothing."""


@dataclass(frozen=True)
class Result:
    """One run."""

    task: str
    algorithm: str
    code: str
    seed: int
    logged: list[int]
    """Episodes of the scripts, and successes among them."""
    offline_updates: int
    updates_per_step: float
    explore: bool
    settings: dict[str, Any]
    offline: list[int]
    """Successes and episodes of the policy before its first own episode, on the last evaluation's initial states."""
    final: list[int]
    """Successes and episodes of the last policy."""
    curve: dict[str, Any]
    """As `flywheel.online.Curve` has it."""
    seconds: dict[str, float]
    """Of each stage in the process that ended it."""
    command: str
    machine: dict[str, Any]
    """What it ran on, and the commit that it was trained with (``code``)."""
    first_seed: int = field(default=FINAL_SEED)


def reproduce(config: Config) -> list[Result]:
    """The result of each seed; raises `FlywheelError` for an algorithm that is not in the table."""
    if config.algorithm not in SETTINGS:
        raise FlywheelError(f"The table has no row '{config.algorithm}'; it has {', '.join(SETTINGS)}.")
    return [_load(config, seed) or _run(config, seed) for seed in config.seeds]


def load(folder: Path) -> list[Result]:
    """The results that a folder holds, by task, algorithm and seed."""
    return read_all(Result, folder)


def table(results: list[Result]) -> str:
    """In Markdown: successes with Wilson's 95 % interval before and after, and the dip between."""
    lines = [
        "| task | algorithm | code | seed | script | updates | offline | after own episodes | own | dip, points |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = [
            _share(*result.logged[::-1]),
            f"{result.offline_updates:,}{' + 5 %' if 'online' in result.settings else ''}",
            _share(*result.offline),
            _share(*result.final),
            str(len(result.curve["collected"])),
        ]
        names = [result.task, result.algorithm, result.code, str(result.seed)]
        lines.append(f"| {' | '.join([*names, *cells])} | {100 * result.curve['dip']:.0f} |")
    return "\n".join(lines)


def _share(successes: int, episodes: int) -> str:
    low, high = wilson(successes, episodes)
    return f"{successes} of {episodes} ({100 * low:.0f} to {100 * high:.0f} %)"


def _path(config: Config, seed: int) -> Path:
    budget = f"{config.logged}-{config.offline_updates}x{config.updates_per_step:g}{'' if config.explore else '-best'}"
    return config.results / f"{config.task}-{config.algorithm}-{config.code}-{budget}-seed{seed}.json"


def _load(config: Config, seed: int) -> Result | None:
    """The row, if it was made with these settings and as many episodes."""
    path = _path(config, seed)
    found = read(Result, path)
    asked = _settings(config), config.explore, config.episodes, config.evaluations
    is_this = found and (found.settings, found.explore, len(found.curve["collected"]), found.final[1]) == asked
    return found if is_this else None


def _run(config: Config, seed: int) -> Result:
    folder = config.root / _path(config, seed).stem
    store = _collect(config, folder)
    logged = [row for row in store.rows() if not row.policy_checkpoint]
    curve, offline, final, seconds = (_ours if config.code == "flywheel" else _theirs)(config, seed, folder, store)
    result = Result(
        task=config.task,
        algorithm=config.algorithm,
        code=config.code,
        seed=seed,
        logged=[len(logged), sum(row.success for row in logged)],
        offline_updates=config.offline_updates,
        updates_per_step=config.updates_per_step,
        explore=config.explore,
        settings=_settings(config),
        offline=offline,
        final=final,
        curve=curve,
        seconds=seconds,
        command=command("offline_to_online"),
        machine={**describe(), **_code(folder)},
    )
    path = _path(config, seed)
    keep(path, result)
    return result


def _code(folder: Path) -> dict[str, str]:
    """The versions of the code that our runs began with: several, where an interrupted row went on; d3rlpy's never does."""
    found = [*folder.glob("offline/code.txt"), *folder.glob("settled/code.txt"), *sorted(folder.glob("online/round-*/code.txt"))]
    return {"code": ", ".join(dict.fromkeys(path.read_text() for path in found))} if found else {}


def _settings(config: Config) -> dict[str, Any]:
    """What the row was learned with; d3rlpy has its own, but for the targets."""
    setting = SETTINGS[config.algorithm]
    targets = {"n_step": setting.n_step, "reward_scale": setting.reward_scale}
    if config.code == "d3rlpy":
        return targets
    online = {"online": configs.to_dict(setting.online)} if setting.online else {}
    return {**configs.to_dict(setting.algorithm), **targets, **online}


_Found = tuple[dict[str, Any], list[int], list[int], dict[str, float]]


def _ours(config: Config, seed: int, folder: Path, store: EpisodeStore) -> _Found:
    seconds: dict[str, float] = {}
    setting = SETTINGS[config.algorithm]
    training = TrainConfig(
        name=config.algorithm,
        algorithm=setting.algorithm,
        store=store.path,
        output=folder / "offline",
        updates=config.offline_updates,
        seed=seed,
        data=DataConfig(task=config.task, n_step=setting.n_step, reward_scale=setting.reward_scale),
    )
    with _timing(seconds, "offline"):
        train(training, progress("updates"))
        if setting.online:
            updates = config.offline_updates + max(1, config.offline_updates // 20)
            training = replace(training, algorithm=setting.online, output=folder / "settled", updates=updates)
            training = replace(training, initial=folder / "offline", go_on=True)
            train(training, progress("updates"))
    with _timing(seconds, "online"):
        curve = improve(_online(config, folder, training.output))
    with _timing(seconds, "evaluation"):
        offline, final = (_evaluate(config, run) for run in (training.output, curve.policy))
    return curve.to_json(), offline, final, seconds


def _theirs(config: Config, seed: int, folder: Path, store: EpisodeStore) -> _Found:
    seconds: dict[str, float] = {}
    ends = FINAL_SEED, config.evaluations
    with _timing(seconds, "all"):
        found = d3rlpy_online.improve(
            _online(config, folder, folder),
            config.python,
            config.algorithm,
            store,
            config.offline_updates,
            seed,
            ends,
            SETTINGS[config.algorithm].n_step,
            SETTINGS[config.algorithm].reward_scale,
        )
    return *found, seconds


def _online(config: Config, folder: Path, initial: Path) -> OnlineConfig:
    return OnlineConfig(
        task=config.task,
        initial=initial,
        output=folder / "online",
        robot=config.robot,
        episodes=config.episodes,
        updates_per_step=config.updates_per_step,
        explore=config.explore,
        evaluation_episodes=max(1, config.evaluations // 4),
        evaluation_seed=CURVE_SEED,
        processes=config.processes,
    )


def _collect(config: Config, folder: Path) -> EpisodeStore:
    """The run's own copy of the scripts' episodes, which are the same for all algorithms."""
    logged = collect(
        CollectConfig(
            config.task,
            config.robot,
            store=config.root / "data",
            dataset=f"{config.task}_{config.logged}",
            episodes=config.logged,
            experiment="offline_to_online",
            processes=config.processes,
        ),
        progress("episodes"),
    ).dataset
    own = folder / "store" / logged.parent.name / logged.name
    if not own.exists():
        copied = folder / "copied"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(logged, copied)
        own.parent.mkdir(parents=True, exist_ok=True)
        copied.rename(own)
    return EpisodeStore.open(own)


def _evaluate(config: Config, run: Path) -> list[int]:
    settings = EvaluateConfig(
        config.task,
        run.parent / f"final-{run.name}",
        config.robot,
        str(run),
        config.evaluations,
        FINAL_SEED,
        processes=config.processes,
    )
    found = evaluate(settings, progress("evaluation episodes"))
    return [found.successes, len(found.results)]


@contextmanager
def _timing(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[stage] = round(time.monotonic() - began, 1)


def draw(results: list[Result], task: str) -> str:
    """The curves of a task as an SVG: the first seed of every algorithm, code and offline budget."""
    own = [result for result in reversed(results) if result.task == task]
    first = {(result.algorithm, result.code, result.offline_updates): result for result in own}
    lines = []
    for (algorithm, code, updates), result in sorted(first.items()):
        points = [(point["episodes"], point["success"], *point["ci95"]) for point in result.curve["points"]]
        lines.append(Line(f"{algorithm} ({code}), {updates:,} offline", points))
    return learning_curve(lines, f"Success at {task} over own episodes")


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Print the table, and draw the curves beside the results."""
    if config.quick:
        quick = {"logged": 20, "offline_updates": 200, "episodes": 20, "evaluations": 8}
        config = replace(config, **quick, results=config.root / "quick")  # type: ignore[arg-type]
    found = load(config.results) if config.show else reproduce(config)
    print(table(found))
    for task in {result.task for result in found}:
        write_atomically(config.results / f"{task}.svg", draw(load(config.results), task).encode())


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
