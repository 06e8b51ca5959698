from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.moments import check_cameras, encoded_episode, read_pictures
from flywheel.training.moments import MomentConfig, choose, part_of, read_moments, weights
from tests.lamp import SIZE, episode, make_store


def ignore(done: int, total: int) -> None:
    pass


def test_outcomes_are_the_last_moments_and_near_misses_come_before(tmp_path: Path) -> None:
    failure, success = make_store(tmp_path, ("red",), range(2)).rows()
    chosen = choose(success, MomentConfig(final=2, near=4))
    assert [(moment.before, moment.success) for moment in chosen] == [(0, 1), (1, 1), (4, 0), (6, 0), (9, 0), (12, 0)]
    assert [moment.is_outcome for moment in chosen] == [True, True, False, False, False, False]
    assert not any(moment.success for moment in choose(failure, MomentConfig()))
    short = replace(success, length=3)
    assert [moment.before for moment in choose(short, MomentConfig(final=2, near=4))] == [0, 1]


@pytest.mark.parametrize("pictures", ["png", "raw"])
def test_pictures_are_those_of_the_labelled_part(tmp_path: Path, pictures: str) -> None:
    store = make_store(tmp_path, ("red",), range(2), pictures)
    row = store.rows()[1]
    whole = episode("red", 1).observation["camera"]
    np.testing.assert_array_equal(read_pictures(store, row, ("camera",), (0, -1))["camera"], whole[[0, -1]])
    assert len(encoded_episode(store, row)["camera"]) == 13
    store.label([row.episode_id], "trim", (2, 9), by="anna")
    trimmed = store.rows()[1]
    np.testing.assert_array_equal(read_pictures(store, trimmed, ("camera",), (0, -1))["camera"], whole[[2, 9]])
    assert len(encoded_episode(store, trimmed)["camera"]) == 8
    with pytest.raises(FlywheelError, match="There is no camera 'camera2'"):
        check_cameras(store, {"camera2": (SIZE, SIZE, 3)})
    with pytest.raises(FlywheelError, match="collect in that size"):
        check_cameras(store, {"camera": (SIZE, SIZE + 1, 3)})


def test_episodes_are_held_out_by_their_ids() -> None:
    parts = [part_of(f"episode-{number}", 0.4) for number in range(2_000)]
    assert parts.count("learned") == pytest.approx(1_200, abs=80)
    assert parts.count("first") == pytest.approx(400, abs=60)
    assert all(part_of(f"episode-{number}", 0.2) == "learned" for number in range(2_000) if parts[number] == "learned")


def test_tasks_and_outcomes_are_drawn_alike(tmp_path: Path) -> None:
    store = make_store(tmp_path, ("red", "blue"), range(9))
    rows = [row for row in store.rows() if row.task == "red" or row.seed < 3]
    moments = read_moments([(store, rows)], ("red", "blue"), ("camera",), MomentConfig(), 0.3, ignore)
    chance = weights(moments, np.arange(len(moments.task)))
    assert chance.sum() == pytest.approx(1.0)
    for task in range(2):
        own = moments.task == task
        assert chance[own].sum() == pytest.approx(0.5)
        assert chance[own & moments.success].sum() == pytest.approx(0.25)
        assert chance[own & ~moments.success & moments.is_outcome].sum() == pytest.approx(0.125)
