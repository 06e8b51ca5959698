from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.core import files


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep/folder/file"
    files.write_atomically(path, b"a" * 100)
    files.write_atomically(path, b"b")
    assert path.read_bytes() == b"b"
    assert [item.name for item in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_before_the_rename_the_old_content_stays(tmp_path: Path, call: str) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    where = "os.fsync" if call == "fsync" else "pathlib.Path.replace"
    code = f"""
import os, pathlib, signal
{where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from flywheel.core.files import write_atomically
write_atomically(pathlib.Path({str(path)!r}), b"new")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert path.read_bytes() == b"old"
    files.write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
