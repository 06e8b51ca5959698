from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.blank import blank
from flywheel.datasets.codec import encode_episode
from flywheel.datasets.journal import Journal
from flywheel.datasets.layout import Layout, Shards
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning, Record, frame, scan
from flywheel.datasets.upkeep.verify import verify
from tests.point import episode, make_store

_APPEND_AND_DIE = """
import os, sys
from pathlib import Path
from flywheel.datasets.store import EpisodeStore
from tests.point import episode
writer = EpisodeStore.open(Path(sys.argv[1])).writer()
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    writer.append(episode(seed))
os._exit(0)
"""
_FILL = """
import resource, sys
from pathlib import Path
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from tests.point import episode
writer = EpisodeStore.open(Path(sys.argv[1])).writer()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for seed in range(100):
    try:
        print(writer.append(episode(seed)))
    except FlywheelError as error:
        print(error, file=sys.stderr)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(writer.append(episode(seed)))
writer.close()
"""


def _python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]  # where `tests` is found
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True, cwd=root
    )


def _dead_journal(store: EpisodeStore, first: int = 100, last: int = 105) -> Path:
    _python(_APPEND_AND_DIE, store.path, first, last)
    (journal,) = (store.path / ".journal").iterdir()
    return journal


def _end(journal: Path) -> int:
    """Where the last record ends, and the room that the writer has made begins."""
    with journal.open("rb") as file:
        return max(item.end for item in scan(file.fileno()) if isinstance(item, Record))


def _ids(store: EpisodeStore) -> list[str]:
    return [row.episode_id for row in EpisodeStore.open(store.path).rows()]


def test_a_dead_writers_episodes_are_read_and_then_sealed(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    journal = _dead_journal(store)
    before = _ids(store)
    assert before[3:] == [f"reach-script-{seed:05d}" for seed in range(100, 105)]
    snapshot = store.snapshot()
    with store.writer():
        assert not journal.exists()
    assert _ids(store) == before
    assert store.snapshot() == snapshot
    assert Layout(store.path).read_shards().lengths == (3, 5)


@pytest.mark.parametrize("cut", [1, 4, 30, 700])
def test_a_torn_tail_is_cut(tmp_path: Path, cut: int) -> None:
    store = make_store(tmp_path, range(1))
    journal = _dead_journal(store)
    os.truncate(journal, _end(journal) - cut)
    assert len(_ids(store)) == 5
    with store.writer() as writer:
        writer.append(episode(104))
    assert len(_ids(store)) == 6
    assert verify(store).sound


def test_damage_in_the_middle_of_a_journal_costs_one_episode(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    journal = _dead_journal(store)
    data = bytearray(journal.read_bytes())
    end = _end(journal)
    data[end // 2] ^= 1
    journal.write_bytes(data)
    with pytest.warns(DamageWarning, match="It is left out"):
        assert len(_ids(store)) == 5
    with pytest.warns(DamageWarning, match="kept as"), store.writer():
        pass
    assert len(_ids(store)) == 5
    report = verify(store)
    assert report.sound
    assert [problem.file for problem in report.leftovers] == [f".meta/damaged/{journal.name}"]
    assert (store.path / ".meta" / "damaged" / journal.name).read_bytes() == data[:end]


def test_a_live_writers_journal_is_left_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    with store.writer() as writer:
        writer.append(episode(7))
        with store.writer() as other:
            other.append(episode(8))
        assert Layout(store.path).read_shards().lengths == (1, 1)
        assert len(_ids(store)) == 3
    assert Layout(store.path).read_shards().lengths == (1, 1, 1)


def test_a_journal_that_is_a_shard_already_is_only_dropped(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    (shard,) = store.path.glob("*.tfrecord-*")
    os.link(shard, store.path / ".journal" / "1-dead.tfrecord")
    assert len(_ids(store)) == 3
    with store.writer():
        pass
    assert Layout(store.path).read_shards().lengths == (3,)
    assert list((store.path / ".journal").iterdir()) == []


def test_a_shard_that_nobody_lists_is_replaced(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    (store.path / "point-train.tfrecord-00001").write_bytes(b"half a shard")
    os.link(store.path / "point-train.tfrecord-00001", store.path / "point-train.tfrecord-00007")
    assert len(_ids(store)) == 3
    with store.writer() as writer:
        writer.append(episode(9))
    assert len(_ids(store)) == 4
    assert [problem.file for problem in verify(store).leftovers] == ["point-train.tfrecord-00007"]


def test_a_shard_that_an_older_list_does_not_name_is_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    older = (store.path / "dataset_info.json").read_bytes()
    with store.writer() as writer:
        writer.append(episode(9))
    (store.path / "dataset_info.json").write_bytes(older)  # put back from a copy
    with pytest.warns(DamageWarning, match="is not listed; it is kept as"), store.writer() as writer:
        writer.append(episode(10))
    (kept,) = (store.path / ".meta" / "damaged").iterdir()
    assert kept.read_bytes() == bytes(frame(encode_episode(episode(9), store.schema)))


def test_a_full_disk_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(0))
    result = _python(_FILL, store.path, 5000)
    assert "The disk is full" in result.stderr
    told = result.stdout.split()
    assert 2 <= len(told) < 100
    assert _ids(store) == told
    assert verify(store).problems == []


def test_a_failed_write_that_cannot_be_cut_off_is_overwritten(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path)
    good, better = frame(b"good"), frame(b"better")
    journal.write(good)
    working, journal.descriptor = journal.descriptor, os.open(journal.path, os.O_RDONLY)
    with pytest.raises(FlywheelError, match=r"Writing .* failed"):
        journal.write(frame(b"never"))
    os.close(journal.descriptor)
    journal.descriptor = working
    assert (journal.size, journal.records) == (good.size, 1)
    assert journal.write(better) == good.size
    assert journal.path.read_bytes().startswith(bytes(good) + bytes(better))
    journal.close()


def test_a_writer_makes_room_that_no_shard_keeps(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(0))
    with store.writer() as writer:
        sizes = []
        for seed in range(12):
            writer.append(episode(seed))
            (journal,) = (store.path / ".journal").iterdir()
            sizes.append(journal.stat().st_size)
        assert len(set(sizes)) < 7
        assert sizes[-1] > _end(journal)
        assert store.info().bytes == _end(journal)
        assert (verify(store).problems, verify(store).leftovers) == ([], [])
        assert len(store.rows()) == 12
    (shard,) = store.path.glob("*.tfrecord-*")
    assert shard.stat().st_size == _end(shard) == store.info().bytes


def test_no_room_is_made_for_the_first_record_nor_for_large_ones(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path)
    for payload in (b"small", bytes(200_000), bytes(200_000)):
        journal.sync(journal.write(frame(payload)))
        assert journal.path.stat().st_size == journal.size
    journal.sync(journal.write(frame(b"small")))
    assert journal.path.stat().st_size > journal.size
    journal.sync(journal.write(frame(bytes(700_000))))  # more than the room
    assert journal.path.stat().st_size == journal.size == _end(journal.path)
    journal.close()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_record_that_a_power_loss_leaves_without_a_sector_is_cut_off(tmp_path: Path, missing: int) -> None:
    store = make_store(tmp_path, range(1))
    journal = _dead_journal(store)
    record = bytes(frame(encode_episode(episode(9, horizon=60), store.schema)))
    end = _end(journal)
    sector = 512 * (end // 512 + missing)
    first, last = max(sector, end), min(sector + 512, end + len(record))
    with journal.open("r+b") as file:
        file.seek(end)
        file.write(record[: first - end] + blank(first, last - first) + record[last - end :])
    assert len(_ids(store)) == 6
    assert verify(store).sound
    with store.writer() as writer:
        assert list((store.path / ".meta").glob("damaged")) == []
        writer.append(episode(9, horizon=60))
    assert len(_ids(store)) == 7
    assert verify(store).sound


def test_a_flip_in_the_room_costs_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    journal = _dead_journal(store)
    with journal.open("r+b") as file:
        file.seek(journal.stat().st_size - 100)
        file.write(b"?")
    assert len(_ids(store)) == 6
    with store.writer():
        pass
    assert Layout(store.path).read_shards().lengths == (1, 5)


def test_a_full_disk_makes_no_room_and_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal.create(tmp_path)
    monkeypatch.setattr(os, "pwrite", refuse)
    for number in range(3):
        journal.sync(journal.write(frame(bytes(100 * number))))
    assert journal.path.stat().st_size == journal.size == _end(journal.path)
    journal.close()


def test_shards_end_where_tfds_would_rename_them() -> None:
    shards = Shards("point", (1,) * 99_998).add(1, 10)
    with pytest.raises(FlywheelError, match="99999 shards"):
        shards.add(1, 10)


def test_a_copy_made_while_writing_is_a_store(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(2))
    with store.writer() as writer:
        writer.append(episode(5))
        shutil.copytree(store.path, tmp_path / "copy")
    copy = EpisodeStore.open(tmp_path / "copy")
    assert copy.snapshot() == store.snapshot()
