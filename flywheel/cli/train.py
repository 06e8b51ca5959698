"""flywheel train ALGORITHM: train any algorithm on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tyro

from flywheel.cli.console import console, progress, say
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.policy import LearnedPolicy
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, load_config, train

_USAGE = """[bold]flywheel train ALGORITHM --store STORE --output RUN[/bold]

Algorithms: {names}

  flywheel train ALGORITHM --help          every setting of one of them
  flywheel train --config RUN/config.yaml  repeat a run (further options change it, for example --output)

A run that was interrupted goes on when the same command is given again."""


_PATIENCE = 2.0
"""Seconds in which nobody misses a progress bar."""


def run(arguments: list[str]) -> None:
    """Read the algorithm's name, then its settings."""
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(_USAGE.format(names=", ".join(registry.names("algorithms"))))
        return
    if arguments[0] == "--config":
        if len(arguments) < 2:
            raise FlywheelError("--config needs the config.yaml of a run folder.")
        default = load_config(Path(arguments[1]))
        start(parse(default, arguments[2:], "flywheel train --config FILE"))
        return
    start(parse(defaults(arguments[0]), arguments[1:], f"flywheel train {arguments[0]}"))


def defaults(name: str, **changes: Any) -> TrainConfig:
    """A run of one algorithm with its default settings; the store and the run folder must be given."""
    settings: Any = {"store": tyro.MISSING, "output": tyro.MISSING, "data": DataConfig(), **changes}
    return TrainConfig(name=name, algorithm=algorithm_class(name).Config(), **settings)


def parse(default: TrainConfig, arguments: list[str], prog: str, description: str | None = None) -> TrainConfig:
    """Read options over a default; without a description the help has that of a training run."""
    return tyro.cli(
        TrainConfig, default=default, args=arguments, prog=prog, description=description, config=(tyro.conf.SuppressFixed,)
    )


def start(config: TrainConfig) -> None:
    """Train with a progress bar, then say where the policy is."""
    policy = train_visibly(config, f"Training {config.name}")
    say(f"Policy {policy.agent_id} is in {config.output}.")
    say(f"Measure it with: flywheel eval TASK --policy {config.output} --output FOLDER")


def train_visibly(config: TrainConfig, title: str) -> LearnedPolicy:
    """Train with a progress bar, and with one for reading the store where that takes long."""
    with progress("Reading the store", "episodes", after=_PATIENCE) as reading, progress(title, "updates") as training:
        return train(config, training, reading)
