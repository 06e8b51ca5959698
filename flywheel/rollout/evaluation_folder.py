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
    elif json.loads(path.read_text()) != identity:
        raise FlywheelError(
            f"{folder} holds another evaluation (policy, task, robot, goals or safety differ); give another folder."
        )


def read_log(folder: Path) -> list[EpisodeResult]:
    """The episodes that were finished; a line torn by a kill is cut off, so that the next one starts on its own."""
    log = folder / LOG
    if not log.exists():
        return []
    whole, _, torn = log.read_bytes().rpartition(b"\n")
    if torn:
        write_atomically(log, whole + b"\n" if whole else b"")
    return [EpisodeResult(**json.loads(line)) for line in whole.splitlines()]


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
