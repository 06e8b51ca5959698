from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
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


def test_what_has_no_labels_is_named_as_before_there_were_any() -> None:
    assert Snapshot.of(ENTRIES).hash == json_hash([("a", 1), ("b", 2)])
    assert Snapshot.of([SnapshotEntry("a", 1, 7), SnapshotEntry("b", 2)]).hash == json_hash([("a", 1, 7), ("b", 2)])


def test_format_1_is_read(tmp_path: Path) -> None:
    snapshot = Snapshot.of(ENTRIES)
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps({"format": 1, "hash": snapshot.hash, "episodes": [["a", 1], ["b", 2]]}))
    assert Snapshot.load(path) == snapshot


def test_labels_are_saved_and_loaded(tmp_path: Path) -> None:
    snapshot = Snapshot.of([SnapshotEntry("a", 1, 7), SnapshotEntry("b", 2)])
    snapshot.save(tmp_path / "snapshot.json")
    assert Snapshot.load(tmp_path / "snapshot.json") == snapshot


def test_the_difference_names_what_is_added_removed_and_relabelled() -> None:
    one = Snapshot.of([SnapshotEntry("a", 1), SnapshotEntry("b", 2), SnapshotEntry("c", 3, 9), SnapshotEntry("d", 4)])
    other = Snapshot.of([SnapshotEntry("b", 2, 5), SnapshotEntry("c", 3, 9), SnapshotEntry("d", 5), SnapshotEntry("e", 6)])
    assert one.difference(other) == (("d", "e"), ("a", "d"), ("b",))
    assert other.difference(one) == (("a", "d"), ("d", "e"), ("b",))
    assert one.difference(one) == ((), (), ())


def test_it_holds_the_labels_of_its_moment(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    plain = store.snapshot()
    name = plain.entries[0].episode_id
    store.label([name], "success", False, by="anna")
    labelled = store.snapshot()
    store.undo([name], "success", by="anna")
    assert len({plain.hash, labelled.hash, store.snapshot().hash}) == 3
    assert plain.difference(labelled).relabelled == (name,)
    assert [[row.success for row in store.resolve(each)] for each in (plain, labelled, store.snapshot())] == [
        [True, True, True],
        [False, True, True],
        [True, True, True],
    ]
    assert [episode.metadata.success for episode in store.episodes(labelled)] == [False, True, True]


def test_labels_or_episodes_that_are_gone_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    name = store.rows()[1].episode_id
    store.label([name], "success", False, by="anna")
    snapshot = store.snapshot()
    (store.path / ".meta" / "labels.jsonl").unlink()
    with pytest.raises(FlywheelError, match=f"no longer holds the labels of episode '{name}'"):
        store.resolve(snapshot)
    with pytest.raises(FlywheelError, match="no longer holds episode 'b' as the snapshot has it"):
        store.resolve(Snapshot.of([SnapshotEntry("b", 2)]))
