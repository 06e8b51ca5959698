from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.snapshot import Snapshot, SnapshotEntry
from tests.point import episode, make_store

ENTRIES = [SnapshotEntry("b", 2), SnapshotEntry("a", 1)]


def test_the_hash_depends_on_the_content_alone() -> None:
    assert Snapshot.of(ENTRIES) == Snapshot.of(reversed(ENTRIES))
    assert Snapshot.of(ENTRIES).hash == Snapshot.of(reversed(ENTRIES)).hash
    assert Snapshot.of(ENTRIES).hash != Snapshot.of([SnapshotEntry("b", 2), SnapshotEntry("a", 3)]).hash
    assert Snapshot.of(ENTRIES).hash != Snapshot.of(ENTRIES[:1]).hash


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    snapshot = Snapshot.of(ENTRIES)
    snapshot.save(tmp_path / "run" / "snapshot.json")
    loaded = Snapshot.load(tmp_path / "run" / "snapshot.json")
    assert (loaded, loaded.hash, len(loaded)) == (snapshot, snapshot.hash, 2)


def test_what_is_not_a_snapshot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    with pytest.raises(FlywheelError, match="There is no snapshot"):
        Snapshot.load(path)
    Snapshot.of(ENTRIES).save(path)
    value = json.loads(path.read_text())
    for changed in ({**value, "episodes": value["episodes"][:1]}, [], {}, {**value, "episodes": [1]}):
        path.write_text(json.dumps(changed))
        with pytest.raises(FlywheelError, match="damaged or was edited"):
            Snapshot.load(path)
    path.write_text(json.dumps({**value, "format": 9}))
    with pytest.raises(FlywheelError, match="format 9"):
        Snapshot.load(path)


def test_sealing_does_not_change_it_and_growth_does(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    with store.writer() as writer:
        writer.append(episode(10))
        live = store.snapshot()
        writer.seal()
        assert store.snapshot() == live
        writer.append(episode(11))
        assert store.snapshot().hash != live.hash
    assert [item.metadata.episode_id for item in store.episodes(live)] == [entry.episode_id for entry in live.entries]


def test_it_takes_the_episodes_that_are_asked_for(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path, range(5)).snapshot(lambda about: about.seed in (1, 4))
    assert [entry.episode_id for entry in snapshot.entries] == ["reach-script-00001", "reach-script-00004"]
