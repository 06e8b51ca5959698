"""A run killed at any moment and started again ends bit-identical to an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.bench.training.resumes import differences, resume_killed
from flywheel.bench.training.runs import ALGORITHMS, make_config, make_store
from flywheel.training.train import train


@pytest.mark.parametrize("number", range(len(ALGORITHMS)), ids=ALGORITHMS)
def test_killed_and_resumed_run_is_bit_identical(tmp_path: Path, number: int) -> None:
    found = resume_killed(tmp_path, number, kills=3, updates=330)
    assert found["algorithm"] == ALGORITHMS[number]
    assert found["kills"] >= 1
    assert found["different"] == []


def test_a_difference_would_be_seen(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    runs = [make_config("bc", store, tmp_path / f"{updates}", updates) for updates in (50, 60)]
    for run in runs:
        train(run)
    found = differences(runs[0].output, runs[1].output)
    assert found == ["policy.safetensors", "metrics.csv", "update", "state_dict", "optimizer_states"]
