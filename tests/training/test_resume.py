"""A run killed at any moment and started again ends bit-identical to an uninterrupted one (issue 2, item 4)."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from flywheel.datasets.store import EpisodeStore
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from tests.point import episode, make_store

# A server that has imported everything forks each run: what is killed is a real process, without seconds of imports each time.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["flywheel.training.train", "flywheel.algorithms.cql", "flywheel.algorithms.actionable_models"])

UPDATES = 330


def _config(algorithm: str, store: Path, output: Path) -> TrainConfig:
    settings = algorithm_class(algorithm).Config(hidden=(32, 32))
    data = DataConfig(batch_size=32)
    return TrainConfig(algorithm, settings, store=store, output=output, updates=UPDATES, save_every=50, data=data)


def _start(config: TrainConfig) -> BaseProcess:
    process = _CONTEXT.Process(target=train, args=(config,))
    process.start()
    return process


def _finish(config: TrainConfig) -> None:
    process = _start(config)
    process.join(120)
    assert process.exitcode == 0


def _kill_at(config: TrainConfig, moment: float) -> None:
    """Kill a run `moment` seconds after its next checkpoint (or at once after it has finished)."""
    process = _start(config)
    checkpoint = config.output / "last.ckpt"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    while process.is_alive() and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns != before):
        time.sleep(0.001)
    time.sleep(moment)
    process.kill()
    process.join()


def _assert_equal(left: object, right: object) -> None:
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor)
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key in left:
            _assert_equal(left[key], right[key])
    elif isinstance(left, list):
        assert isinstance(right, list)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            _assert_equal(one, other)
    else:
        assert left == right


@pytest.mark.parametrize("algorithm", ["bc", "iql", "cql", "actionable_models"])
def test_killed_and_resumed_run_is_bit_identical(tmp_path: Path, algorithm: str) -> None:
    make_store(tmp_path / "store")
    whole, killed = (_config(algorithm, tmp_path / "store", tmp_path / name) for name in ("whole", "killed"))
    _finish(whole)

    rng = random.Random(algorithm)
    for _ in range(3):
        _kill_at(killed, rng.uniform(0.0, 0.1))
        # The store grows meanwhile; the run keeps to the snapshot that it pinned.
        with EpisodeStore.open(tmp_path / "store").writer() as writer:
            writer.append(episode(rng.randint(1000, 2000)))
    _finish(killed)

    for name in ("policy.safetensors", "metrics.csv", "snapshot.json"):
        assert (whole.output / name).read_bytes() == (killed.output / name).read_bytes()
    parts = [torch.load(run.output / "last.ckpt", weights_only=True) for run in (whole, killed)]
    for name in ("update", "state_dict", "optimizer_states"):
        _assert_equal(parts[0][name], parts[1][name])
    assert parts[0]["update"] == UPDATES
