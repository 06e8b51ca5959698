"""What a store remembers of learning, and the ways from episodes to policies and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.lineage import PolicyRecord
from flywheel.datasets.lineage_graph import LineageGraph, Maker
from flywheel.datasets.snapshot import Snapshot, SnapshotEntry
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning
from tests.point import episode, make_store

FIRST, SECOND = "1" * 32, "2" * 32


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return make_store(tmp_path, range(3))


def append(store: EpisodeStore, seed: int, checkpoint: str, snapshot: str) -> str:
    made = episode(seed, agent=f"iql-{checkpoint[:4]}")
    metadata = replace(made.metadata, policy_checkpoint=checkpoint, policy_snapshot=snapshot)
    with store.writer() as writer:
        return writer.append(replace(made, metadata=metadata))


def test_snapshots_and_policies_are_remembered_once(store: EpisodeStore) -> None:
    snapshot = store.snapshot()
    path = store.lineage.keep_snapshot(snapshot)
    stamp = path.stat().st_mtime_ns
    assert store.lineage.keep_snapshot(snapshot) == path
    assert path.stat().st_mtime_ns == stamp
    assert path == store.path / ".meta" / "snapshots" / f"{snapshot.hash}.json"
    record = PolicyRecord(FIRST, snapshot.hash, run="runs/a", algorithm="iql", updates=5)
    store.lineage.keep_policy(record)
    store.lineage.keep_policy(replace(record, run="elsewhere"))
    opened = EpisodeStore.open(store.path).lineage
    assert opened.snapshots() == (snapshot.hash,)
    assert opened.snapshot(snapshot.hash) == snapshot
    assert opened.snapshot("0" * 32) is None
    assert opened.policies() == {FIRST: record}


@pytest.mark.parametrize("name", ["", "../../evil", "1" * 31, "g" * 32, "1" * 32 + "/x"])
def test_a_name_that_is_no_hash_is_refused(store: EpisodeStore, name: str) -> None:
    with pytest.raises(FlywheelError, match="is no hash"):
        store.lineage.keep_policy(PolicyRecord(name, "s"))
    assert store.lineage.snapshot(name) is None


def test_damaged_records_are_named_and_left_out(store: EpisodeStore) -> None:
    snapshot = store.snapshot()
    kept = store.lineage.keep_policy(PolicyRecord(FIRST, snapshot.hash))
    store.lineage.keep_policy(PolicyRecord(SECOND, snapshot.hash))
    content = kept.read_bytes()
    for damage in (b"", b"[]", b"{}", content[:-5], content.replace(FIRST.encode(), SECOND.encode()), b"\xff" + content):
        kept.write_bytes(damage)
        with pytest.warns(DamageWarning, match=f"{FIRST}.json"):
            assert set(store.lineage.policies()) == {SECOND}
    kept.unlink()
    listed = store.lineage.keep_snapshot(snapshot)
    listed.write_text("{}")
    graph = LineageGraph(store)
    with pytest.warns(DamageWarning, match=f"{snapshot.hash}.json"):
        assert graph.members(snapshot.hash) is None
    assert graph.holding([snapshot.entries[0].episode_id]) == []


def test_both_ways(store: EpisodeStore) -> None:
    early = store.snapshot()
    store.lineage.keep_snapshot(early)
    store.lineage.keep_policy(PolicyRecord(FIRST, early.hash, algorithm="iql"))
    made = append(store, 10, FIRST, early.hash)
    late = store.snapshot()
    store.lineage.keep_snapshot(late)
    store.lineage.keep_policy(PolicyRecord(SECOND, late.hash, parent=FIRST, algorithm="iql"))
    store.label([early.entries[0].episode_id], "deleted", True, by="anna")

    graph = LineageGraph(EpisodeStore.open(store.path))
    assert graph.makers(late.hash) == {Maker("script", ""): 3, Maker("iql-1111", FIRST): 1}
    assert [row.episode_id for row in graph.made_by(FIRST)] == [made]
    assert graph.policy(FIRST) == PolicyRecord(FIRST, early.hash, algorithm="iql")
    assert graph.holding([made]) == [late.hash]
    assert graph.holding([early.entries[0].episode_id]) == sorted([early.hash, late.hash])
    assert graph.trained_on(late.hash) == [SECOND]
    assert graph.started_from(FIRST) == [SECOND]
    known = graph.known()
    assert (known[made], known[FIRST], known[late.hash]) == ("episode", "policy", "snapshot")


def test_what_only_episodes_tell_is_known_and_the_rest_is_unknown(store: EpisodeStore) -> None:
    snapshot = "a" * 32
    append(store, 10, FIRST, snapshot)
    graph = LineageGraph(store)
    assert graph.policy(FIRST) == PolicyRecord(FIRST, snapshot, algorithm="iql")
    assert graph.trained_on(snapshot) == [FIRST]
    assert graph.members(snapshot) is None
    assert not graph.makers(snapshot)
    assert graph.policy(SECOND) is None
    gone = Snapshot.of([SnapshotEntry("gone", 1)])
    graph.add_snapshot(gone)
    assert graph.makers(gone.hash) == {Maker("", ""): 1}
