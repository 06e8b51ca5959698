"""T3: a batch that makes the losses non-finite, at a random update; the run stops, and names and keeps it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flywheel.algorithms.base import Sizes
from flywheel.bench.durability.episodes import SCHEMA
from flywheel.bench.training.runs import ALGORITHMS, make_store
from flywheel.core.batch import Batch
from flywheel.datasets.columns import Columns
from flywheel.training.data import ChunkSource
from flywheel.training.faults import Fault, first_non_finite
from flywheel.training.fit import fault_file, fit, load_checkpoint
from flywheel.training.module import AlgorithmModule, NonFiniteError
from flywheel.training.recipe import DataConfig, make_recipe
from flywheel.training.train import algorithm_class

BATCH, UPDATES, SAVE_EVERY = 32, 200, 50


class Spoiled(ChunkSource):
    """The batches of a source, one row of which is not what was stored."""

    update: int
    row: int
    value: float

    def updates(self, start: int, stop: int) -> Iterator[Batch]:
        """As the source's."""
        for chunk in super().updates(start, stop):
            state = chunk.observation["state"].clone()
            if start <= self.update < start + len(chunk) // BATCH:
                state[(self.update - start) * BATCH + self.row] = self.value
            start += len(chunk) // BATCH
            yield replace(chunk, observation={**chunk.observation, "state": state})


def spoil(folder: Path, number: int, runs: int = 5) -> dict[str, Any]:
    """So many runs, each with one spoiled row; ``wrong`` counts those that did not stop, or kept something else.

    `number` chooses the algorithm and seeds the updates, the rows and the values: NaN or infinite.
    """
    rng, algorithm = random.Random(number), ALGORITHMS[number % len(ALGORITHMS)]
    store = make_store(folder / "store")
    columns = Columns.open(store, store.snapshot())
    recipe = make_recipe(DataConfig(), algorithm_class(algorithm), columns)
    wrong = 0
    for run in range(runs):
        source = Spoiled(columns, recipe.sampler, recipe.relabeler, batch_size=BATCH, discount=0.99, seed=run)
        source.update, source.row = rng.randrange(UPDATES), rng.randrange(BATCH)
        source.value = rng.choice([float("nan"), float("inf"), float("-inf")])
        output = folder / f"{run}"
        output.mkdir()
        wrong += not _is_caught(source, algorithm, recipe.goal_conditioned, output)
    return {"algorithm": algorithm, "runs": runs, "wrong": wrong}


def _is_caught(source: Spoiled, name: str, goal_conditioned: bool, output: Path) -> bool:
    """Whether the run stops at the spoiled update, keeps its batch, and leaves the checkpoint from before it and no policy."""
    cls = algorithm_class(name)
    sizes = Sizes(SCHEMA.observation.state_dim, SCHEMA.action.dim, goal_conditioned)
    module = AlgorithmModule(cls(cls.Config(hidden=(32, 32)), sizes), batch_size=BATCH, seed=source.seed)
    try:
        fit(module, source, output, UPDATES, SAVE_EVERY, "cpu", lambda done, total: None)
    except NonFiniteError:
        fault = Fault.load(output / fault_file(0))
        row = fault.batch.observation["state"][source.row]
        kept = bool((row == source.value).all() or (row.isnan().all() and source.value != source.value))
        return fault.update == source.update and kept and _good(output / "last.ckpt", source.update)
    return False


def _good(checkpoint: Path, update: int) -> bool:
    """Whether the checkpoint is the last one before an update, and finite; there is none in the first chunk."""
    expected = update // SAVE_EVERY * SAVE_EVERY
    if not expected:
        return not checkpoint.exists()
    held = load_checkpoint(checkpoint)
    return held["update"] == expected and not first_non_finite(held["state_dict"])
