"""python -m flywheel.bench.experts: how often each task's script succeeds on each simulated arm, careful and imperfect.

The seeds are of neither training nor evaluation of policies, and none of the scripts was tuned on them.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from flywheel.bench.machine import describe
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import code_version
from flywheel.rollout.rollout import rollout
from flywheel.rollout.statistics import wilson
from flywheel.rollout.workers import run_job
from flywheel.tasks.env import make_env


@dataclass(frozen=True)
class ExpertsConfig:
    """Measure the scripts' success."""

    tasks: tuple[str, ...] = ("lift", "lift_red", "lift_green", "stack", "can", "lift_can", "square", "door", "turn_handle")
    """The tasks, by name."""
    robots: tuple[str, ...] = ("sim:Panda", "sim:Sawyer", "sim:UR5e")
    """The robots, by name."""
    imperfections: tuple[float, ...] = (0.0, 1.0)
    """How imperfect the scripts are: 0 is careful, 1 what `flywheel collect` uses."""
    episodes: int = 100
    """How many episodes, of consecutive seeds, for each."""
    first_seed: int = 30_000_000
    """The seed of the first."""
    processes: int = 1
    """How many episodes run at once."""
    output: Path | None = None
    """Also write the figures to this JSON file, after every one; what it already holds is not run again."""


@dataclass(frozen=True)
class ExpertResult:
    """One script on one robot."""

    task: str
    robot: str
    imperfection: float
    first_seed: int
    episodes: int
    successes: int
    steps: float | None
    """The median length of the successful episodes."""
    seconds: float
    """How long it took, building the simulation included."""
    code: str
    """The version of the code that ran."""


def main(config: ExpertsConfig) -> None:
    """Print one row of a table as soon as it is known."""
    print(f"On {describe()}; seeds from {config.first_seed:,}; successes and Wilson's 95 % interval, and median steps to it.\n")
    print(f"| task | robot |{''.join(f' imperfection {value:g} | steps |' for value in config.imperfections)}")
    print("|---" * (2 + 2 * len(config.imperfections)) + "|")
    found = _load(config.output)
    for task in config.tasks:
        for robot in config.robots:
            row = [_find(found, config, task, robot, imperfection) for imperfection in config.imperfections]
            print(f"| {task} | {robot} |{''.join(map(_cell, row))}", flush=True)


def measure(config: ExpertsConfig, task: str, robot: str, imperfection: float) -> ExpertResult:
    """Run the episodes of one script on one robot."""
    start = time.perf_counter()
    seeds = range(config.first_seed, config.first_seed + config.episodes)
    outcomes = list(run_job(ExpertJob(task, robot, imperfection), seeds, config.processes))
    steps = [length for success, length in outcomes if success]
    return ExpertResult(
        task,
        robot,
        imperfection,
        config.first_seed,
        episodes=len(outcomes),
        successes=len(steps),
        steps=statistics.median(steps) if steps else None,
        seconds=round(time.perf_counter() - start, 1),
        code=code_version(),
    )


@dataclass(frozen=True)
class ExpertJob:
    """What one process does: a seed to (success, steps)."""

    task: str
    robot: str
    imperfection: float

    @contextmanager
    def open(self) -> Iterator[Callable[[int], tuple[bool, int]]]:
        """Yields the function that runs the episode of a seed."""
        with make_env(self.task, self.robot) as env:
            expert = env.task.expert(self.imperfection)

            def work(seed: int) -> tuple[bool, int]:
                episode = rollout(env, expert, seed)
                return bool(episode.metadata.success), episode.transitions

            yield work


def _find(found: list[ExpertResult], config: ExpertsConfig, task: str, robot: str, imperfection: float) -> ExpertResult:
    wanted = (task, robot, imperfection, config.first_seed, config.episodes)
    for result in found:
        if (result.task, result.robot, result.imperfection, result.first_seed, result.episodes) == wanted:
            return result
    found.append(measure(config, task, robot, imperfection))
    if config.output is not None:
        rows = [asdict(result) for result in found]
        write_atomically(config.output, json.dumps({"machine": describe(), "results": rows}, indent=1).encode())
    return found[-1]


def _load(path: Path | None) -> list[ExpertResult]:
    if path is None or not path.exists():
        return []
    return [ExpertResult(**row) for row in json.loads(path.read_text())["results"]]


def _cell(result: ExpertResult) -> str:
    low, high = wilson(result.successes, result.episodes)
    steps = "" if result.steps is None else f"{result.steps:g}"
    return f" {result.successes} of {result.episodes} ({low:.0%} to {high:.0%}) | {steps} |"


if __name__ == "__main__":
    try:
        main(tyro.cli(ExpertsConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")
