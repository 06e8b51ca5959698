"""The number of threads is measured once, and a run keeps to it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flywheel.algorithms.base import Sizes
from flywheel.algorithms.iql import IQL, IQLConfig
from flywheel.bench.training.runs import make_config, make_store
from flywheel.core.errors import FlywheelError
from flywheel.training.threads import choose_threads
from flywheel.training.train import load_config, train
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, random_batch

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("processes", [1, 2, 1000])
def test_one_thread_or_a_share_of_all_cores(processes: int) -> None:
    algorithm = IQL(IQLConfig(hidden=(16, 16)), Sizes(STATE_DIM, ACTION_DIM))
    before = {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}
    chosen = choose_threads(algorithm, random_batch(0), processes)
    assert chosen in (1, max(1, CORES // processes))
    assert torch.get_num_threads() == chosen
    assert all(torch.equal(before[name], tensor) for name, tensor in algorithm.state_dict().items())
    assert all(parameter.grad is None for parameter in algorithm.parameters())


def test_what_was_measured_is_recorded_and_kept(tmp_path: Path) -> None:
    first = make_config("bc", make_store(tmp_path / "store"), tmp_path / "run", updates=50)
    measured = dataclasses.replace(first, threads=0)
    train(measured)
    chosen = load_config(tmp_path / "run" / "config.yaml").threads
    assert chosen in (1, CORES)
    train(dataclasses.replace(measured, updates=100))
    train(dataclasses.replace(measured, updates=100, threads=chosen))
    assert load_config(tmp_path / "run" / "config.yaml") == dataclasses.replace(measured, updates=100, threads=chosen)
    with pytest.raises(FlywheelError, match=r"other settings \(threads\)"):
        train(dataclasses.replace(measured, updates=100, threads=chosen + 1))


def test_a_measured_run_is_that_of_its_number(tmp_path: Path) -> None:
    fixed = make_config("iql", make_store(tmp_path / "store"), tmp_path / "fixed", updates=10)
    measured = dataclasses.replace(fixed, threads=0, output=tmp_path / "measured")
    train(measured)
    chosen = load_config(tmp_path / "measured" / "config.yaml").threads
    train(dataclasses.replace(fixed, threads=chosen))
    assert (tmp_path / "fixed" / "metrics.csv").read_bytes() == (tmp_path / "measured" / "metrics.csv").read_bytes()
