from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec
from flywheel.datasets.cache.array_cache import ArrayMaps
from flywheel.datasets.cache.frames import Frames
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import ActorGoals, Hindsight, Relabeler
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.window import SINGLE, Window
from flywheel.training import data
from flywheel.training.data import CHUNK_UPDATES, ChunkSource, Part
from tests.tables import make_table

BATCH = 12
ROWS = 400


def _columns(with_pictures: bool) -> Columns:
    rng = np.random.default_rng(0)
    table = make_table([5, 80, 1, 37, 120])
    spec = ArraySpec((6, 4, 3), "uint8")
    pictures = rng.integers(0, 255, (ROWS, 6 * 4 * 3), np.uint8)
    return Columns(
        table=table,
        state=rng.normal(size=(ROWS, 3)).astype(np.float32),
        action=rng.normal(size=(ROWS, 2)).astype(np.float32),
        reward=rng.normal(size=ROWS).astype(np.float32),
        arrays={"camera": Frames(ArrayMaps(spec, pictures))} if with_pictures else {},
    )


def _source(
    columns: Columns, relabeler: Relabeler | None = None, part: Part = data.WHOLE, window: Window = SINGLE
) -> ChunkSource:
    sampler = UniformSampler(columns.table)
    return ChunkSource(
        columns, sampler, relabeler or Hindsight(), batch_size=BATCH, discount=0.9, seed=3, window=window, part=part
    )


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    found = {}
    for name in batch.__slots__:
        value = getattr(batch, name)
        if isinstance(value, dict):
            found.update({f"{name}.{key}": tensor for key, tensor in value.items()})
        elif value is not None:
            found[name] = value
    return found


def _assert_equal(left: Batch, right: Batch) -> None:
    ours, theirs = _tensors(left), _tensors(right)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def _updates(source: ChunkSource, start: int, stop: int) -> list[Batch]:
    batches = []
    for rows in source.updates(start, stop):
        own = BATCH // source.part.world
        copy = rows._map(torch.clone)  # the memory of pictures is used again
        batches += [copy[at : at + own] for at in range(0, len(rows), own)]
    return batches


@pytest.mark.parametrize("with_pictures", [False, True])
def test_an_update_sees_the_same_wherever_a_run_starts(with_pictures: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _source(_columns(with_pictures))
    whole = _updates(source, 0, 2 * CHUNK_UPDATES + 7)
    assert len(whole) == 2 * CHUNK_UPDATES + 7
    for number, batch in enumerate(whole):
        chunk, offset = divmod(number, CHUNK_UPDATES)
        _assert_equal(batch, source.draw(chunk)[offset * BATCH : (offset + 1) * BATCH])
    monkeypatch.setattr(data, "_GATHER_BYTES", 7 * BATCH * 3 * 72)  # seven batches at a time
    for number, batch in enumerate(_updates(source, 33, 105), start=33):
        _assert_equal(batch, whole[number])


def test_pictures_are_gathered_a_few_batches_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = _source(_columns(with_pictures=True))
    monkeypatch.setattr(data, "_GATHER_BYTES", 7 * BATCH * 3 * 72)
    assert [len(batch) // BATCH for batch in source.updates(0, 60)] == [7] * 7 + [1, 7, 3]
    assert [len(batch) // BATCH for batch in _source(_columns(with_pictures=False)).updates(0, 60)] == [50, 10]


def test_the_parts_of_all_processes_are_what_one_gets() -> None:
    columns = _columns(with_pictures=True)
    relabeler = ActorGoals(Hindsight(), Hindsight(0.0, 1.0, 0.0))
    whole = _updates(_source(columns, relabeler), 10, 60)
    parts = [_updates(_source(columns, relabeler, Part(rank, 3)), 10, 60) for rank in range(3)]
    for number, batch in enumerate(whole):
        for rank in range(3):
            _assert_equal(parts[rank][number], batch[rank * 4 : rank * 4 + 4])


@pytest.mark.parametrize("part", [Part(0, 5), Part(3, 3), Part(-1, 2)])
def test_a_batch_that_cannot_be_parted_is_refused(part: Part) -> None:
    with pytest.raises(FlywheelError, match="cannot be parted"):
        _source(_columns(with_pictures=False), part=part)


def test_batches_show_histories_and_chunks_of_their_episode() -> None:
    columns = _columns(with_pictures=True)
    table = columns.table
    source = _source(columns, Hindsight(), window=Window(history=3, chunk=4))
    indices, _ = source._drawn(0)
    batch = source.draw(0)
    n = len(indices)
    assert batch.observation["state"].shape == batch.next_observation["state"].shape == (n, 3, 3)
    assert batch.observation["camera"].shape == (n, 3, 3, 6, 4)
    assert batch.action.shape == (n, 4, 2)
    assert batch.goal is not None
    assert batch.goal["camera"].shape == (n, 3, 6, 4)
    assert batch.is_pad is not None
    assert batch.is_pad_history is not None
    for i in range(0, n, 7):
        episode, step, start = indices.episode[i], indices.step[i], table.start[indices.episode[i]]
        for h in range(3):
            before = step - 2 + h
            assert bool(batch.is_pad_history[i, h]) == (before < 0)
            row = start + max(before, 0)
            assert torch.equal(batch.observation["state"][i, h], torch.from_numpy(columns.state[row]))
            picture = columns.arrays["camera"].maps.rows[row].reshape(6, 4, 3)
            np.testing.assert_array_equal(batch.observation["camera"][i, h].permute(1, 2, 0), picture)
        for k in range(4):
            after = step + k
            assert bool(batch.is_pad[i, k]) == (after >= table.transitions[episode])
            row = start + min(after, table.transitions[episode] - 1)
            assert torch.equal(batch.action[i, k], torch.from_numpy(columns.action[row]))


def test_a_gather_that_fails_is_told_where_it_is_awaited() -> None:
    source = _source(_columns(with_pictures=True))
    fail: Callable[..., Batch] = _fail
    object.__setattr__(source.columns, "gather", fail)
    with pytest.raises(FlywheelError, match="no such row"):
        list(source.updates(0, 10))


def _fail(*_: object) -> Batch:
    raise FlywheelError("no such row")


def test_discounts_may_differ_per_task() -> None:
    columns = _columns(with_pictures=False)
    gamma = np.linspace(0.5, 0.9, len(columns.table), dtype=np.float32)
    source = ChunkSource(columns, UniformSampler(columns.table), Hindsight(), batch_size=BATCH, discount=gamma, seed=0)
    indices, relabeled = source._drawn(0)
    np.testing.assert_array_equal(source.draw(0).discount, relabeled.discount * gamma[indices.episode])
