"""The other libraries, each in an environment of its own: their pins exclude each other's and ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"


def require(library: str) -> Path:
    """The library's Python, or ours for ``here``; skips the test where it is not installed."""
    python = Path(sys.executable) if library == "here" else ROOT / ".venv-interop" / library / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{library} is not installed; run make test-interop.")
    return python


def run(library: str, script: str, *arguments: object) -> None:
    """Run a script of `scripts` with a library's Python and nothing of ours; fails with what it wrote to standard error."""
    command = [require(library), SCRIPTS / script, *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def read(library: str, script: str, folder: Path, *arguments: object) -> dict[str, np.ndarray]:
    """The arrays that a script writes to the file that is its last argument."""
    output = folder / "read.npz"
    run(library, script, *arguments, output)
    with np.load(output) as file:
        return dict(file)
