from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import ActionSpec
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.store_info import Group
from flywheel.datasets.tfrecord import DamagedError, DamageWarning
from tests.point import SCHEMA, episode, make_store

_APPEND = """
import sys
from pathlib import Path
from flywheel.datasets.store import EpisodeStore
from tests.point import episode
with EpisodeStore.open(Path(sys.argv[1])).writer(seal_episodes=4) as writer:
    for seed in range(40):
        writer.append(episode(seed))
"""


def _files(path: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in path.rglob("*")}


def test_what_is_appended_is_read_at_once_by_everybody(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path, "point", SCHEMA)
    reader = EpisodeStore.open(tmp_path)
    assert reader.rows() == []
    with store.writer() as writer:
        assert writer.append(episode(3)) == "reach-script-00003"
        for found in (store, reader, EpisodeStore.open(tmp_path)):
            assert found.has("reach-script-00003")
            assert found.read("reach-script-00003").metadata == episode(3).metadata
            np.testing.assert_array_equal(found.read("reach-script-00003").action, episode(3).action, strict=True)
    assert reader.read("reach-script-00003").metadata == episode(3).metadata


@pytest.mark.parametrize("folder", ["", "point", "point/1.0.0"])
def test_a_store_opens_by_any_of_its_folders(tmp_path: Path, folder: str) -> None:
    make_store(tmp_path, range(1))
    store = EpisodeStore.open(tmp_path / folder)
    assert (store.path, store.name, store.schema) == (tmp_path / "point" / "1.0.0", "point", SCHEMA)


def test_opening_nothing_or_too_much_is_told(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="There is no store at"):
        EpisodeStore.open(tmp_path / "missing")
    for name in ("one", "two"):
        EpisodeStore.create(tmp_path, name, SCHEMA)
    with pytest.raises(FlywheelError, match=r"several stores \(one, two\)"):
        EpisodeStore.open(tmp_path)


def test_create_opens_what_is_there_and_refuses_another_schema(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(2))
    assert EpisodeStore.create(tmp_path, "point", SCHEMA).snapshot() == store.snapshot()
    other = Schema(SCHEMA.observation, ActionSpec((-2.0, -2.0), (2.0, 2.0)))
    with pytest.raises(FlywheelError, match=r"another schema \(its action is"):
        EpisodeStore.create(tmp_path, "point", other)


@pytest.mark.parametrize("name", ["", "Point", "../up", "a b", "1st", "x" * 65])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FlywheelError, match="cannot name a store"):
        EpisodeStore.create(tmp_path, name, SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_reading_writes_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    writer = store.writer()
    writer.append(episode(9))
    before = _files(tmp_path)
    reader = EpisodeStore.open(tmp_path)
    assert len(list(reader.episodes())) == reader.info().episodes == len(reader.snapshot()) == 4
    assert _files(tmp_path) == before
    writer.close()


def test_an_episode_that_does_not_fit_is_refused_and_nothing_stored(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    wrong = replace(episode(5), action=np.full_like(episode(5).action, np.nan))
    with store.writer() as writer, pytest.raises(SpecError, match="NaN"):
        writer.append(wrong)
    assert len(store.rows()) == 1


def test_the_same_id_is_stored_once(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    with store.writer() as first, store.writer() as second:
        for writer in (first, second, first):
            assert writer.append(episode(1)) == "reach-script-00001"  # sealed
            assert writer.append(episode(50)) == "reach-script-00050"  # in another writer's journal
    assert len(store.rows()) == 4
    assert sum(store._layout.read_shards().lengths) == 4


def test_writers_that_append_the_same_at_once_store_it_once(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path, "point", SCHEMA)
    command = [sys.executable, "-c", _APPEND, str(store.path)]
    writers = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [row.episode_id for row in sorted(store.rows(), key=lambda row: row.seed)] == [
        f"reach-script-{n:05d}" for n in range(40)
    ]
    assert sum(store._layout.read_shards().lengths) == 40


def test_reading_while_writing_never_fails(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path, "point", SCHEMA)

    def write() -> None:
        with store.writer(seal_episodes=3) as writer:
            for seed in range(60):
                writer.append(episode(seed))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write)
        counts = [0]
        reader = EpisodeStore.open(tmp_path)
        while not done.done():
            counts.append(len(list(reader.episodes())))
            assert len(EpisodeStore.open(tmp_path).rows()) >= counts[-1]
        done.result()
    assert counts == sorted(counts)
    assert len(list(reader.episodes())) == 60


def test_a_damaged_record_is_named_and_the_others_read(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(4))
    (shard,) = store.path.glob("*.tfrecord-*")
    row = store.rows()[2]
    data = bytearray(shard.read_bytes())
    data[row.offset + 100] ^= 4
    shard.write_bytes(data)
    snapshot = store.snapshot()
    with pytest.warns(DamageWarning, match=f"{row.episode_id} is left out.*byte {row.offset}"):
        found = [item.metadata.episode_id for item in EpisodeStore.open(tmp_path).episodes(snapshot)]
    assert found == [entry.episode_id for entry in snapshot.entries if entry.episode_id != row.episode_id]
    with pytest.raises(DamagedError, match=shard.name):
        store.read(row.episode_id)


def test_an_unknown_episode_is_told(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="has no episode 'nobody'"):
        make_store(tmp_path, range(1)).read("nobody")


def test_info_counts(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(4))
    with store.writer() as writer:
        writer.append(
            replace(episode(9, agent="person"), metadata=replace(episode(9).metadata, agent_id="person", success=False))
        )
        about = store.info()
    assert (about.episodes, about.shards, about.unsealed) == (5, 1, 1)
    assert about.steps == sum(row.length for row in store.rows())
    assert about.bytes == sum(file.stat().st_size for file in store.path.glob("*.tfrecord-*"))
    assert about.groups == (Group("reach", "person", 1, 0), Group("reach", "script", 4, 4))


def test_a_forked_writer_is_refused(tmp_path: Path) -> None:
    writer = make_store(tmp_path, range(1)).writer()
    writer._process = os.getpid() + 1
    with pytest.raises(FlywheelError, match="does not survive a fork"):
        writer.append(episode(3))
    writer.close()


def test_damaged_metadata_files_are_told(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    for name in ("dataset_info.json", ".meta/schema.json"):
        content = (store.path / name).read_bytes()
        (store.path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(FlywheelError, match="damaged"):
            EpisodeStore.open(tmp_path)
        (store.path / name).write_bytes(content)
    (store.path / "dataset_info.json").unlink()
    with pytest.raises(FlywheelError, match="missing"):
        EpisodeStore.open(tmp_path)
