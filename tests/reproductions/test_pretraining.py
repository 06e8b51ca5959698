from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from reproductions.pretraining import RESULTS, TASKS, Config, load, reproduce, table


def _config(tmp_path: Path) -> Config:
    return Config(
        tasks=("lift",),
        episodes=8,
        labelled=4,
        pretraining_updates=2,
        updates=2,
        evaluations=3,
        seeds=(0, 1),
        robot="fake",
        root=tmp_path / "runs",
        results=tmp_path / "results",
    )


def test_both_arms_learn_from_the_labelled_episodes_alone(tmp_path: Path) -> None:
    config = _config(tmp_path)
    found = reproduce(config)
    assert [result.seed for result in found] == [0, 1]
    store = EpisodeStore.open(config.root / "data" / "lift_8")
    for result in found:
        labelled = store.query(f"seed >= {4 * result.seed} and seed < {4 * result.seed + 4}")
        assert result.labelled == [4, sum(row.success for row in labelled)]
        assert result.snapshots["pretraining"] == store.snapshot().hash
        assert result.snapshots["scratch"] == result.snapshots["pretrained"] != store.snapshot().hash
        assert len(result.scratch) == len(result.pretrained) == 3
    assert len({result.snapshots["scratch"] for result in found}) == 2
    assert len(table(found).splitlines()) == 4
    assert reproduce(replace(config, robot="none")) == found == load(config.results)


def test_more_labels_than_episodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="fewer seeds"):
        reproduce(replace(_config(tmp_path), seeds=(0, 2)))


def test_what_is_checked_in_can_be_shown() -> None:
    found = load(RESULTS)
    assert {result.task for result in found} == set(TASKS)
    assert all(len(result.scratch) >= 100 for result in found)
