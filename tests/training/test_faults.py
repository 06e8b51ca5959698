"""A run that becomes non-finite stops, keeps its last good checkpoint and says which update did it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes, group
from flywheel.algorithms.iql import IQL, IQLConfig
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import TaskReward
from flywheel.datasets.sampler import UniformSampler
from flywheel.training.callbacks import AtomicCheckpointIO
from flywheel.training.data import ChunkSource
from flywheel.training.faults import Fault, first_non_finite
from flywheel.training.fit import fit
from flywheel.training.module import AlgorithmModule, NonFiniteError
from tests.point import make_store

BATCH, SEED = 8, 3


class Spoiled(ChunkSource):
    """The same batches, but one update sees a reward that no robot gave."""

    spoiled = 73

    def updates(self, start: int, stop: int) -> Iterator[Batch]:
        for chunk in super().updates(start, stop):
            reward = chunk.reward.clone()
            if start <= self.spoiled < start + len(chunk) // BATCH:
                reward[(self.spoiled - start) * BATCH + 5] = float("inf")
            start += len(chunk) // BATCH
            yield replace(chunk, reward=reward)


class _OneWeight(Algorithm):
    """Loses nothing, and has one thing go wrong in its 60th update."""

    name, Config = "one_weight", AlgorithmConfig

    def __init__(self, what: str) -> None:
        super().__init__(AlgorithmConfig(), Sizes(4, 2))
        self.actor = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.actor.weight)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.what = what

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        weight, last = self.actor.weight.sum(), int(self.count) == 60
        if self.what == "gradient" and last:
            return {"actor": (weight - weight).sqrt()}  # 0, with slope infinity
        return {"actor": weight.square()}

    def after_step(self) -> None:
        if self.what == "weight" and int(self.count) == 60:
            self.actor.weight.data.fill_(float("nan"))
        self.count += 1

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [group(1e-3, self.actor)]


class _Once(_OneWeight):
    """Goes wrong the first time only, as a race on a GPU can."""

    calls = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        return {"actor": self.actor.weight.sum() * (float("nan") if self.calls == 61 else 1.0)}


@pytest.fixture
def source(tmp_path: Path) -> ChunkSource:
    store = make_store(tmp_path / "store", range(10))
    columns = Columns.open(store, store.snapshot())
    return Spoiled(columns, UniformSampler(columns.table), TaskReward(), batch_size=BATCH, discount=0.9, seed=SEED)


def _fault(algorithm: Algorithm, source: ChunkSource, folder: Path) -> Fault:
    module = AlgorithmModule(algorithm, batch_size=BATCH, seed=SEED)
    with pytest.raises(NonFiniteError, match="the last good checkpoint is kept") as caught:
        fit(module, source, folder, 200, 50, "cpu", lambda done, total: None)
    assert str(folder / "non_finite.safetensors") in str(caught.value)
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert checkpoint["update"] == 50
    assert not first_non_finite(checkpoint["state_dict"])
    return Fault.load(folder / "non_finite.safetensors")


def test_the_batch_that_did_it_is_kept_and_does_it_again(tmp_path: Path, source: ChunkSource) -> None:
    torch.manual_seed(0)
    algorithm = IQL(IQLConfig(hidden=(16, 16)), Sizes(4, 2))
    fault = _fault(algorithm, source, tmp_path)
    assert (fault.update, fault.found) == (73, "loss/critic")
    assert fault.losses["critic"] == float("inf")
    assert fault.batch.reward.isinf().nonzero().tolist() == [[5]]
    clean = ChunkSource(source.columns, source.sampler, source.relabeler, batch_size=BATCH, discount=0.9, seed=SEED).draw(1)[
        23 * BATCH : 24 * BATCH
    ]
    assert torch.equal(fault.batch.action, clean.action)
    assert torch.equal(fault.batch.next_observation["state"], clean.next_observation["state"])

    algorithm.load_state_dict(fault.state)
    torch.manual_seed(fault.seed)
    again = {name: float(loss.detach()) for name, loss in algorithm.losses(fault.batch).items()}
    assert again == fault.losses


@pytest.mark.parametrize(("what", "found"), [("gradient", "gradient/actor.weight"), ("weight", "weight/actor.weight")])
def test_a_gradient_or_a_weight_is_named(tmp_path: Path, source: ChunkSource, what: str, found: str) -> None:
    fault = _fault(_OneWeight(what), source, tmp_path)
    assert (fault.update, fault.found) == (60, found)
    assert not first_non_finite(fault.state)


def test_what_does_not_happen_again_keeps_the_whole_chunk(tmp_path: Path, source: ChunkSource) -> None:
    fault = _fault(_Once(""), source, tmp_path)
    assert (fault.update, fault.found) == (50, "")
    assert len(fault.batch) == 50 * BATCH


def test_large_is_not_infinite() -> None:
    tensors = {"large": torch.full((100,), 3e38), "count": torch.tensor(3), "empty": torch.zeros(0)}
    assert first_non_finite(tensors) == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_entry_of_many_is_found(value: float) -> None:
    bad = torch.zeros(7, 100)
    bad[3, 41] = value
    assert first_non_finite({"good": torch.ones(3), "bad": bad, "worse": bad}) == "bad"


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "])
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FlywheelError, match="holds no non-finite update"):
        Fault.load(path)


def test_a_full_disk_is_said_and_the_last_checkpoint_kept(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"update": 1}, path)
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The process's own limit fails like a full disk does; Python ignores the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(FlywheelError, match=r"last\.ckpt cannot be written .*; the one before is kept; make room"):
            AtomicCheckpointIO().save_checkpoint({"update": 2, "weights": torch.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
