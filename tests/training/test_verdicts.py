from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flywheel.algorithms.iql import IQLConfig
from flywheel.core.errors import FlywheelError
from flywheel.datasets.columns import Columns
from flywheel.detector import SuccessDetector
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, train
from flywheel.training.verdicts import Acceptance, first_accepted, with_verdicts
from tests.labelling.judges import make_detector
from tests.lamp import make_store


@pytest.fixture(autouse=True)
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run folder holds the detector of tests."""
    monkeypatch.setattr(SuccessDetector, "load", lambda path: make_detector())


def test_verdicts_stand_in_the_place_of_what_was_recorded(tmp_path: Path) -> None:
    store = make_store(tmp_path, seeds=range(6))
    ids = [row.episode_id for row in store.rows()]
    store.label(ids, "success", False, by="nobody")
    snapshot = store.snapshot()
    recorded = Columns.open(store, snapshot)
    found = with_verdicts(recorded, store, snapshot, tmp_path)
    expected = np.array([int(name[-1]) % 2 == 1 for name in found.table.episode_id])
    np.testing.assert_array_equal(found.table.success, expected)
    np.testing.assert_array_equal(found.table.terminal, expected)
    for start, length, success in zip(found.table.start, found.table.transitions, expected, strict=True):
        assert found.reward[start : start + length].tolist() == [0.0] * (length - 1) + [float(success)]
    assert not recorded.table.success.any()
    store.label(ids[:1], "task", "green", by="anna")
    with pytest.raises(FlywheelError, match="has not learned the task 'green'"):
        with_verdicts(Columns.open(store, store.snapshot()), store, store.snapshot(), tmp_path)


def test_episodes_that_are_offered_alone_need_no_verdict_of_their_own(tmp_path: Path) -> None:
    store = make_store(tmp_path, seeds=range(4))
    store.label(["blue-0001"], "task", "green", by="anna")
    snapshot = store.snapshot()
    found = with_verdicts(Columns.open(store, snapshot), store, snapshot, tmp_path, ("red",))
    success = dict(zip(found.table.episode_id, found.table.success.tolist(), strict=True))
    assert success["red-0001"]
    assert not any(value for name, value in success.items() if name.startswith("blue"))


def test_confidence_in_a_row_or_at_the_end() -> None:
    assert first_accepted(np.array([0.1, 0.95, 0.2, 0.95, 0.95, 0.99])) == 4
    assert first_accepted(np.array([0.1, 0.95, 0.2, 0.6])) == 3
    assert first_accepted(np.array([0.6, 0.7, 0.8, 0.4])) is None
    assert first_accepted(np.array([0.95, 0.99, 0.99, 0.99])) == 0  # before anything happened
    assert first_accepted(np.array([0.1, 0.99, 0.99])) == 2


def test_an_episode_is_judged_for_another_task(tmp_path: Path) -> None:
    store = make_store(tmp_path, ("red",), range(4))
    accepts = Acceptance.of(tmp_path, store, store.snapshot(), ("red", "blue"))
    # Of the failures, seed 2 ends in blue: 0.9 in the last picture alone.
    assert [accepts(f"red-{seed:04d}", "blue") for seed in range(4)] == [None, None, 12, None]
    assert accepts("red-0001", "red") == 12


def test_a_run_goes_on_with_the_verdicts_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", seeds=range(6))
    data = DataConfig(batch_size=8, detector=tmp_path, tasks=("red", "blue"))
    run = TrainConfig("iql", IQLConfig(hidden=(8,)), store.path, tmp_path / "run", 2, data=data)
    policy = train(run)
    assert policy.header.detector == make_detector().checkpoint
    monkeypatch.setattr(SuccessDetector, "load", lambda path: make_detector(1))
    with pytest.raises(FlywheelError, match="is not the detector any more that"):
        train(dataclasses.replace(run, updates=4))


def test_a_run_learns_from_verdicts(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", seeds=range(6))
    store.label([row.episode_id for row in store.rows()], "success", False, by="nobody")
    data = DataConfig(batch_size=8, detector=tmp_path, tasks=("red", "blue"))
    settings = IQLConfig(hidden=(8,), imitate="successes")
    policy = train(TrainConfig("iql", settings, store=store.path, output=tmp_path / "run", updates=2, data=data))
    assert policy.header.tasks == ("red", "blue")
    plain = TrainConfig("iql", settings, store.path, tmp_path / "other", 2, data=DataConfig(8, tasks=("red", "blue")))
    with pytest.raises(FlywheelError, match="no success to imitate"):
        train(plain)
