from __future__ import annotations

import os
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.layout import Layout
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep import plan
from flywheel.datasets.upkeep.repair import repair
from flywheel.datasets.upkeep.verify import verify
from tests.point import SCHEMA, episode, make_store


def _store(root: Path) -> EpisodeStore:
    store = make_store(root, range(0))
    with store.writer(seal_episodes=2) as writer:
        for seed in range(8):
            writer.append(episode(seed))
    return store


def _flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def _kept(store: EpisodeStore) -> set[str]:
    return {path.name for path in (store.path / ".meta" / "damaged").iterdir()}


def test_a_sound_store_stays_as_it_is(tmp_path: Path) -> None:
    store = _store(tmp_path)
    snapshot = store.snapshot()
    told: list[str] = []
    assert repair(tmp_path, told.append).snapshot() == snapshot
    assert told == []
    assert Layout(store.path).read_shards().generation == 0


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", ".meta/schema.json", ".meta/schema.copy.json"])
@pytest.mark.parametrize("how", ["flipped", "missing", "empty"])
def test_lists_and_schema_are_made_again(tmp_path: Path, name: str, how: str) -> None:
    store = _store(tmp_path)
    snapshot, path = store.snapshot(), store.path / name
    before = path.read_bytes()
    if how == "flipped":
        _flip(path, 40)
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    damaged = None if how == "missing" else path.read_bytes()
    mended = repair(store.path)
    assert path.read_bytes() == before
    assert mended.snapshot() == snapshot
    assert verify(mended).sound
    if damaged is not None:
        assert (store.path / ".meta" / "damaged" / name.replace("/", "-")).read_bytes() == damaged


def test_damaged_records_and_lost_shards_are_left_out_and_kept(tmp_path: Path) -> None:
    store = _store(tmp_path)
    names = Layout(store.path).read_shards().names
    _flip(store.path / names[1], 100)
    (store.path / names[2]).unlink()
    told: list[str] = []
    mended = repair(tmp_path, told.append)
    assert len(mended.rows()) == 5
    assert verify(mended).sound
    assert names[1] in _kept(store)
    assert any("00001" in sentence for sentence in told)
    assert any("00002" in sentence for sentence in told)


def test_what_an_older_list_does_not_name_is_found_again(tmp_path: Path) -> None:
    store = _store(tmp_path)
    older = (store.path / "dataset_info.json").read_bytes()
    with store.writer() as writer:
        writer.append(episode(50))
    snapshot = store.snapshot()
    (store.path / "dataset_info.json").write_bytes(older)
    mended = repair(tmp_path)
    assert mended.snapshot() == snapshot
    assert verify(mended).sound


def test_a_list_is_made_again_across_generations(tmp_path: Path) -> None:
    from flywheel.datasets.upkeep.compact import compact

    store = _store(tmp_path)
    snapshot = store.snapshot()
    compact(store)
    (store.path / "dataset_info.json").unlink()
    assert repair(tmp_path).snapshot() == snapshot
    (store.path / "g0001" / "point-train.tfrecord-00000").unlink()
    (store.path / "dataset_info.json").unlink()
    assert repair(tmp_path).snapshot() == snapshot  # the old generation was still there


def test_a_doubled_episode_is_listed_once(tmp_path: Path) -> None:
    store = _store(tmp_path)
    layout = Layout(store.path)
    names = layout.read_shards().names
    os.link(store.path / names[0], store.path / layout.read_shards().file_name(len(names)))
    layout.write_shards(layout.read_shards().add(2, 0))
    assert not verify(EpisodeStore.open(tmp_path)).sound
    mended = repair(tmp_path)
    assert verify(mended).sound
    assert sum(layout.read_shards().lengths) == 8


def test_a_damaged_index_and_snapshot_are_seen_to(tmp_path: Path) -> None:
    store = _store(tmp_path)
    path = store.lineage.keep_snapshot(store.snapshot())
    _flip(path, 60)
    index = store.path / ".meta" / "index.sqlite"
    data = index.read_bytes()
    at = data.index(b"reach-script-00003")
    index.write_bytes(data[:at] + b"REACH" + data[at + 5 :])
    assert len(verify(EpisodeStore.open(tmp_path)).problems) == 2
    mended = repair(tmp_path)
    assert verify(mended).sound
    assert not path.exists()
    assert f".meta-snapshots-{path.name}" in _kept(store)


def test_without_any_schema_nothing_is_touched(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for name in ("schema.json", "schema.copy.json"):
        _flip(store.path / ".meta" / name, 10)
    with pytest.raises(FlywheelError, match="both damaged"):
        repair(tmp_path)
    with pytest.raises(FlywheelError, match="no store"):
        repair(tmp_path / "elsewhere")
    assert store.schema == SCHEMA


def test_a_lost_shard_is_given_up_also_after_a_killed_compaction(tmp_path: Path) -> None:
    store = _store(tmp_path)
    layout = Layout(store.path)
    shards = layout.read_shards()
    plan.save_plan(layout.plan, plan.Plan(shards, (plan.Group(tuple(range(len(shards.lengths))), copies=True),)))
    (store.path / shards.names[1]).unlink()
    with pytest.warns(UserWarning, match="missing"):
        mended = repair(tmp_path)
    assert len(mended.rows()) == 6
    assert verify(mended).sound


def test_a_snapshot_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    store = _store(tmp_path)
    path = Layout(store.path).snapshots / f"{'a' * 64}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"format": 99}')
    told: list[str] = []
    repair(tmp_path, told.append)
    assert path.exists()
    assert "format 99" in " ".join(told)
    (problem,) = verify(EpisodeStore.open(tmp_path)).problems
    assert "format 99" in problem.what


def test_a_snapshot_under_a_wrong_name_is_moved_aside(tmp_path: Path) -> None:
    store = _store(tmp_path)
    path = Layout(store.path).snapshots / f"{'a' * 64}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    store.snapshot().save(path)
    assert not verify(store).sound
    assert verify(repair(tmp_path)).sound
    assert not path.exists()
