"""One row of OGBench's table: make the data, train, evaluate the last update on 5 goals x 50 episodes, print both numbers.

    python -m reproductions.ogbench scene-play gciql --seeds 0 1
    python -m reproductions.ogbench scene-play gciql --code jax      OGBench's own agent at the same budget
    python -m reproductions.ogbench scene-play gciql --quick         minutes on a laptop, to see that it works
    python -m reproductions.ogbench visual-cube-single-play gciql    from pictures, with the goal's picture

What is done already is not done again.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from flywheel.bench.machine import describe
from flywheel.core.errors import FlywheelError
from flywheel.datasets.relabel import ActionableGoals
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.tasks.ogbench import GOALS
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from reproductions.ogbench.data import EPISODES, DataSet, content, export, generate
from reproductions.ogbench.published import AUGMENT, FEATURES, check_peer, settings
from reproductions.ogbench.results import RESULTS, Result, load, table
from reproductions.progress import progress

PEER = Path(__file__).with_name("peer.py")


@dataclass(frozen=True)
class Config:
    """One row of the table."""

    dataset: tyro.conf.Positional[str]
    """The data set, for example scene-play."""
    algorithm: tyro.conf.Positional[str]
    """The agent, for example gciql."""
    seeds: tuple[int, ...] = (0,)
    """A run for each."""
    code: Literal["flywheel", "jax"] = "flywheel"
    """Ours, or OGBench's own agents, which need the environment that 'make .venv-peers/ogbench/.ready' makes."""
    updates: int = 50_000
    """Gradient updates; the paper takes 1,000,000."""
    batch_size: int = 256
    """The paper takes 1024."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of every network; the paper takes 512 512 512."""
    network: str = "impala"
    """What looks at pictures, in visual data sets; nature is several times as fast."""
    episodes: int = EPISODES
    """Episodes of data, of 1000 transitions each."""
    per_goal: int = 50
    """Evaluation episodes per goal."""
    quick: bool = False
    """1000 updates, 20 episodes of data, 2 evaluation episodes per goal; the result is kept under root alone."""
    root: Path = Path("runs/ogbench")
    """Where the data and the runs are kept."""
    results: Path = RESULTS
    """Where the results are kept."""
    processes: int = 1
    """Processes for making data and evaluating; training takes one core."""
    python: Path = Path(".venv-peers/ogbench/bin/python")
    """The interpreter of OGBench's own agents."""


def reproduce(config: Config) -> list[Result]:
    """The result of each seed; raises `FlywheelError` for names that do not exist."""
    DataSet.of(config.dataset)
    if config.code == "jax":
        check_peer(config.dataset, config.algorithm)
    else:
        algorithm_class(config.algorithm)
    found = []
    for seed in config.seeds:
        row = _untrained(config, seed)
        done = [r for r in load(config.results) if (r.file_name, r.episodes_per_goal) == (row.file_name, row.episodes_per_goal)]
        found.append(done[0] if done else _run(config, row))
    return found


def _untrained(config: Config, seed: int) -> Result:
    """The row before anything is known of it."""
    own = settings(config.dataset, config.algorithm, config.code)
    return Result(
        dataset=config.dataset,
        algorithm=config.algorithm,
        code=config.code,
        seed=seed,
        updates=config.updates,
        batch_size=config.batch_size,
        hidden=config.hidden,
        settings=own | ({"network": config.network} if config.dataset.startswith("visual-") else {}),
        successes=(),
        episodes_per_goal=config.per_goal,
        training_seconds=None,
        evaluation_seconds=0.0,
        data={"episodes": config.episodes},
        command=shlex.join(["python", "-m", "reproductions.ogbench", *sys.argv[1:]]),
        machine={},
    )


def _run(config: Config, row: Result) -> Result:
    store = generate(config.dataset, config.root / "data", config.episodes, config.processes, progress("episodes made"))
    digest = content(config.dataset, store, config.episodes)[1]
    row = replace(row, data={"episodes": config.episodes, "sha256": digest}, machine=describe())
    folder = config.root / "runs" / Path(row.file_name).stem
    result = _ours(config, row, store, folder) if config.code == "flywheel" else _theirs(config, row, store, folder)
    result.save(config.results)
    return result


def _ours(config: Config, row: Result, store: EpisodeStore, folder: Path) -> Result:
    is_resumed = (folder / "train").exists()
    began = time.monotonic()
    train(_training(config, row, store, folder), progress("updates"))
    trained = time.monotonic()
    evaluation = evaluate(
        EvaluateConfig(
            task=DataSet.of(row.dataset).task,
            output=folder / "evaluation",
            policy=str(folder / "train"),
            episodes=GOALS * config.per_goal,
            processes=config.processes,
        ),
        progress("episodes evaluated"),
    )
    successes = tuple(sum(r.success for r in evaluation.results if r.seed % GOALS == goal) for goal in range(GOALS))
    seconds = None if is_resumed else trained - began
    return replace(row, successes=successes, training_seconds=seconds, evaluation_seconds=time.monotonic() - trained)


def _training(config: Config, row: Result, store: EpisodeStore, folder: Path) -> TrainConfig:
    own = dict(row.settings)
    streams = {name: own.pop(name) for name in ("p_chained", "horizon") if name in own}
    data = DataConfig(
        batch_size=row.batch_size,
        subgoal_steps=own.pop("subgoal_steps", 25),
        normalise=own.pop("normalise", True),
        actionable=ActionableGoals(**streams),
    )
    if config.episodes < EPISODES:
        data = replace(data, where=f"seed < {config.episodes}")
    algorithm: Any = algorithm_class(row.algorithm).Config()
    if store.schema.picture_keys:
        data = replace(data, pictures=store.schema.picture_keys, augment=AUGMENT)
        algorithm = replace(algorithm, encoder=replace(algorithm.encoder, network=own.pop("network"), features=FEATURES))
    return TrainConfig(
        name=row.algorithm,
        algorithm=dataclasses.replace(algorithm, hidden=row.hidden, **own),
        store=store.path,
        output=folder / "train",
        updates=row.updates,
        seed=row.seed,
        data=data,
        save_every=10_000,
    )


def _theirs(config: Config, row: Result, store: EpisodeStore, folder: Path) -> Result:
    if not config.python.exists():
        raise FlywheelError(f"There is no {config.python}; make it with: make .venv-peers/ogbench/.ready.")
    npz = config.root / "npz" / f"{row.dataset}-{config.episodes}.npz"
    if not npz.exists():
        export(row.dataset, store, npz, config.episodes)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "peer.json"
    if not output.exists():
        options = ["--npz", npz, "--dataset", row.dataset, "--algorithm", row.algorithm, "--settings", json.dumps(row.settings)]
        options += ["--updates", row.updates, "--batch-size", row.batch_size, "--hidden", *row.hidden]
        options += ["--seed", row.seed, "--episodes", config.per_goal, "--output", output]
        subprocess.run([config.python, PEER, *map(str, options)], check=True)
    measured = json.loads(output.read_text())
    return replace(
        row,
        successes=tuple(measured["successes"]),
        training_seconds=measured["training_seconds"],
        evaluation_seconds=measured["evaluation_seconds"],
        machine={**row.machine, "peer": measured["versions"]},
    )


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Reproduce one row and print it beside the published one."""
    if config.quick:
        config = replace(config, updates=1000, episodes=20, per_goal=2, results=config.root / "quick")
    print(table(reproduce(config)))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except FlywheelError as error:
        sys.exit(str(error))
