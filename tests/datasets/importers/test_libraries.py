"""Importers need optional libraries late, and say which extra brings them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.detect import KINDS
from flywheel.datasets.importers.files import need

OPTIONAL = ("h5py", "pyarrow", "tensorflow", "tensorflow_datasets", "robosuite", "mujoco", "torch", "av")


def test_no_importer_loads_an_optional_library_before_it_is_used() -> None:
    names = ", ".join(f"flywheel.datasets.importers.{kind}" for kind in KINDS)
    code = f"import {names}, flywheel.cli.import_, sys; print(*sorted(set({OPTIONAL!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_a_missing_library_is_named_with_its_extra() -> None:
    with pytest.raises(FlywheelError, match=r"needs the package 'nothing_here': pip install 'flywheel-robotics\[import\]'"):
        need("nothing_here.inner")
