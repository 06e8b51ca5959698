"""SIGKILL at any moment: nothing acknowledged is lost or doubled, and plain TFDS reads the store all the while."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.episode import Episode
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.verify import verify
from tests.datasets.crash_writer import SCHEMA, make_episode

_SCRIPTS = Path(__file__).parent
_KILLS = 50


class Lane:
    """One of the writers that run at once; when killed, it starts again with the first episode that was not acknowledged."""

    def __init__(self, root: Path, number: int) -> None:
        self.root, self.number, self.acknowledged = root, number, 0
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            str(_SCRIPTS / "crash_writer.py"),
            "write",
            str(self.root),
            str(self.number),
            str(self.acknowledged),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def wait_until_opening(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"opening\n"

    def kill(self) -> list[Episode]:
        """Returns the episodes that this process had acknowledged, as they should be read."""
        self.process.kill()
        told = self.process.communicate()[0].decode().replace("opening\n", "").split()
        first, self.acknowledged = self.acknowledged, self.acknowledged + len(told)
        episodes = [make_episode(self.number, number) for number in range(first, self.acknowledged)]
        assert [episode.metadata.episode_id for episode in episodes] == told
        return episodes


def test_fifty_kills_of_two_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    EpisodeStore.create(tmp_path, "crash", SCHEMA)
    lanes = [Lane(tmp_path, number) for number in range(2)]
    expected: list[Episode] = []
    reading: subprocess.Popen[str] | None = None
    try:
        for kill in range(_KILLS):
            lane = lanes[int(rng.integers(2))]
            lane.wait_until_opening()
            time.sleep(rng.uniform(0, 0.08))
            killed = lane.kill()
            store = EpisodeStore.open(tmp_path)
            for episode in killed:
                assert_equal(store.read(episode.metadata.episode_id), episode)
            expected += killed
            if kill == 20:  # read by TFDS while both go on writing and dying
                reading = _read_with_tfds(store.path)
            lane.start()
    finally:
        expected += [episode for lane in lanes for episode in lane.kill()]
    assert reading is not None
    assert len(_lines(reading)) > 0

    store = EpisodeStore.open(tmp_path)
    snapshot = store.snapshot()
    with store.writer():
        pass  # opening a writer recovers what the last two left
    assert store.snapshot() == snapshot
    report = verify(store)
    assert (report.problems, report.leftovers) == ([], [])
    assert len(expected) > _KILLS
    for episode in expected:
        assert_equal(store.read(episode.metadata.episode_id), episode)

    rows = store.rows()
    assert len(rows) - len(expected) <= _KILLS + 2  # an append that was killed before it could tell is stored or not
    assert all(not row.shard.startswith(".") for row in rows)
    found = _lines(_read_with_tfds(store.path))
    assert sorted(found) == sorted((row.episode_id, row.length + 1, row.episode_return) for row in rows)


def test_a_kill_before_every_single_call_loses_nothing(tmp_path: Path) -> None:
    EpisodeStore.create(tmp_path, "crash", SCHEMA)
    command = [sys.executable, str(_SCRIPTS / "crash_writer.py"), "sweep", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kills, acknowledged = map(int, result.stdout.split())
    assert kills >= 30
    assert acknowledged >= 60
    store = EpisodeStore.open(tmp_path)
    for row in store.rows():
        lane, number = map(int, row.episode_id.split("-"))
        assert_equal(store.read(row.episode_id), make_episode(lane, number))


def assert_equal(found: Episode, expected: Episode) -> None:
    assert found.metadata == expected.metadata
    for key, value in expected.observation.items():
        np.testing.assert_array_equal(found.observation[key], value, strict=True)
    for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key), strict=True)


def _read_with_tfds(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(_SCRIPTS / "read_with_tfds.py"), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _lines(process: subprocess.Popen[str]) -> list[tuple[str, int, float]]:
    output, _ = process.communicate()
    assert process.returncode == 0
    return [(name, int(steps), pytest.approx(float(total))) for name, steps, total in map(str.split, output.splitlines())]
