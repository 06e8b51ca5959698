"""Pictures and other arrays in the training cache: filled in any order, within a budget, resumable; gathered bit for bit."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec
from flywheel.datasets.cache.array_build import Loaded, Wanted, fill, plan
from flywheel.datasets.cache.array_cache import ArrayCache, ArrayMaps
from flywheel.datasets.cache.column_cache import CachedEpisode
from flywheel.datasets.cache.frames import Buffers, Frames
from flywheel.datasets.tfrecord import DamagedError, DamageWarning
from tests.array_builder import CAMERA, ROW, episodes, load, open_caches, picture, png


def build(folder: Path, found: list[CachedEpisode], budget: int) -> dict[str, ArrayCache]:
    caches = open_caches(folder)
    fill(caches, list(plan(caches, found, ["camera"], budget)), load, lambda done, total: None)
    return caches


def assert_holds(caches: Mapping[str, ArrayCache], rows: int) -> None:
    drawn = np.random.default_rng(1).integers(rows, size=64)
    seen = Frames(caches["camera"].maps(rows)).gather(drawn)
    assert seen.shape == (64, 3, 12, 10)
    assert seen.dtype == torch.uint8
    assert seen.is_contiguous(memory_format=torch.channels_last)
    for value, row in zip(seen, drawn.tolist(), strict=True):
        np.testing.assert_array_equal(value.permute(1, 2, 0), picture(row))
    np.testing.assert_array_equal(Frames(caches["stamp"].maps(rows)).gather(drawn), drawn)


@pytest.mark.parametrize("budget", [0, 9 * ROW, 10**9])
def test_rows_are_what_was_loaded_raw_or_encoded(tmp_path: Path, budget: int) -> None:
    found = episodes(4, 5, 3, 6)
    caches = build(tmp_path, found, budget)
    assert_holds(caches, 18)
    assert caches["camera"].raw_bytes == {0: 0, 9 * ROW: 9 * ROW, 10**9: 18 * ROW}[budget]
    assert_holds(open_caches(tmp_path), 18)
    assert not list(plan(open_caches(tmp_path), found, ["camera"], budget))


def test_episodes_are_filled_in_any_order_and_keep_their_form(tmp_path: Path) -> None:
    found = episodes(4, 5, 3, 6)
    build(tmp_path, [found[2]], 0)
    early = Frames(open_caches(tmp_path)["camera"].maps(18))
    before = early.gather(np.arange(9, 12))
    assert [wanted.episode.start for wanted in plan(open_caches(tmp_path), found, ["camera"], 10**9)] == [0, 4, 12]
    caches = build(tmp_path, found, 10**9)
    assert_holds(caches, 18)
    assert caches["camera"].raw_bytes == 15 * ROW
    assert torch.equal(before, early.gather(np.arange(9, 12)))  # an older map stays valid


def test_only_what_is_asked_for_is_loaded(tmp_path: Path) -> None:
    asked: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def spy(wanted: Wanted) -> Loaded:
        asked.append((wanted.raw, wanted.encoded))
        return load(wanted)

    found = episodes(4, 5)
    caches = {"stamp": open_caches(tmp_path)["stamp"]}
    fill(caches, list(plan(caches, found, [], 0)), spy, lambda done, total: None)
    caches = open_caches(tmp_path)
    fill(caches, list(plan(caches, found, ["camera"], 4 * ROW)), spy, lambda done, total: None)
    assert asked == [(("stamp",), ()), (("stamp",), ()), (("camera",), ()), ((), ("camera",))]


def test_an_array_of_another_cache_is_built_again(tmp_path: Path) -> None:
    build(tmp_path, episodes(4), 0)
    assert not open_caches(tmp_path, "another")["camera"].episodes
    for damage in ("header.json", "blob.bin", "episodes.jsonl"):
        build(tmp_path, episodes(4), 0)
        (tmp_path / "camera" / damage).write_bytes(b"{}\n")
        assert_holds(build(tmp_path, episodes(4), 0), 4)


def test_what_a_killed_builder_left_is_written_over(tmp_path: Path) -> None:
    found = episodes(4, 5)
    caches = build(tmp_path, found[:1], 0)
    caches["camera"].put_encoded(4, [b"half"] * 5)  # and no commit
    with (tmp_path / "camera" / "episodes.jsonl").open("ab") as file:
        file.write(b'{"start": 4, "st')
    assert_holds(build(tmp_path, found, 10**9), 9)


def test_damaged_record_is_left_out_and_named(tmp_path: Path) -> None:
    def damaged(wanted: Wanted) -> Loaded:
        if wanted.episode.start == 4:
            raise DamagedError("no picture")
        return load(wanted)

    caches = open_caches(tmp_path)
    with pytest.warns(DamageWarning, match="pictures of e1 are left out: no picture"):
        fill(caches, list(plan(caches, episodes(4, 5, 3), ["camera"], 0)), damaged, lambda done, total: None)
    assert sorted(caches["camera"].episodes) == [0, 9]


def test_damaged_picture_in_the_cache_is_named(tmp_path: Path) -> None:
    frames = Frames(build(tmp_path, episodes(4), 0)["camera"].maps(4))
    for content in (b"\xff\xd8", b"\x89PNG", bytes(8)):
        with (tmp_path / "camera" / "blob.bin").open("r+b") as file:
            file.write(content + bytes(60))
        with pytest.raises(FlywheelError, match=r"Row 0 of a picture column is damaged; delete the store's \.columns folder"):
            frames.gather(np.arange(4))


@given(st.lists(st.integers(0, 17), min_size=1, max_size=60))
def test_each_distinct_picture_is_decoded_once(rows: list[int]) -> None:
    pictures = [png(picture(row)) if row % 3 else b"" for row in range(18)]
    raw = np.stack([picture(row) if row % 3 == 0 else np.zeros((12, 10, 3), np.uint8) for row in range(18)])
    lengths = np.array([len(data) for data in pictures])
    spans = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1)
    maps = ArrayMaps(CAMERA, raw.reshape(18, -1), spans, np.frombuffer(b"".join(pictures), np.uint8))
    seen = Frames(maps).gather(np.array(rows))
    for value, row in zip(seen, rows, strict=True):
        np.testing.assert_array_equal(value.permute(1, 2, 0), picture(row))


def test_a_buffer_is_used_again_once_nobody_looks_at_it() -> None:
    buffers = Buffers()
    first = buffers.take(4096)
    address = first.data_ptr()
    view = first[:100].view(10, 10)
    del first
    gc.collect()
    second = buffers.take(4096)
    assert second.data_ptr() != address  # the view still looks at it
    view[0, 0] = 7
    del view
    gc.collect()
    assert buffers.take(4096).data_ptr() == address
    assert second.shape == (4096,)


@pytest.mark.parametrize("budget", [0, 10**9])
def test_a_batch_that_is_held_is_never_written_over(tmp_path: Path, budget: int) -> None:
    frames = Frames(build(tmp_path, episodes(4, 5), budget)["camera"].maps(9))
    rng = np.random.default_rng(0)
    held = []
    for number in range(40):
        rows = rng.integers(9, size=6)
        held.append((rows[2:], frames.gather(rows)[2:]))
        for drawn, seen in held:
            for value, row in zip(seen, drawn.tolist(), strict=True):
                np.testing.assert_array_equal(value.permute(1, 2, 0), picture(row))
        if number % 3:
            held.pop(int(rng.integers(len(held))))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "uint16", "float64", "int64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 5)])
def test_every_type_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    spec = ArraySpec(shape, dtype)
    values = np.random.default_rng(0).integers(0, 2, (6, *shape)).astype(dtype)
    cache = ArrayCache(tmp_path / "x", spec, "cache")
    cache.put_raw(0, values)
    cache.commit()
    seen = Frames(cache.maps(6)).gather(np.array([5, 0, 3]))
    np.testing.assert_array_equal(seen.numpy(), values[[5, 0, 3]])


def _killed_builds(folder: Path) -> Iterator[int]:
    """Build with a budget for half of it, killed at random moments; the number of episodes that each left committed."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.array_builder", str(folder), str(150 * ROW)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(int(rng.integers(2, 12))):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        yield len(open_caches(folder)["camera"].episodes)


def test_killed_builds_go_on_where_they_were(tmp_path: Path) -> None:
    committed = list(_killed_builds(tmp_path))
    assert committed == sorted(committed)
    assert committed[-1] > 0
    assert_holds(build(tmp_path, episodes(*[5] * 60), 150 * ROW), 300)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_told_and_mended(tmp_path: Path) -> None:
    caches = open_caches(tmp_path)
    blob = tmp_path / "camera" / "blob.bin"
    blob.unlink()
    os.symlink("/dev/full", blob)
    with pytest.raises(FlywheelError, match=r"disk is full.*free some space"):
        fill(caches, list(plan(caches, episodes(4), ["camera"], 0)), load, lambda done, total: None)
    blob.unlink()
    blob.touch()
    assert_holds(build(tmp_path, episodes(4), 0), 4)
