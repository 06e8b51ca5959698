"""The proofs of T2 and T3, and the command that runs them in full (T1 is in tests/training/test_resume.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from flywheel.bench.training import __main__ as command
from flywheel.bench.training.faults import spoil
from flywheel.bench.training.saves import generation, kill_saves, save
from flywheel.core.errors import FlywheelError


@pytest.mark.parametrize("number", [0, 1])
def test_a_save_that_is_killed_or_meets_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, number: int) -> None:
    found = kill_saves(tmp_path, number, kills=3, full=2, mebibytes=2)
    assert found["kills"] == 3
    assert found["full"] == 2
    assert found["unloadable"] == 0


def test_a_torn_or_mixed_checkpoint_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 7, 1)
    assert generation(path, 1) == 7
    assert generation(path, 2) == -1
    path.write_bytes(path.read_bytes()[:-100])
    assert generation(path, 1) == -1


@pytest.mark.parametrize("number", [0, 3])
def test_a_spoiled_batch_is_found_and_kept(tmp_path: Path, number: int) -> None:
    assert spoil(tmp_path, number, runs=2)["wrong"] == 0


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["flywheel.bench.training", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return int(ended.value.code or 0)


def test_the_command_goes_on_from_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    arguments = ("--proofs", "T3", "--quick", "--folder", str(tmp_path), "--output", str(output))
    assert _run(monkeypatch, *arguments) == 0
    figures = json.loads(output.read_text())
    assert figures["T3"][0]["runs"] == 5
    assert figures["machine"]["code"]

    figures["T3"][0] |= {"runs": 100, "wrong": 2}
    output.write_text(json.dumps(figures))
    assert _run(monkeypatch, "--proofs", "T3", "--output", str(output)) == 1
    assert json.loads(output.read_text()) == figures
    assert "100; 1 (" in capsys.readouterr().out


def test_figures_of_other_code_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["flywheel.bench.training", "--output", str(output)])
    for content, words in ((json.dumps({"machine": {"code": "older"}}), "other code"), ("{", "no figures")):
        output.write_text(content)
        with pytest.raises(FlywheelError, match=words):
            command.main()
