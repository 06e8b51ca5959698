"""A robot computer that only logs episodes needs neither torch nor TensorFlow nor a simulator."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "lightning", "tensorflow", "tensorflow_datasets", "rlds", "robosuite", "mujoco", "matplotlib", "av")


@pytest.mark.parametrize(
    "module",
    [
        "flywheel",
        "flywheel.datasets.store",
        "flywheel.datasets.recording.process",
        "flywheel.cli.main",
        "flywheel.cli.store",
        "flywheel.robots.base",
        "flywheel.robots.fake",
        "flywheel.tasks.env",
        "flywheel.tasks.lift",
        "flywheel.rollout.collect",
        "flywheel.rollout.evaluate",
        "flywheel.report.page",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
