"""Does pretraining help? Six tasks with 20 labelled episodes each: from Actionable Models, and from scratch.

    python -m reproductions.pretraining                  all six tasks, then the table
    python -m reproductions.pretraining lift can         these alone
    python -m reproductions.pretraining lift --quick     minutes, to see that it works
    python -m reproductions.pretraining --show           the table of what is checked in

A store of imperfect scripts' episodes, of which 20 are labelled: their rewards alone are known. Both arms learn the task from
these 20 by IQL, with the same networks, settings, seed and number of updates; one of them starts from Actionable Models, which
learned to reach goals from all of the store and saw no reward. The last update of each is evaluated on the same initial states,
which nothing was trained or chosen on. What is done already is not done again.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from flywheel.bench.machine import describe
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.results import Evaluation
from flywheel.rollout.statistics import PairedDifference, mcnemar_exact, paired_difference, wilson
from flywheel.training import presets
from flywheel.training.train import TrainConfig, train
from reproductions.progress import progress

RESULTS = Path(__file__).parent / "results" / "pretraining"
"""The results that are checked in."""
TASKS = ("lift", "stack", "lift_can", "can", "door", "turn_handle")
FIRST_SEED = 40_000_000
"""Of the evaluations; no setting was chosen on these."""


@dataclass(frozen=True)
class Config:
    """The experiment."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = TASKS
    """Which tasks."""
    episodes: int = 300
    """Episodes of each task's store."""
    labelled: int = 20
    """How many of them are labelled; each seed takes others."""
    pretraining_updates: int = 10_000
    """Gradient updates of Actionable Models."""
    updates: int = 5_000
    """Gradient updates of IQL, in both arms."""
    evaluations: int = 100
    """Evaluation episodes of each arm."""
    seeds: tuple[int, ...] = (0,)
    """A pair of arms for each; the pretraining is the same for all."""
    robot: str = "sim"
    """The robot, by name."""
    root: Path = Path("runs/pretraining")
    """Where the stores and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    first_seed: int = FIRST_SEED
    """The seed of the first evaluation episode."""
    processes: int = 1
    """Processes for collecting and evaluating; training takes one core."""
    quick: bool = False
    """40 episodes, 500 updates, 10 evaluation episodes; the results are kept under root alone."""
    show: bool = False
    """Run nothing."""


@dataclass(frozen=True)
class Result:
    """Both arms of one task and seed, at their last updates."""

    task: str
    seed: int
    episodes: int
    labelled: list[int]
    """Episodes with labels, and successes among them."""
    pretraining_updates: int
    updates: int
    settings: dict[str, Any]
    """Of Actionable Models and of IQL."""
    snapshots: dict[str, str]
    """The hashes of what each stage learned from."""
    first_seed: int
    scratch: list[bool]
    """The success of every evaluation episode."""
    pretrained: list[bool]
    """On the same initial states."""
    command: str
    machine: dict[str, Any]
    """What it ran on, and the commit that it was trained with (``code``)."""

    def difference(self) -> PairedDifference:
        """How much more often the pretrained arm succeeds, with its interval."""
        return paired_difference(*self._won(), len(self.scratch))

    def p_value(self) -> float:
        """McNemar's exact one of no difference."""
        return mcnemar_exact(*self._won())

    def _won(self) -> tuple[int, int]:
        pairs = list(zip(self.pretrained, self.scratch, strict=True))
        return pairs.count((True, False)), pairs.count((False, True))


def reproduce(config: Config) -> list[Result]:
    """The results of all tasks and seeds, of which those that are missing are run.

    Raises `FlywheelError` where the store is too small for so many labelled episodes.
    """
    if config.labelled * (max(config.seeds) + 1) > config.episodes:
        raise FlywheelError(
            f"{config.episodes} episodes have no {config.labelled} of their own for every seed; give fewer seeds."
        )
    return [_load(config, task, seed) or _run(config, task, seed) for task in config.tasks for seed in config.seeds]


def load(folder: Path) -> list[Result]:
    """The results that a folder holds, in the order of the tasks."""
    found = [Result(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda result: (TASKS.index(result.task), result.seed))


def table(results: list[Result]) -> str:
    """In Markdown: a row per task and seed, with Wilson's 95 % intervals and the difference in pairs."""
    lines = [
        "| task | seed | labelled, successes | from scratch | from Actionable Models | difference in pairs | McNemar's p |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        difference = result.difference()
        low, high = difference.ci95
        cells = [
            result.task,
            str(result.seed),
            f"{result.labelled[0]}, {result.labelled[1]}",
            _share(result.scratch),
            _share(result.pretrained),
            f"{100 * difference.difference:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f})",
            f"{result.p_value():.2g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(successes: list[bool]) -> str:
    low, high = wilson(sum(successes), len(successes))
    return f"{sum(successes)} of {len(successes)} ({100 * low:.0f} to {100 * high:.0f} %)"


def _name(config: Config, task: str, seed: int) -> str:
    return f"{task}-{config.labelled}of{config.episodes}-{config.pretraining_updates}+{config.updates}-seed{seed}"


def _load(config: Config, task: str, seed: int) -> Result | None:
    path = config.results / f"{_name(config, task, seed)}.json"
    found = Result(**json.loads(path.read_text())) if path.exists() else None
    return found if found and (found.first_seed, len(found.scratch)) == (config.first_seed, config.evaluations) else None


def _run(config: Config, task: str, seed: int) -> Result:
    store = _collect(config, task)
    first = seed * config.labelled
    labelled = [row for row in store.rows() if first <= (row.seed or 0) < first + config.labelled]
    folder = config.root / _name(config, task, seed)
    pretraining = presets.pretrain(store.path, _pretrained_folder(config, task), config.pretraining_updates)
    _train(pretraining, f"updates of {task}'s pretraining")
    arms = {
        name: _arm(config, store.path, folder / name, task, seed, initial)
        for name, initial in (("scratch", None), ("pretrained", pretraining.output))
    }
    for name, arm in arms.items():
        _train(arm, f"updates of {task} {name}")
    found = {name: _evaluate(config, task, arm.output, folder / f"evaluation-{name}") for name, arm in arms.items()}
    policies = {name: LearnedPolicy.load(run.output) for name, run in (("pretraining", pretraining), *arms.items())}
    result = Result(
        task=task,
        seed=seed,
        episodes=config.episodes,
        labelled=[len(labelled), sum(row.success for row in labelled)],
        pretraining_updates=config.pretraining_updates,
        updates=config.updates,
        settings={run.name: configs.to_dict(run.algorithm) for run in (pretraining, arms["scratch"])},
        snapshots={name: policy.snapshot for name, policy in policies.items()},
        first_seed=config.first_seed,
        scratch=[episode.success for episode in found["scratch"].results],
        pretrained=[episode.success for episode in found["pretrained"].results],
        command=shlex.join(["python", "-m", "reproductions.pretraining", *sys.argv[1:]]),
        machine={**describe(), "code": policies["pretrained"].header.code_version},
    )
    config.results.mkdir(parents=True, exist_ok=True)
    write_atomically(config.results / f"{folder.name}.json", (json.dumps(asdict(result), indent=1) + "\n").encode())
    return result


def _pretrained_folder(config: Config, task: str) -> Path:
    return config.root / f"{task}-{config.episodes}-{config.pretraining_updates}"


def _arm(config: Config, store: Path, output: Path, task: str, seed: int, initial: Path | None) -> TrainConfig:
    """IQL on the labelled episodes."""
    arm = presets.finetune(store, output, task, initial, config.updates, seed=seed)
    first = seed * config.labelled
    return replace(arm, data=replace(arm.data, where=f"seed >= {first} and seed < {first + config.labelled}"))


def _train(run: TrainConfig, what: str) -> None:
    train(run, progress(what))


def _collect(config: Config, task: str) -> EpisodeStore:
    settings = CollectConfig(
        task,
        config.robot,
        store=config.root / "data",
        dataset=f"{task}_{config.episodes}",
        episodes=config.episodes,
        experiment="pretraining",
        processes=config.processes,
    )
    return EpisodeStore.open(collect(settings, progress(f"episodes of {task}")).dataset)


def _evaluate(config: Config, task: str, run: Path, output: Path) -> Evaluation:
    settings = EvaluateConfig(
        task, output, config.robot, str(run), config.evaluations, config.first_seed, processes=config.processes
    )
    return evaluate(settings, progress(f"evaluation episodes of {output.parent.name}"))


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Print the table."""
    if config.quick:
        quick = {"episodes": 40, "pretraining_updates": 500, "updates": 500, "evaluations": 10}
        config = replace(config, **quick, results=config.root / "quick")  # type: ignore[arg-type]
    print(table(load(config.results) if config.show else reproduce(config)))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
