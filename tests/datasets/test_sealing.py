from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets import claims, journal
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.layout import Layout
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.verify import verify
from tests.point import SCHEMA, episode, make_store


def _lengths(store: EpisodeStore) -> tuple[int, ...]:
    return Layout(store.path).read_shards().lengths


def test_a_journal_is_sealed_at_a_count_or_a_size(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(0))
    with store.writer(seal_episodes=2) as writer:
        for seed in range(5):
            writer.append(episode(seed))
        assert _lengths(store) == (2, 2)
    with store.writer(seal_bytes=1) as writer:
        writer.append(episode(7))
        assert _lengths(store) == (2, 2, 1, 1)


def test_a_journal_is_sealed_at_an_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    store = make_store(tmp_path, range(0))
    with store.writer(seal_seconds=60) as writer:
        writer.append(episode(0))
        now[0] += 59
        writer.seal_if_due()
        assert _lengths(store) == ()
        now[0] += 1
        writer.seal_if_due()
        assert _lengths(store) == (1,)
        writer.seal_if_due()
        writer.append(episode(1))
        now[0] += 60
        writer.append(episode(2))
        assert _lengths(store) == (1, 2)


@pytest.mark.parametrize("wrong", [{"seal_episodes": 0}, {"seal_bytes": -1}, {"seal_seconds": float("nan")}])
def test_what_would_never_seal_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(FlywheelError, match=f"{name} is"):
        make_store(tmp_path, range(0)).writer(**wrong)


def test_nothing_depends_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, range(2))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    with store.writer(seal_episodes=1) as writer:
        writer.append(episode(5))
    assert _lengths(store) == (2, 1)
    assert verify(store).sound


def test_an_append_whose_acknowledgement_was_lost_is_stored_once(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(0))
    with store.writer() as first, store.writer() as second:
        assert first.append(episode(1)) == second.append(episode(1)) == first.append(episode(1))
        second.seal()
        assert second.append(episode(1)) == episode(1).metadata.episode_id
    with store.writer() as later:
        later.append(episode(1))
    assert _lengths(store) == (1,)
    assert verify(store).sound


def test_a_claim_without_a_record_does_not_keep_an_episode_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, range(0))
    with store.writer() as writer, store.writer() as other:
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "write", _refuse)
            with pytest.raises(FlywheelError, match="no room"):
                writer.append(episode(1))
        other.append(episode(1))
        writer.append(episode(1))
    assert _lengths(store) == (1,)


def test_claims_are_begun_anew_without_forgetting_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_LARGEST", 64)
    store = make_store(tmp_path, range(0))
    with store.writer() as one, store.writer() as other:
        for seed in range(15):
            one.append(episode(seed))
            other.append(episode(seed))
            other.append(episode(100 + seed))
        one.append(episode(114))
        assert Layout(store.path).claims.stat().st_size <= 64
    assert len(store.rows()) == sum(_lengths(store)) == 30


def test_nobody_promises_what_another_writer_may_still_have_to_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, range(0))
    synced, told = os.fdatasync, list[str]()
    with store.writer() as one, store.writer() as other, store.writer() as third:
        second = threading.Thread(target=lambda: told.append(other.append(episode(1))))

        def fail(descriptor: int) -> None:
            monkeypatch.setattr(os, "fdatasync", synced)
            assert [row.seed for row in store.rows()] == [0, 1]  # a reader sees it already
            second.start()
            second.join(0.3)
            assert second.is_alive()
            raise OSError(errno.EIO, "Input/output error")

        one.append(episode(0))
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(FlywheelError, match="Input/output error"):
            one.append(episode(1))
        second.join()
        one.append(episode(2))
        third.append(episode(1))
        assert sorted(row.seed for row in store.rows()) == [0, 1, 2]
        assert all(store.read(row.episode_id).metadata.seed == row.seed for row in store.rows())
    assert told == [episode(1).metadata.episode_id]
    assert sum(_lengths(store)) == 3
    assert verify(store).sound


def test_a_shard_that_may_be_listed_never_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, range(0))
    writer = store.writer(seal_episodes=2)
    writer.append(episode(0))
    with monkeypatch.context() as patch:
        patch.setattr(journal, "fsync_folder", _refuse)
        with pytest.warns(StoreWarning, match="not sealed yet"):
            writer.append(episode(1))
    writer.append(episode(2))
    writer.close()
    assert _lengths(store) == (2, 1)
    assert verify(store).sound


def test_many_shards_are_advised_against_long_before_they_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MANY_SHARDS", 3)
    monkeypatch.setattr(journal, "_ADVISE_EVERY", 3)
    store = make_store(tmp_path, range(0))
    writer = store.writer(seal_episodes=1)
    for seed in range(2):
        writer.append(episode(seed))
    with pytest.warns(StoreWarning, match="has 3 shards.*'flywheel store compact'"):
        writer.append(episode(3))
    writer.append(episode(4))


def test_a_store_that_is_there_is_opened_without_writing(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(1))
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    EpisodeStore.create(tmp_path, "point", SCHEMA).rows()
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before


def _refuse(*args: object) -> int:
    raise FlywheelError("There is no room.")
