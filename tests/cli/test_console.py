from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from flywheel.cli import console, train
from flywheel.cli.main import main
from tests.point import make_store


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is shown on a terminal, and where there is none."""
    shown = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=shown, force_terminal=request.param, width=120))
    return shown


def test_what_is_quick_is_not_shown(screen: io.StringIO) -> None:
    with console.progress("Reading", "episodes", after=3600.0) as report:
        report(0, 2)
        report(2, 2)
    assert screen.getvalue() == ""


def test_what_takes_longer_is_shown(screen: io.StringIO) -> None:
    with console.progress("Reading", "episodes", after=0.01) as report:
        report(0, 2)
        time.sleep(0.02)
        report(2, 2)
        assert "Reading" in screen.getvalue()
    assert "2/2" in screen.getvalue() or "2 of 2 episodes" in screen.getvalue()


def test_one_bar_may_follow_another_within(screen: io.StringIO) -> None:
    with console.progress("Reading", "episodes") as reading, console.progress("Training", "updates") as training:
        for report in (reading, training):
            report(1, 2)
            report(2, 2)
    assert screen.getvalue().rindex("Reading") < screen.getvalue().rindex("Training")


def test_reading_a_store_is_shown_where_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "store", range(5))
    monkeypatch.setattr(train, "_PATIENCE", 0.0)
    main(f"train bc --store {tmp_path}/store --output {tmp_path}/run --updates 2 --data.batch-size 8".split())
    assert "Reading the store: 5 of 5 episodes" in capsys.readouterr().out
