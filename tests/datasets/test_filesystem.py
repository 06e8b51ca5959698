from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets import filesystem, journal
from flywheel.datasets.filesystem import boot_id, check_writable, file_system, refusing
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.store import EpisodeStore
from tests.point import episode, make_store

_MOUNTS = r"""
22 27 0:21 / / rw - ext4 /dev/vda rw
23 27 0:22 / {folder} rw,relatime shared:1 - xfs /dev/vdb rw
24 27 0:23 / {folder}/lab\040data rw - nfs4 server:/lab rw
25 27 0:24 / {folder}/over rw - tmpfs none rw
26 27 0:25 / {folder}/over rw - fuse.sshfs host: rw
27 27 0:26 / {folder}/stick rw - exfat /dev/sda1 rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(_MOUNTS.replace("{folder}", str(tmp_path)).strip())
    return path


def test_the_deepest_mount_that_was_made_last_counts(tmp_path: Path, mounts: Path) -> None:
    kinds = {"lab data/point": "nfs4", "lab data": "nfs4", "lab": "xfs", "over/a/b": "fuse.sshfs", "stick": "exfat"}
    assert {name: file_system(tmp_path / name, mounts) for name in kinds} == kinds
    assert file_system(Path("/"), mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "missing") == "apfs"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("nfs4", "network"), ("cifs", "network"), ("9p", "network"), ("fuse.sshfs", "network"), ("vfat", "without hard links")],
)
def test_a_store_is_not_written_where_locks_cannot_be_relied_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reason: str
) -> None:
    store = make_store(tmp_path, range(2))
    monkeypatch.setattr(filesystem, "file_system", lambda folder: kind)
    with pytest.raises(FlywheelError, match=f"{reason}.*'flywheel store sync'"):
        store.writer()
    assert len(EpisodeStore.open(tmp_path).rows()) == 2  # reading goes on


def test_a_lock_excludes_a_second_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path)
    monkeypatch.setattr(filesystem.fcntl, "flock", lambda descriptor, how: None)  # as some network file systems do
    with pytest.raises(FlywheelError, match="do not exclude a second writer"):
        check_writable(tmp_path)


def test_a_journal_of_another_host_is_reported_where_locks_may_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, range(2))
    code = "import os; from flywheel.datasets.store import EpisodeStore; from tests.point import episode\n"
    code += f"EpisodeStore.open({str(tmp_path)!r}).writer().append(episode(7)); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    (own,) = (store.path / ".journal").iterdir()
    assert own.name.startswith(boot_id())
    other = own.rename(own.with_name("deadbeef-1-0.tfrecord"))
    monkeypatch.setattr(journal, "locks_tell_the_dead", lambda folder: False)
    with pytest.warns(StoreWarning, match=r"begun on another host.*'flywheel store repair'"), store.writer() as writer:
        writer.append(episode(8))
    assert other.exists()
    assert len(EpisodeStore.open(tmp_path).rows()) == 4  # it is read all the same
    monkeypatch.setattr(journal, "locks_tell_the_dead", lambda folder: True)
    with store.writer():
        assert not other.exists()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EROFS, "read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_the_system_refuses_is_told_in_a_sentence(code: int, sentence: str) -> None:
    with pytest.raises(FlywheelError, match=sentence) as caught, refusing(Path("/data/store")):
        raise OSError(code, os.strerror(code))
    assert "/data/store" in str(caught.value)
    assert "Every acknowledged episode is safe" in str(caught.value)


_AS_NOBODY = """
import os, sys
from pathlib import Path
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
os.setgid(65534); os.setuid(65534)
store = EpisodeStore.open(Path(sys.argv[1]))
print(len(store.rows()))
try:
    store.writer()
except FlywheelError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_write_may_read_and_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path("/tmp") / f"flywheel-{os.getpid()}"  # pytest's own folders are for their owner alone
    try:
        store = make_store(folder, range(2))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [sys.executable, "-c", _AS_NOBODY, str(store.path)]
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        count, refusal = result.stdout.splitlines()
        assert count == "2"
        assert refusal.startswith("Permission denied")
        assert len(EpisodeStore.open(folder).rows()) == 2
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount")
def test_a_full_and_a_read_only_disk_stay_readable(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        store = make_store(folder, range(2))
        told: list[str] = []
        with pytest.raises(FlywheelError, match="The disk is full"):
            _fill(store, told)
        assert len(told) > 20
        stored = {row.episode_id for row in EpisodeStore.open(folder).rows()}
        assert set(told) <= stored
        subprocess.run(["mount", "-o", "remount,size=2m", str(folder)], check=True)
        with store.writer() as writer:
            writer.append(episode(3))
        for options in ("bind", "remount,bind,ro"):
            subprocess.run(["mount", "-o", options, str(folder), str(folder)], check=True)
        read_only = EpisodeStore.open(folder)
        assert len(read_only.rows()) == len(stored) + 1
        with pytest.raises(FlywheelError, match="read-only file system"):
            read_only.writer()
    finally:
        while not subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True).returncode:
            pass


def _fill(store: EpisodeStore, told: list[str]) -> None:
    with store.writer() as writer:
        for seed in range(100, 10_000):
            told.append(writer.append(episode(seed)))  # noqa: PERF401
