from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.layout import Layout
from flywheel.datasets.lineage import PolicyRecord
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning
from flywheel.datasets.upkeep import plan
from flywheel.datasets.upkeep.compact import compact, purge
from flywheel.datasets.upkeep.plan import merge_groups
from flywheel.datasets.upkeep.verify import verify
from tests.point import episode, make_store


def _store(root: Path, shards: int = 6) -> EpisodeStore:
    """Shards of two episodes each."""
    store = make_store(root, range(0))
    with store.writer(seal_episodes=2) as writer:
        for seed in range(2 * shards):
            writer.append(episode(seed))
    return store


def _ids(store: EpisodeStore) -> list[str]:
    return [row.episode_id for row in store.rows()]


def test_compaction_hides_moves_and_changes_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path)
    reader, snapshot, before = EpisodeStore.open(tmp_path), store.snapshot(), _ids(store)
    store.label([before[3]], "success", False, by="anna")
    with store.writer() as writer:
        unsealed = writer.append(episode(100))
        done = compact(store)
        assert (done.rewrite.before, done.rewrite.after, done.rewrite.generation) == (6, 1, 1)
        assert _ids(EpisodeStore.open(tmp_path)) == _ids(reader) == [*before, unsealed]
    for known in (store, reader, EpisodeStore.open(tmp_path)):
        assert _ids(known) == [*before, unsealed]
        assert Snapshot.of_rows(known.resolve(snapshot)) == snapshot
        for seed, name in enumerate(before):
            np.testing.assert_array_equal(known.read(name).observation["position"], episode(seed).observation["position"])
    assert Layout(store.path).read_shards().lengths == (12, 1)
    assert verify(store).sound


def test_large_shards_are_linked_and_small_ones_copied(tmp_path: Path) -> None:
    store = _store(tmp_path)
    compact(store)
    large = store.path / Layout(store.path).read_shards().names[0]
    with store.writer(seal_episodes=1) as writer:
        for seed in range(50, 53):
            writer.append(episode(seed))
    compact(store, target_bytes=large.stat().st_size)
    names = Layout(store.path).read_shards().names
    assert len(names) == 2
    assert os.path.samefile(store.path / names[0], large)


def test_nothing_to_do_is_nothing_done(tmp_path: Path) -> None:
    store = _store(tmp_path)
    compact(store)
    assert compact(store).rewrite.generation == 1
    assert compact(make_store(tmp_path / "empty", range(0))).rewrite.after == 0


def test_old_generations_stay_for_their_readers(tmp_path: Path) -> None:
    store = _store(tmp_path)
    old = [store.path / name for name in Layout(store.path).read_shards().names]
    compact(store)
    assert all(path.exists() for path in old)
    assert compact(store, grace_seconds=3_600).removed == ()
    (note,) = (store.path / ".meta" / "retired").iterdir()
    os.utime(note, (time.time() + 9_999, time.time() + 9_999))  # the clock was set back
    assert compact(store, grace_seconds=3_600).removed == ()
    os.utime(note, (0, 0))
    assert compact(store, grace_seconds=3_600).removed == (0,)
    assert not any(path.exists() for path in old)
    assert [problem.file for problem in verify(store).leftovers] == []


def test_a_damaged_record_is_named_and_kept_and_the_rest_compacted(tmp_path: Path) -> None:
    store = _store(tmp_path)
    shard = store.path / Layout(store.path).read_shards().names[2]
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.write_bytes(data)
    with pytest.warns(DamageWarning, match=r"00002: The record at byte 0 .* kept as"):
        done = compact(store)
    assert len(done.rewrite.damaged) == 1
    assert len(_ids(EpisodeStore.open(tmp_path))) == 11
    (kept,) = (store.path / ".meta" / "damaged").iterdir()
    assert data.startswith(kept.read_bytes())
    assert verify(EpisodeStore.open(tmp_path)).sound


@pytest.mark.parametrize("how", ["missing", "cut off"])
def test_a_lost_shard_is_not_forgotten(tmp_path: Path, how: str) -> None:
    store = _store(tmp_path)
    second = store.rows()[1].offset
    shard = store.path / Layout(store.path).read_shards().names[0]
    os.truncate(shard, second) if how == "cut off" else shard.unlink()
    with pytest.raises(FlywheelError, match=r"(missing|holds 1 whole records, and 2 are listed).*store repair"):
        compact(EpisodeStore.open(tmp_path))
    assert Layout(store.path).read_shards().generation == 0


def test_one_compaction_at_a_time(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with Layout(store.path).compacting(), pytest.raises(FlywheelError, match="Another process is compacting"):
        compact(store)


def test_a_plan_that_does_not_fit_is_made_anew(tmp_path: Path) -> None:
    store = _store(tmp_path)
    layout = Layout(store.path)
    shards = layout.read_shards()
    plan.save_plan(layout.plan, plan.Plan(shards, (plan.Group((0, 99), copies=True),)))
    (store.path / "g0001").mkdir()
    (store.path / "g0001" / ".part-00000").write_bytes(b"of another plan")
    assert compact(store).rewrite.after == 1
    layout.plan.write_bytes(b"{")
    assert verify(store).sound
    assert compact(store).rewrite.generation == 1


def test_purge_takes_deleted_episodes_off_the_disk(tmp_path: Path) -> None:
    store = _store(tmp_path)
    before = _ids(store)
    secret = store.raw(before[5]).observation["position"].tobytes()
    store.label([before[5]], "deleted", True, by="anna")
    assert purge(store).rewrite.dropped == 1
    assert _holds(store, secret)  # in the old generation
    assert purge(store, grace_seconds=0).removed == (0,)
    assert not _holds(store, secret)
    assert _ids(store) == [name for name in before if name != before[5]]
    assert verify(store).sound
    with store.writer() as writer:
        assert writer.append(episode(5)) == before[5]  # it is new again, and still labelled


def test_an_episode_that_stands_in_two_shards_is_purged_from_both(tmp_path: Path) -> None:
    store = _store(tmp_path)
    before = _ids(store)
    secret = store.raw(before[0]).observation["position"].tobytes()
    layout = Layout(store.path)
    shards = layout.read_shards()
    (store.path / shards.file_name(len(shards.names))).write_bytes((store.path / shards.names[0]).read_bytes())
    layout.write_shards(shards.add(shards.lengths[0], 0))
    store = EpisodeStore.open(tmp_path)
    store.label([before[0]], "deleted", True, by="anna")
    assert purge(store, grace_seconds=0).rewrite.dropped == 2
    assert not _holds(store, secret)


def test_a_killed_compaction_does_not_take_the_place_of_a_purge(tmp_path: Path) -> None:
    store = _store(tmp_path)
    layout = Layout(store.path)
    plan.save_plan(layout.plan, plan.Plan(layout.read_shards(), (plan.Group(tuple(range(6)), copies=True),)))
    store.label(_ids(store)[:1], "deleted", True, by="anna")
    assert purge(store).rewrite.dropped == 1
    assert len(store.rows(deleted=True)) == 11


def test_what_a_snapshot_names_is_not_purged(tmp_path: Path) -> None:
    store = _store(tmp_path)
    before = _ids(store)
    snapshot = store.snapshot()
    store.lineage.keep_snapshot(snapshot)
    store.lineage.keep_policy(PolicyRecord(checkpoint="c" * 32, snapshot=snapshot.hash))
    store.label([before[5]], "deleted", True, by="anna")
    with pytest.raises(FlywheelError, match=f"{before[5]}.*{snapshot.hash[:12]} \\(policy cccccccccccc came of it\\)"):
        purge(store)
    assert Layout(store.path).read_shards().generation == 0


def test_a_store_is_not_purged_to_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path, shards=1)
    store.label(_ids(store), "deleted", True, by="anna")
    with pytest.raises(FlywheelError, match="Nothing would be left"):
        purge(store)
    assert len(store.rows(deleted=True)) == 2


def test_merging_keeps_order_and_makes_few() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes: list[int] = rng.integers(1, 130, rng.integers(0, 60)).tolist()
        linked = frozenset(rng.choice(len(sizes), len(sizes) // 10, replace=False).tolist() if sizes else [])
        groups = merge_groups(sizes, 100, linked)
        assert [shard for group in groups for shard in group.shards] == list(range(len(sizes)))
        totals = [sum(sizes[shard] for shard in group.shards) for group in groups]
        assert all(total <= 100 for group, total in zip(groups, totals, strict=True) if group.copies)
        assert all(not linked & set(group.shards) for group in groups if group.copies)
        assert len(groups) <= 4 * sum(sizes) / 100 + 2 * len(linked) + 1


def _holds(store: EpisodeStore, needle: bytes) -> bool:
    files: Sequence[Path] = [path for path in store.path.rglob("*tfrecord*") if path.is_file()]
    return any(needle in path.read_bytes() for path in files)
