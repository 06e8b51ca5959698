from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from reproductions.detectors import RESULTS, WORLDS, Config, Result, load, path_of, reproduce, table

MEASURED = {
    **{"count": 10, "successes": 5, "missed": 1, "false_alarms": 0, "balanced_accuracy": 0.9},
    **{"calibration_error": 0.031, "adaptive_calibration_error": 0.04, "near_misses": 50, "refused": 0.98},
}


def test_a_result_is_a_table_and_is_not_made_again(tmp_path: Path) -> None:
    measured = {"tasks": {"lift": MEASURED}, "all": MEASURED}
    result = Result(
        ["lift"], 20, 10, 0.5, 0, "ab", 1.5, [0.1], measured, measured, 3.0, "python -m reproductions.detectors", {"code": "x"}
    )
    config = Config(episodes=20, updates=10, tasks=("lift",), results=tmp_path)
    path_of(config).write_text(json.dumps(asdict(result)))
    assert reproduce(config) == result
    assert load(tmp_path) == [result]
    assert path_of(replace(config, tasks=("can",))) != path_of(config) != path_of(replace(config, held_out=0.2))
    lines = table(result).splitlines()
    assert lines[2] == "| lift | 10 | 5 | 1 | 0 | 90.0% | 0.031 | 90.0% | 0.031 | 98.0% of 50 |"
    assert lines[3].startswith("| all |")


@pytest.mark.slow
def test_the_whole_way_with_the_fake_robot(tmp_path: Path) -> None:
    config = Config(
        episodes=30, tested=4, updates=2, held_out=0.5, tasks=("lift",), robot="fake", root=tmp_path, results=tmp_path / "r"
    )
    result = reproduce(config)
    assert result.measured["all"]["count"] > 5
    assert result.tested["all"]["count"] == 4
    shutil.rmtree(tmp_path / "data")  # it is not made again
    assert reproduce(config) == result


def test_what_is_checked_in_can_be_shown() -> None:
    for result in load(RESULTS):
        assert set(result.tasks) <= set(WORLDS)
        assert table(result)
