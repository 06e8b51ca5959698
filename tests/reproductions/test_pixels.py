"""The reproduction from cameras, in small, on the fake arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from reproductions import pixels
from reproductions.kept import read_all


def _judged(root: Path) -> EpisodeStore:
    (folder,) = (root / "judged").glob("*/*")
    return EpisodeStore.open(folder)


@pytest.mark.slow
def test_rows_are_run_once_and_kept(tmp_path: Path) -> None:
    config = pixels.Config(
        ("lift-bc", "lift-bc-judged", "lift-gcbc"), episodes=2, root=tmp_path, robot="fake", processes=1, quick=True
    )
    config = replace(config, results=tmp_path / "results")
    first = pixels.reproduce(config)
    assert [result.row for result in first] == list(config.rows)
    assert first[0].logged[0] == first[0].logged[1] < first[2].logged[0] == 40
    assert {row.success_detector for row in _judged(tmp_path).query("seed < 20")} != {"lift-height-v1"}
    assert _judged(tmp_path).query("seed >= 20")[0].labels == 0
    assert pixels.reproduce(config) == first
    assert pixels.table(first).count("\n") == 4


def test_what_is_checked_in_can_be_shown() -> None:
    assert {result.row for result in read_all(pixels.Result, pixels.RESULTS)} <= pixels.ROWS.keys()
    assert all(row.config and bool(row.data(200).goal_pictures) == row.has_goals for row in pixels.ROWS.values())
    with pytest.raises(FlywheelError, match="no row 'bcc'"):
        pixels.reproduce(pixels.Config(("bcc",)))
