"""One success detector for all simulated tasks, from pictures, measured on episodes that it never saw.

    python -m reproductions.detectors              collect, train, measure
    python -m reproductions.detectors --quick      minutes, to see that it works
    python -m reproductions.detectors --show       the table of what is checked in

Each task's script makes episodes, about half of which fail, seen by two cameras of 84 x 84; the tasks' own detectors, which look
at the simulator's objects, say which succeeded. What is done already is not done again, and what was interrupted goes on.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from flywheel.bench.machine import describe
from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.training.calibration import measure
from flywheel.training.detector import DetectorConfig, train_detector
from reproductions.kept import command, keep, read_all
from reproductions.progress import progress

RESULTS = Path(__file__).parent / "results" / "detectors"
"""The results that are checked in."""
WORLDS = {
    "lift": "lift_world",
    "lift_red": "stack_world",
    "lift_green": "stack_world",
    "stack": "stack_world",
    "lift_can": "can_world",
    "can": "can_world",
    "square": "square_world",
    "turn_handle": "door_world",
    "door": "door_world",
}
"""The simulated tasks, and the dataset that each shares with those of its world."""
CAMERAS = ("agentview", "eye_in_hand")


@dataclass(frozen=True)
class Config:
    """The experiment."""

    episodes: int = 200
    """Episodes of each task."""
    updates: int = 8_000
    """Gradient updates."""
    held_out: float = 0.3
    """The share of the episodes that is calibrated and measured on."""
    tested: int = 50
    """Further episodes of each task that neither learning nor calibration saw."""
    seed: int = 0
    """The training's."""
    tasks: tuple[str, ...] = tuple(WORLDS)
    """The tasks."""
    robot: str = "sim"
    """The robot, by name."""
    root: Path = Path("runs/detectors")
    """Where the stores and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    processes: int = 1
    """Processes for collecting."""
    quick: bool = False
    """Lift and Can, 16 episodes each and 8 to test, 50 updates; the results are kept under root alone."""
    show: bool = False
    """Run nothing."""


@dataclass(frozen=True)
class Result:
    """One detector."""

    tasks: list[str]
    episodes: int
    """Of each task."""
    updates: int
    held_out: float
    seed: int
    detector: str
    """The hash of its file."""
    scale: float
    offsets: list[float]
    """Its calibration."""
    measured: dict[str, Any]
    """Of the held-out episodes, each half by the other's calibration, as `flywheel.detector.DetectorHeader` has it."""
    tested: dict[str, Any]
    """The same of the further episodes, as far as it is defined of them."""
    training_seconds: float
    """In the process that ended it."""
    command: str
    machine: dict[str, Any]
    """What it ran on, and the commit that it was trained with (``code``)."""


def reproduce(config: Config) -> Result:
    """The result, which is made if it is missing."""
    path = path_of(config)
    if path.exists():
        return Result(**json.loads(path.read_text()))
    stores = tuple(dict.fromkeys(_collect(config, task) for task in config.tasks))
    run = DetectorConfig(
        stores,
        config.root / path.stem,
        config.tasks,
        CAMERAS if config.robot.startswith("sim") else (),
        held_out=config.held_out,
        updates=config.updates,
        seed=config.seed,
        where=f"experiment = '{_EXPERIMENT}' and seed < {config.episodes}",
    )
    began = time.monotonic()
    detector = train_detector(run, progress("updates"), progress("episodes read"))
    seconds = round(time.monotonic() - began, 1)
    result = Result(
        tasks=list(config.tasks),
        episodes=config.episodes,
        updates=config.updates,
        held_out=config.held_out,
        seed=config.seed,
        detector=detector.checkpoint,
        scale=detector.header.scale,
        offsets=list(detector.header.offsets),
        measured=detector.header.measured,
        tested=_test(config, detector),
        training_seconds=seconds,
        command=command("detectors"),
        machine={**describe(), "code": detector.header.code_version},
    )
    keep(path, result)
    return result


def path_of(config: Config) -> Path:
    """Where the result is kept: another name for whatever else is measured."""
    what = json_hash([config.tasks, config.robot, config.held_out, config.tested])[:6]
    return config.results / f"{len(config.tasks)}-tasks-{what}-{config.episodes}-{config.updates}-seed{config.seed}.json"


def load(folder: Path) -> list[Result]:
    """The results that a folder holds, by name."""
    return read_all(Result, folder)


def table(result: Result) -> str:
    """In Markdown: a row per task, and one for all of them; first of the further episodes, then of those that were held out."""
    lines = [
        f"| task ({result.episodes} episodes each, {result.updates:,} updates, seed {result.seed}) | tested | successes "
        "| missed | false alarms | balanced accuracy | calibration error | held out: balanced accuracy | calibration error "
        "| near misses refused |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    held_out = {**result.measured["tasks"], "all": result.measured["all"]}
    for task, values in {**result.tested["tasks"], "all": result.tested["all"]}.items():
        counts = [str(values[key]) for key in ("count", "successes", "missed", "false_alarms")]
        refused = f"{held_out[task]['refused']:.1%} of {held_out[task]['near_misses']}"
        lines.append(f"| {' | '.join([task, *counts, *_told(values), *_told(held_out[task]), refused])} |")
    return "\n".join(lines)


def _told(values: dict[str, Any]) -> list[str]:
    accuracy, error = values["balanced_accuracy"], values["calibration_error"]
    return ["-" if accuracy is None else f"{accuracy:.1%}", f"{error:.3f}"]


_EXPERIMENT, _TEST, _TESTED = "detectors", "detectors-test", 1_000_000
"""What the episodes are recorded under, and the first seed of those that are tested on."""


def _collect(config: Config, task: str) -> Path:
    asked = CollectConfig(
        task,
        config.robot,
        store=config.root / "data",
        dataset=WORLDS[task],
        episodes=config.episodes,
        experiment=_EXPERIMENT,
        processes=config.processes,
        cameras=CAMERAS,
    )
    collect(replace(asked, episodes=config.tested, first_seed=_TESTED, experiment=_TEST), progress(f"test episodes of {task}"))
    return collect(asked, progress(f"episodes of {task}")).dataset


def _test(config: Config, detector: SuccessDetector) -> dict[str, Any]:
    """What the finished detector makes of episodes that it has nothing of."""
    probability, success = {}, {}
    for task in config.tasks:
        store = EpisodeStore.open(_collect(config, task))
        rows = store.query(f"experiment = '{_TEST}' and task = '{task}' and seed < {_TESTED + config.tested}")
        probability[task] = np.array([detector.judge(store, row) for row in rows])
        success[task] = np.array([row.success for row in rows])
    every = measure(np.concatenate(list(probability.values())), np.concatenate(list(success.values())))
    return {"all": every, "tasks": {task: measure(probability[task], success[task]) for task in config.tasks}}


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Print the table."""
    if config.quick:
        tasks = ("lift", "can")
        config = replace(config, tasks=tasks, episodes=16, tested=8, updates=50, held_out=0.5, root=config.root / "quick")
        config = replace(config, results=config.root / "results")
    for result in load(config.results) if config.show else [reproduce(config)]:
        print(table(result))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
