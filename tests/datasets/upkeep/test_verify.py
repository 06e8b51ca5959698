from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from flywheel.datasets.layout import Layout
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.verify import verify
from tests.point import episode, make_store


def _shard(store: EpisodeStore) -> Path:
    (shard,) = store.path.glob("*.tfrecord-*")
    return shard


def test_a_sound_store_is_sound(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(5))
    writer = store.writer()
    writer.append(episode(9))
    calls: list[tuple[int, int]] = []
    report = verify(store, lambda done, total: calls.append((done, total)))
    assert (report.sound, report.episodes, report.shards, report.journals, report.leftovers) == (True, 6, 1, 1, [])
    assert calls[-1] == (2, 2)
    writer.close()


def test_every_flipped_bit_of_a_shard_is_found(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    shard = _shard(store)
    content = shard.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 150).tolist():
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(data)
        report = verify(store)
        assert report.problems[0].file == shard.name
        assert report.episodes == 2


def test_a_shard_that_is_cut_missing_or_too_long_is_found(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    shard = _shard(store)
    content = shard.read_bytes()
    shard.write_bytes(content + content)
    assert any("6 whole records, and 3 are listed" in problem.what for problem in verify(store).problems)
    shard.write_bytes(content[: store.rows()[2].offset])
    assert any("2 whole records, and 3 are listed" in problem.what for problem in verify(store).problems)
    shard.unlink()
    assert "missing" in verify(store).problems[0].what


def test_an_episode_in_two_shards_is_found(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    shard = _shard(store)
    os.link(shard, store.path / "point-train.tfrecord-00001")
    layout = Layout(store.path)
    layout.write_shards(layout.read_shards().add(3, 0))
    report = verify(EpisodeStore.open(tmp_path))
    assert [problem.what for problem in report.problems] == [
        f"Episode reach-script-{seed:05d} is in {shard.name} already." for seed in range(3)
    ]


def test_changed_features_are_found(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    (store.path / "features.json").write_text("{}")
    assert [problem.file for problem in verify(store).problems] == ["features.json"]


def test_leftovers_are_no_damage(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    (store.path / "point-train.tfrecord-00001").write_bytes(b"nobody lists me")
    (store.path / ".dataset_info.json.tmp").write_bytes(b"{")
    (store.path / ".journal" / "1-dead.tfrecord").write_bytes(b"torn")
    report = verify(store)
    assert report.sound
    assert len(report.leftovers) == 3
