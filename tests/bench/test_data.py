from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flywheel.bench import data
from flywheel.bench.data import (
    HORIZON,
    measure_append,
    measure_environment,
    measure_gather_limit,
    measure_sampler,
    synthetic_columns,
    synthetic_store,
)
from flywheel.bench.machine import describe
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import ActionableGoals, TaskReward
from flywheel.datasets.sampler import locate


def test_a_rate_is_work_done_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def work() -> int:
        nonlocal now
        now += 0.25
        return 10

    monkeypatch.setattr(data, "time", SimpleNamespace(perf_counter=lambda: now))
    assert data.measure(work, bursts=3, seconds=1.0) == [40.0] * 3
    assert now == 0.25 + 3 * 1.0  # the first call only warms up


def test_synthetic_columns_are_like_those_of_a_synthetic_store(tmp_path: Path) -> None:
    store = synthetic_store(tmp_path, 3 * HORIZON)
    real, synthetic = Columns.open(store, store.snapshot()), synthetic_columns(3 * HORIZON)
    for name in ("episode_id", "transitions", "success", "terminal", "episode_return", "task"):
        np.testing.assert_array_equal(getattr(real.table, name), getattr(synthetic.table, name))
    for name in ("state", "action", "reward"):
        assert getattr(real, name).shape == getattr(synthetic, name).shape
        assert getattr(real, name).dtype == getattr(synthetic, name).dtype
    np.testing.assert_array_equal(real.reward, synthetic.reward)

    everything = locate(synthetic.table, np.arange(synthetic.table.total))
    batch = synthetic.gather(everything, TaskReward()(synthetic.table, everything, np.random.default_rng(0)), 0.9)
    assert torch.equal(batch.discount == 0, batch.reward == 1)
    assert int(batch.reward.sum()) == 2


def test_every_measurement_gives_one_positive_rate_per_burst(tmp_path: Path) -> None:
    columns = synthetic_columns(20_000)
    measured = [
        measure_sampler(columns, TaskReward(), bursts=2, seconds=0.01),
        measure_sampler(columns, ActionableGoals(), bursts=2, seconds=0.01),
        measure_gather_limit(columns, with_goal=True, bursts=2, seconds=0.01),
        measure_append(tmp_path, bursts=2, seconds=0.01),
        measure_environment(bursts=2, seconds=0.05),
    ]
    assert [len(rates) for rates in measured] == [2] * 5
    assert min(min(rates) for rates in measured) > 0


def test_machine_says_what_it_is() -> None:
    machine = describe()
    assert int(machine["cores"]) >= 1
    assert float(machine["memory_gib"]) > 0
    assert machine["torch"] == torch.__version__.partition("+")[0]
    assert {"cpu", "system", "load", "code", "python", "numpy"} <= machine.keys()
