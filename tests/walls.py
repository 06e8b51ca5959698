"""The walls between our packages: import-linter on a real copy of them.

import-linter follows neither symbolic links nor folders without an ``__init__.py``, and three of our packages are both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("datasets", "tasks", "robots")


def check(planted: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run import-linter's contracts on a copy; `planted` adds lines to files of it (for testing the walls themselves)."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "flywheel", copy / "flywheel", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for package in LINKED:
            (copy / "flywheel" / package / "__init__.py").touch()
        for name, line in (planted or {}).items():
            with (copy / name).open("a") as file:
                file.write(f"\n{line}\n")
        # The folder it runs in comes first on import-linter's path; -P keeps the checkout's own off it.
        command = [sys.executable, "-P", "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
        environment = {**os.environ, "PYTHONPATH": folder}
        return subprocess.run([*command, "--no-cache"], cwd=copy, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    result = check()
    print(result.stdout, result.stderr, sep="", end="")
    sys.exit(result.returncode)
