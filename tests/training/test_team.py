"""Several processes that train together: what one would have learned, resumed exactly, and gone when rank 0 is."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from flywheel.bench.training.resumes import differences
from flywheel.bench.training.runs import make_config, make_counter, make_store, run, start, wait_until
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.training.callbacks import read_metrics
from flywheel.training.data import Part
from flywheel.training.faults import Fault
from flywheel.training.team import Team, free_port
from flywheel.training.train import TrainConfig, train
from tests.training import ranks


def _teams(port: int) -> list[Team]:
    return [Team(Part(rank, 2), port) for rank in range(2)]


def _together(target: Callable[..., None], folder: Path, *arguments: object) -> list[str]:
    """Run two ranks; returns what each was refused with."""
    processes = [start(target, folder, team, *arguments) for team in _teams(free_port())]
    for process in processes:
        process.join(200)
        assert process.exitcode == 0
    return [(folder / f"{rank}.txt").read_text() for rank in range(2)]


def _config(folder: Path, output: str, updates: int = 120) -> TrainConfig:
    """Of two processes."""
    store = make_store(folder / "store")
    return dataclasses.replace(make_config("bc", store, folder / output, updates), devices=2)


def test_every_algorithm_has_the_same_weights_in_all_processes(tmp_path: Path) -> None:
    names = list(registry.names("algorithms"))
    teams = list(zip(*(_teams(free_port()) for _ in names), strict=True))
    processes = [start(ranks.train_all, names, tmp_path, list(each)) for each in teams]
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    for name in names:
        one, other = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(2))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    # The loss is a mean over the batch and draws nothing: only the order of the sums differs.
    pair = _config(tmp_path, "pair")
    alone = dataclasses.replace(pair, devices=1, output=tmp_path / "alone")
    seen: list[int] = []
    two, one = train(pair, lambda done, total: seen.append(done)), train(alone)
    assert seen == [0, 50, 100, 120]
    for name, tensor in one.algorithm.state_dict().items():
        torch.testing.assert_close(two.algorithm.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    rows = [read_metrics(config.output / "metrics.csv") for config in (pair, alone)]
    for left, right in zip(*rows, strict=True):
        assert left == pytest.approx(right, rel=1e-4)


def test_weights_that_drift_apart_are_refused(tmp_path: Path) -> None:
    for sentence in _together(ranks.train_drifting, tmp_path):
        assert "became different in 2 processes" in sentence


def test_a_batch_that_one_process_alone_sees_stops_both(tmp_path: Path) -> None:
    refused = _together(ranks.train_spoiled, tmp_path, 7)
    for rank, name in enumerate(("non_finite.safetensors", "non_finite-1.safetensors")):
        assert "in update 7 (loss/actor)" in refused[rank]
        fault = Fault.load(tmp_path / name)
        assert bool(fault.batch.observation["state"].isnan().any()) == bool(rank)
    assert not (tmp_path / "last.ckpt").exists()


def _others_of(run: Path) -> list[int]:
    """The ids of a run's further processes that are alive."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            words = entry.read_bytes().split(b"\0")
            found += [int(entry.parent.name)] if b"flywheel.training.rank" in words and bytes(run) in words else []
    return found


@pytest.mark.slow
def test_killed_and_resumed_together_is_bit_identical_and_leaves_no_process(tmp_path: Path) -> None:
    whole = _config(tmp_path, "whole", updates=300)
    killed = dataclasses.replace(whole, output=tmp_path / "killed")
    for target in (50, 150):
        done = make_counter()
        process = start(run, killed, done)
        wait_until(process, lambda done=done, target=target: done.value >= target)
        process.kill()
        process.join()
    assert done.value >= 150
    deadline = time.monotonic() + 30
    while _others_of(killed.output):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    train(whole)
    train(killed)
    assert differences(whole.output, killed.output) == []


@pytest.mark.slow
def test_a_process_that_dies_is_named(tmp_path: Path) -> None:
    config = _config(tmp_path, "run", updates=100_000)

    def kill_other(done: int, total: int) -> None:
        for process in _others_of(config.output) if done == 50 else []:
            (config.output / "rank-1.log").write_text("out of memory\n")
            os.kill(process, signal.SIGKILL)

    with pytest.raises(FlywheelError, match=r"Process 1 of 2 ended \(out of memory\)"):
        train(config, kill_other)
    assert not _others_of(config.output)


@pytest.mark.parametrize(("settings", "words"), [({"devices": 0}, "at least 1"), ({"devices": 3}, "shared evenly by 3")])
def test_devices_that_do_not_fit_are_refused(tmp_path: Path, settings: dict, words: str) -> None:
    with pytest.raises(FlywheelError, match=words):
        train(dataclasses.replace(_config(tmp_path, "run"), **settings))
