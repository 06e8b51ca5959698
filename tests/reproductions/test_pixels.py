"""The reproduction from cameras, in small, on the fake arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from reproductions import pixels


@pytest.mark.slow
def test_rows_are_run_once_and_kept(tmp_path: Path) -> None:
    config = pixels.Config(("bc", "gcbc"), episodes=2, root=tmp_path, robot="fake", processes=1, quick=True)
    config = replace(config, results=tmp_path / "results")
    first = pixels.reproduce(config)
    assert [result.row for result in first] == ["bc", "gcbc"]
    assert first[0].logged[0] == first[0].logged[1] < first[1].logged[0] == 20
    assert pixels.reproduce(config) == first
    assert pixels.table(first).count("\n") == 3


def test_what_is_checked_in_can_be_shown() -> None:
    assert set(pixels.ROWS) == {"bc", "gcbc", "gciql", "actionable_models"}
    assert all(row.config and row.has_goals == (name != "bc") for name, row in pixels.ROWS.items())
    with pytest.raises(FlywheelError, match="no row 'bcc'"):
        pixels.reproduce(pixels.Config(("bcc",)))
