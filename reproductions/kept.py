"""What a reproduction measured, as JSON files that are checked in: one for each run."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from flywheel.core.files import write_atomically

Result = TypeVar("Result")
"""A dataclass of plain values."""


def keep(path: Path, result: Any) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(asdict(result), indent=1) + "\n").encode())


def read(kind: type[Result], path: Path) -> Result | None:
    """The result that a file holds; None where there is none."""
    return kind(**json.loads(path.read_text())) if path.exists() else None


def read_all(kind: type[Result], folder: Path) -> list[Result]:
    """The results that a folder holds, by name."""
    return [kind(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def command(name: str) -> str:
    """How this run of a reproduction was asked for, to be kept with what it measured."""
    return shlex.join(["python", "-m", f"reproductions.{name}", *sys.argv[1:]])
