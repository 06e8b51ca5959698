"""Bulk statistics and conversion through Apache Beam, in an environment that has it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-interop" / "beam" / "bin" / "python"
SUITE = Path(__file__).parent / "scripts" / "beam_suite.py"


@pytest.mark.interop
@pytest.mark.skipif(not PYTHON.exists(), reason="make test-interop installs Apache Beam")
def test_the_suite_passes_where_beam_is_installed() -> None:
    command = [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", str(SUITE)]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "....." in result.stdout
