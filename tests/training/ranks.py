"""What the processes of `test_team` do: a module of their own, because a process cannot start from a test's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.algorithms.bc import BC
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.training.fit import fit
from flywheel.training.module import AlgorithmModule
from flywheel.training.team import Team
from flywheel.training.train import algorithm_class
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, random_batch

BATCH, UPDATES = 16, 10


class _RandomBatches:
    """Each rank's part is other rows; one update of one rank may hold a NaN."""

    def __init__(self, rank: int, spoiled: int = -1) -> None:
        self.rank, self.spoiled = rank, spoiled

    def updates(self, start: int, stop: int) -> Iterator[Batch]:
        batch = random_batch(self.rank, size=(stop - start) * BATCH // 2)
        if self.spoiled >= start:
            batch.observation["state"][(self.spoiled - start) * BATCH // 2] = float("nan")
        yield batch


class Drifting(BC):
    """Adds noise to its weights, which comes from other seeds in each process."""

    def after_step(self) -> None:
        super().after_step()
        with torch.no_grad():
            next(self.actor.parameters()).add_(torch.rand(()))


def train_all(names: list[str], folder: Path, teams: list[Team]) -> None:
    """Train each algorithm in its turn, and leave this rank's weights in ``NAME-RANK.pt``."""
    torch.set_num_threads(1)
    for name, team in zip(names, teams, strict=True):
        module = _module(algorithm_class(name), team)
        _fit(module, folder / name, team)
        torch.save(_weights(module), folder / f"{name}-{team.part.rank}.pt")


def train_drifting(folder: Path, team: Team) -> None:
    """Leave the sentence of the refusal in ``RANK.txt``."""
    _refused(_module(Drifting, team), folder, team)


def train_spoiled(folder: Path, team: Team, update: int) -> None:
    """Let rank 1 alone meet a NaN; leave the sentence of the refusal in ``RANK.txt``."""
    _refused(_module(BC, team), folder, team, update if team.part.rank else -1)


def _refused(module: AlgorithmModule, folder: Path, team: Team, spoiled: int = -1) -> None:
    try:
        _fit(module, folder, team, spoiled)
    except FlywheelError as error:
        (folder / f"{team.part.rank}.txt").write_text(str(error))


def _module(cls: type[Algorithm], team: Team) -> AlgorithmModule:
    torch.manual_seed(0)
    algorithm = cls(cls.Config(hidden=(16, 12)), Sizes(STATE_DIM, ACTION_DIM, True))
    return AlgorithmModule(algorithm, batch_size=BATCH, seed=0, part=team.part)


def _fit(module: AlgorithmModule, folder: Path, team: Team, spoiled: int = -1) -> None:
    source: Any = _RandomBatches(team.part.rank, spoiled)
    fit(module, source, folder, UPDATES, UPDATES, "cpu", lambda done, total: None, team)


def _weights(module: AlgorithmModule) -> dict[str, Tensor]:
    return module.algorithm.state_dict()
