from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.exporters import base, rlds, robomimic
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.tfrecord import DamagedError
from tests.point import make_store


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(2))
    folder = tmp_path / "out"
    folder.mkdir()
    rlds.export(store, store.snapshot(), folder)  # empty is well
    for taken in (folder, store.path / "features.json"):
        with pytest.raises(FlywheelError, match="holds something already"):
            rlds.export(store, store.snapshot(), taken)


def test_nothing_chosen_is_told(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(2))
    with pytest.raises(FlywheelError, match="nothing to export"):
        rlds.export(store, Snapshot(()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(6))
    snapshot = store.snapshot()
    (shard,) = store.path.glob("*.tfrecord-*")
    data = bytearray(shard.read_bytes())
    data[store.rows()[3].offset + 200] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match="flywheel store verify"):
        robomimic.export(store, snapshot, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_a_kill_left_is_removed_and_a_running_export_respected(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(2))
    export = base.Export(store, store.snapshot())
    left = tmp_path / ".out.exporting"
    (left / "deep").mkdir(parents=True)
    (left / "file").write_text("half")
    with base.published(export, tmp_path / "out") as temporary:
        assert list(temporary.iterdir()) == []
        with pytest.raises(FlywheelError, match="Another process"), base.published(export, tmp_path / "out"):
            pass
        (temporary / "whole").touch()
        assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
    assert not left.exists()


def test_a_folder_that_is_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(2))
    export = base.Export(store, store.snapshot(), lambda done, total: (tmp_path / "out" / f"theirs{done}").mkdir(parents=True))
    with pytest.raises(FlywheelError, match="was filled"):
        rlds.export(store, export.snapshot, tmp_path / "out", on_progress=export.on_progress)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["theirs1", "theirs2"]
    assert not (tmp_path / ".out.exporting").exists()


def test_no_exporter_loads_an_optional_library_before_it_is_used() -> None:
    names = ", ".join(f"flywheel.datasets.exporters.{name}" for name in ("rlds", "lerobot", "robomimic", "minari"))
    code = (
        f"import {names}, flywheel.cli.export, sys; print(*{{'h5py', 'pyarrow', 'av', 'torch', 'tensorflow'}} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_labels_of_the_snapshot_are_what_is_exported(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(3))
    before = store.snapshot()
    name = before.entries[0].episode_id
    store.label([name], "trim", (0, 1), by="anna")
    store.label([before.entries[1].episode_id], "deleted", True, by="anna")
    then = list(base.Export(store, before).episodes())
    now = list(base.Export(store, store.snapshot()).episodes())
    assert [len(then), len(now)] == [3, 2]
    assert now[0].transitions == 1
    assert then[0].transitions > 1


@pytest.mark.parametrize("form", ["rlds", "lerobot", "robomimic", "minari"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, form: str) -> None:
    make_store(tmp_path / "store", range(60))
    # A limit on the size of a file stands for the disk: the system refuses the write in the same way.
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "from flywheel.cli.main import main\n"
        "main(['export', sys.argv[1], sys.argv[2], '--format', sys.argv[3]])"
    )
    command = [sys.executable, "-c", code, tmp_path / "store", tmp_path / "out", form]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    assert "error:" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
