"""The command line: help that teaches, errors in one sentence, no traceback for a user's mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.cli.main import COMMANDS, main
from tests.point import make_store


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail, and return its one sentence."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code in (1, 2)
    error = capsys.readouterr().err.strip()
    assert error.startswith("error:")
    assert "Traceback" not in error
    return error


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert name in shown
        assert summary in shown


@pytest.mark.parametrize(
    "command", [*COMMANDS, "store info", "store ls", "store show", "store verify", "robot check", "train iql"]
)
def test_every_command_has_help(command: str) -> None:
    code = "import sys; from flywheel.cli.main import main; main(sys.argv[1:])"
    result = subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"flywheel {command}" in result.stdout


def test_a_near_miss_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'collect'" in fails(["colect"], capsys)


def test_unknown_algorithm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'iql'" in fails(["train", "iqll", "--store", str(tmp_path), "--output", str(tmp_path)], capsys)


def test_missing_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["store", "info", str(tmp_path / "none")],
        ["train", "bc", "--store", str(tmp_path / "none"), "--output", str(tmp_path / "run")],
    ):
        assert "none" in fails(arguments, capsys)


def test_unknown_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'lift'" in fails(["collect", "lifft", "--store", str(tmp_path)], capsys)


def test_a_task_without_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, range(2))
    arguments = ["train", "bc", "--store", str(tmp_path), "--output", str(tmp_path / "run"), "--data.task", "lift"]
    assert "no episodes of task 'lift'" in fails(arguments, capsys)


def test_finetune_without_a_pretrained_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, range(2))
    assert "--initial" in fails(["finetune", "--store", str(tmp_path), "--output", str(tmp_path / "run")], capsys)


def test_a_damaged_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.safetensors").write_bytes(b"\x10" * 100)
    assert "not a readable policy" in fails(
        ["eval", "lift", "--policy", str(tmp_path), "--episodes", "1", "--output", str(tmp_path / "e")], capsys
    )
