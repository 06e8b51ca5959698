"""The folder of an evaluation, from which an interrupted one goes on.

identity.json      what is evaluated here
episodes.jsonl     one line per finished episode
evaluation.json    the results, written when the last episode is done
ends.npz, videos/, comparison.json    where they were asked for
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.rollout.results import EpisodeResult, Evaluation

LOG = "episodes.jsonl"
_IDENTITY = "identity.json"
_SUMMARY = "evaluation.json"


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Say in the folder what is evaluated there; raises `FlywheelError` for one that holds something else."""
    path = folder / _IDENTITY
    if not path.exists():
        write_json(path, identity)
        return
    try:
        held = json.loads(path.read_bytes())
    except ValueError:
        raise FlywheelError(f"{path} is damaged; restore it from a copy, or evaluate into another folder.") from None
    if held != identity:
        raise FlywheelError(
            f"{folder} holds another evaluation (policy, task, robot, goals or safety differ); give another folder."
        )


def read_log(folder: Path) -> list[EpisodeResult]:
    """The episodes that were finished; a last line torn by a kill is cut off, so that its episode is run again.

    Raises `FlywheelError` for damage anywhere else.
    """
    log = folder / LOG
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    results = [_read_line(line) for line in lines]
    if results and results[-1] is None:
        results.pop()
        write_atomically(log, b"".join(lines[:-1]))
    if None in results:
        raise FlywheelError(
            f"Line {results.index(None) + 1} of {log} is damaged; delete that line, and its episode is run again."
        )
    return [result for result in results if result is not None]


def _read_line(line: bytes) -> EpisodeResult | None:
    try:
        return EpisodeResult(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None


def log_line(result: EpisodeResult) -> str:
    """What `read_log` reads."""
    return json.dumps(asdict(result)) + "\n"


def save_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write what `load_evaluation` reads."""
    write_json(folder / _SUMMARY, evaluation.to_json())


def load_evaluation(folder: Path) -> Evaluation:
    """The evaluation that a folder holds; raises `FlywheelError` when it holds none that is finished."""
    try:
        data = json.loads((folder / _SUMMARY).read_text())
        results = tuple(EpisodeResult(**result) for result in data["results"])
        return Evaluation(data["task"], data["robot"], data["policy"], results)
    except (OSError, ValueError, KeyError, TypeError):
        raise FlywheelError(f"{folder} holds no finished evaluation; run flywheel eval --output {folder} first.") from None


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write_atomically(path, json.dumps(data, indent=1).encode())
