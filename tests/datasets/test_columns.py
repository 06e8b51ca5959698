from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec, ObservationSpec
from flywheel.datasets.cache.column_cache import cache_folder, open_cache
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import ActionableGoals, Hindsight, Relabeler, TaskGoal, TaskReward
from flywheel.datasets.sampler import UniformSampler, locate
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning
from tests.point import SCHEMA, episode, make_store


def _open(store: EpisodeStore) -> Columns:
    return Columns.open(store, store.snapshot())


def _batch(columns: Columns, relabeler: Relabeler, seed: int = 0, count: int = 200) -> Batch:
    rng = np.random.default_rng(seed)
    indices = UniformSampler(columns.table).sample(rng, count)
    return columns.gather(indices, relabeler(columns.table, indices, rng), 0.9)


def _append(store: EpisodeStore, *seeds: int) -> None:
    with store.writer() as writer:
        for seed in seeds:
            writer.append(episode(seed))


def _assert_equal(left: Batch, right: Batch) -> None:
    for name in ("action", "reward", "discount", "is_chained"):
        one, two = getattr(left, name), getattr(right, name)
        assert (one is None and two is None) or torch.equal(one, two)
    for name in ("observation", "next_observation", "goal"):
        one, two = getattr(left, name), getattr(right, name)
        assert (one is None and two is None) or torch.equal(one["state"], two["state"])


def _assert_holds(columns: Columns, store: EpisodeStore) -> None:
    """Every transition of the snapshot, gathered, is what the store's own reader says."""
    table = columns.table
    batch = columns.gather(*_everything(columns), 0.9)
    at = 0
    for number, source in enumerate(store.episodes(store.snapshot())):
        rows = slice(at, at + source.transitions)
        state = SCHEMA.observation.pack_state(source.observation)
        np.testing.assert_array_equal(batch.observation["state"][rows], state[:-1])
        np.testing.assert_array_equal(batch.next_observation["state"][rows], state[1:])
        np.testing.assert_array_equal(batch.action[rows], source.action[:-1])
        np.testing.assert_array_equal(batch.reward[rows], source.reward[:-1])
        np.testing.assert_allclose(batch.discount[rows], 0.9 * source.discount[:-1], rtol=1e-6)
        assert table.episode_id[number] == source.metadata.episode_id
        assert table.success[number] == source.metadata.success
        assert table.terminal[number] == source.is_terminal[-1]
        assert table.task[number] == source.metadata.task
        assert table.episode_return[number] == pytest.approx(source.episode_return)
        at += source.transitions
    assert at == table.total == len(batch)


def _everything(columns: Columns) -> tuple:
    indices = locate(columns.table, np.arange(columns.table.total))
    return indices, TaskReward()(columns.table, indices, np.random.default_rng(0))


def test_columns_hold_what_the_store_holds(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with store.writer() as writer:
        for seed in range(100, 105):
            writer.append(episode(seed, horizon=1 + seed % 3))  # too short to arrive: truncated
    columns = _open(store)
    assert len(columns.table) == 35
    assert 0 < columns.table.terminal.sum() < 35
    _assert_holds(columns, store)
    _assert_holds(_open(store), store)  # from the cache


def test_batches_have_the_shapes_and_types_that_algorithms_expect(tmp_path: Path) -> None:
    columns = _open(make_store(tmp_path))
    for relabeler, has_goal in (
        (TaskReward(), False),
        (Hindsight(), True),
        (ActionableGoals(), True),
        (TaskGoal({"state": np.ones(4, np.float32)}), True),
    ):
        batch = _batch(columns, relabeler)
        assert batch.observation["state"].shape == batch.next_observation["state"].shape == (200, 4)
        assert batch.action.shape == (200, 2)
        assert batch.reward.shape == batch.discount.shape == (200,)
        assert (batch.goal is not None) == has_goal
        tensors = [*batch.observation.values(), *batch.next_observation.values(), batch.action, batch.reward, batch.discount]
        assert {tensor.dtype for tensor in [*tensors, *(batch.goal or {}).values()]} == {torch.float32}
        assert len(batch[:50]) == 50


def test_hindsight_goal_is_the_observation_that_is_reached(tmp_path: Path) -> None:
    columns = _open(make_store(tmp_path))
    batch = _batch(columns, ActionableGoals(p_chained=0.0))
    assert batch.goal is not None
    reached = batch.discount == 0
    assert reached.any()
    assert torch.equal(batch.goal["state"][reached], batch.next_observation["state"][reached])
    assert torch.equal(batch.reward, reached.float())


def test_growing_store_decodes_only_new_episodes(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(10))
    _open(store)
    _append(store, 100, 101)
    calls: list[tuple[int, int]] = []
    columns = Columns.open(store, store.snapshot(), lambda done, total: calls.append((done, total)))
    assert calls == [(0, 2), (1, 2), (2, 2)]
    Columns.open(store, store.snapshot(), lambda done, total: calls.append((done, total)))
    assert len(calls) == 3  # nothing is left to decode
    _assert_holds(columns, store)


def test_unsealed_episodes_are_columns_too(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    with store.writer() as writer:
        writer.append(episode(50))
        columns = _open(store)
        assert len(columns.table) == 4
        _assert_holds(columns, store)
    _assert_holds(_open(store), store)


def test_batches_do_not_depend_on_the_order_of_ingestion(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a", range(10))
    other = make_store(tmp_path / "b", range(5, 10))
    _open(other)
    _append(other, *range(5))
    one, two = _open(store), _open(other)

    assert (one.table.start != two.table.start).any()
    assert one.table.episode_id == two.table.episode_id
    for relabeler in (TaskReward(), Hindsight(), ActionableGoals()):
        _assert_equal(_batch(one, relabeler), _batch(two, relabeler))


def test_older_snapshot_samples_the_same_after_the_store_has_grown(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(5))
    snapshot = store.snapshot()
    before = _batch(_open(store), ActionableGoals())
    _append(store, *range(100, 110))
    _open(store)
    after = _batch(Columns.open(store, snapshot), ActionableGoals())
    _assert_equal(before, after)


def test_old_columns_stay_valid_while_the_cache_grows_or_is_rebuilt(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(5))
    columns = _open(store)
    before = _batch(columns, TaskReward())
    _append(store, *range(100, 110))
    _open(store)
    (cache_folder(store.path) / "header.json").write_text("{}")
    _open(store)
    _assert_equal(before, _batch(columns, TaskReward()))


def test_uncommitted_tail_is_cut(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(5))
    _open(store)
    folder = cache_folder(store.path)
    sizes = {name: (folder / name).stat().st_size for name in ("state.f32", "reward.f32", "episodes.jsonl")}
    for name in sizes:  # a builder died between writing rows and completing the commit record
        with (folder / name).open("ab") as file:
            file.write(b'{"episode_id": "half')
    _assert_holds(_open(store), store)
    assert {name: (folder / name).stat().st_size for name in sizes} == sizes
    _append(store, 100)
    _assert_holds(_open(store), store)


DAMAGE = {
    "another version": ("header.json", b'{"format": 0}'),
    "no header": ("header.json", None),
    "header of rubbish": ("header.json", b"\xff\x00"),
    "rows lost": ("state.f32", b"short"),
    "a column lost": ("action.f32", None),
    "index lost": ("episodes.jsonl", None),
    "index of rubbish": ("episodes.jsonl", b"rubbish\n"),
    "index of something else": ("episodes.jsonl", b'{"episode_id": "x"}\n'),
    "index of the wrong kind": ("episodes.jsonl", b"[1]\n"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_cache_is_built_again(tmp_path: Path, kind: str) -> None:
    store = make_store(tmp_path, range(5))
    _open(store)
    name, content = DAMAGE[kind]
    path = cache_folder(store.path) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    _assert_holds(_open(store), store)
    _assert_holds(_open(store), store)


def test_read_only_store_is_cached_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", range(3))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not stop the superuser
    _assert_holds(_open(store), store)
    assert not (store.path / ".columns").exists()
    assert list((tmp_path / "cache" / "flywheel" / "columns").glob("*/state.f32"))


def test_empty_snapshot_is_refused(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path, "point", SCHEMA)
    with pytest.raises(FlywheelError, match="holds no episodes"):
        _open(store)


def test_episode_that_is_not_as_the_snapshot_has_it_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    entry = store.snapshot().entries[1]
    for other in (entry._replace(crc=entry.crc ^ 1), entry._replace(episode_id="gone")):
        with pytest.raises(FlywheelError, match=f"no longer holds episode '{other.episode_id}'"):
            Columns.open(store, Snapshot.of([other]))


def test_damaged_record_is_left_out_and_named(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    snapshot = store.snapshot()
    row = store.rows()[1]
    with (store.path / row.shard).open("r+b") as file:
        file.seek(row.offset + 40)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.warns(DamageWarning, match=row.episode_id):
        columns = Columns.open(store, snapshot)
    assert columns.table.episode_id == tuple(entry.episode_id for entry in snapshot.entries if entry.episode_id != row.episode_id)
    with pytest.raises(FlywheelError, match="is readable"), pytest.warns(DamageWarning):
        Columns.open(store, Snapshot.of(entry for entry in snapshot.entries if entry.episode_id == row.episode_id))


def test_observations_without_a_state_are_refused(tmp_path: Path) -> None:
    schema = Schema(observation=ObservationSpec({"count": ArraySpec((1,), "int64")}), action=SCHEMA.action)
    store = EpisodeStore.create(tmp_path, "stateless", schema)
    source = episode(0)
    with store.writer() as writer:
        writer.append(dataclasses.replace(source, observation={"count": np.zeros((len(source), 1), np.int64)}))
    with pytest.raises(FlywheelError, match="no floating-point vector"):
        _open(store)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_told_and_mended(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(5))
    with open_cache(store.path, SCHEMA):
        pass
    column = cache_folder(store.path) / "action.f32"
    column.unlink()
    column.symlink_to("/dev/full")
    with pytest.raises(FlywheelError, match=r"disk is full.*free some space"):
        _open(store)
    column.unlink()
    column.touch()
    _assert_holds(_open(store), store)


_BUILD = """
import sys
from flywheel.datasets.cache import column_cache
from flywheel.datasets.columns import Columns
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning
column_cache._COMMIT_ROWS = 1
store = EpisodeStore.open(sys.argv[1])
Columns.open(store, store.snapshot(), lambda done, total: print(done, flush=True))
"""


def test_killed_builds_lose_only_their_last_commit(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(40))
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _BUILD, str(store.path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(int(rng.integers(1, 10))):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open_cache(store.path, SCHEMA) as cache:
        assert len(cache.episodes) > 0
    _assert_holds(_open(store), store)


def test_concurrent_builders_share_one_cache(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(40))
    builders = [subprocess.Popen([sys.executable, "-c", _BUILD, str(store.path)], stdout=subprocess.PIPE) for _ in range(2)]
    decoded = sum(len(builder.communicate()[0].splitlines()[:-1]) for builder in builders)
    assert [builder.returncode for builder in builders] == [0, 0]
    assert decoded == 40
    with open_cache(store.path, SCHEMA) as cache:
        assert len(cache.episodes) == 40
    _assert_holds(_open(store), store)
