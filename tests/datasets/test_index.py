from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flywheel.datasets.index import EpisodeIndex, Fingerprint, IndexRow
from flywheel.datasets.store import EpisodeStore
from tests.point import episode, make_store


def _index(store: EpisodeStore) -> Path:
    return store.path / ".meta" / "index.sqlite"


def _rows(store: EpisodeStore) -> list[IndexRow]:
    return EpisodeStore.open(store.path).rows()


def _saved(store: EpisodeStore) -> dict[str, list[IndexRow]]:
    shards = store._layout.read_shards()
    names = [shards.file_name(number) for number in range(len(shards.lengths))]
    marks = {name: Fingerprint.of(store.path / name, count) for name, count in zip(names, shards.lengths, strict=True)}
    return EpisodeIndex(_index(store)).load({name: mark for name, mark in marks.items() if mark})


def test_a_row_says_what_the_episode_is(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    for seed, row in enumerate(store.rows()):
        expected = episode(seed)
        assert {key: getattr(row, key) for key in expected.metadata.to_json()} == expected.metadata.to_json()
        assert (row.length, row.episode_return) == (expected.transitions, expected.episode_return)
        assert row.shard == "point-train.tfrecord-00000"


def test_sealing_saves_the_rows(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    assert [row for rows in _saved(store).values() for row in rows] == _rows(store)


def test_people_can_query_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(5))
    with closing(sqlite3.connect(_index(store))) as connection:
        (found,) = connection.execute("SELECT task, count(*), sum(success) FROM episodes GROUP BY task")
    assert found == ("reach", 5, sum(row.success for row in store.rows()))


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM episodes WHERE seed = 1",
        "UPDATE episodes SET success = 1 - success WHERE seed = 1",
        'UPDATE episodes SET "offset" = "offset" + 1',
        "UPDATE shards SET last_crc = last_crc + 1",
        "DROP TABLE episodes",
        "ALTER TABLE episodes DROP COLUMN operator",
        "ALTER TABLE episodes ADD COLUMN weather",
    ],
)
def test_a_wrong_index_changes_nothing_and_is_mended(tmp_path: Path, harm: str) -> None:
    store = make_store(tmp_path, range(3))
    expected = _rows(store)
    with closing(sqlite3.connect(_index(store))) as connection, connection:
        connection.execute(harm)
    assert _rows(store) == expected
    with store.writer() as writer:
        writer.append(episode(7))
    assert _rows(store)[:3] == expected
    assert len(_rows(store)) == 4


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, None])
def test_a_broken_or_missing_index_changes_nothing_and_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    store = make_store(tmp_path, range(3))
    expected = _rows(store)
    if content is None:
        _index(store).unlink()
    else:
        _index(store).write_bytes(content)
    assert _rows(store) == expected
    with store.writer() as writer:
        writer.append(episode(7))
    assert sum(map(len, _saved(store).values())) == 4


def test_flipped_bits_in_the_index_never_change_a_row(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    expected = _rows(store)
    content = _index(store).read_bytes()
    for bit in range(0, 8 * len(content), 1201):
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        _index(store).write_bytes(data)
        assert _rows(store) == expected


def test_a_locked_index_stops_nobody(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(3))
    with closing(sqlite3.connect(_index(store), isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with store.writer() as writer:
            writer.append(episode(7))
        assert len(_rows(store)) == 4
        connection.execute("ROLLBACK")
    with store.writer():
        pass
    assert sum(map(len, _saved(store).values())) == 4
