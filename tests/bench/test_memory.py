from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path

import pytest

from flywheel.bench.memory import Course, MemoryConfig, Reading, main, read_memory
from flywheel.core.errors import FlywheelError

_NEEDS_LINUX = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's figures")


@_NEEDS_LINUX
def test_memory_that_is_written_to_is_seen() -> None:
    before, _ = read_memory(os.getpid())
    held = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # fresh pages, whatever this process has freed before
    held.write(b"\x01" * (64 << 20))
    after, proportional = read_memory(os.getpid())
    assert 50 < after - before < 80
    assert proportional > after - before
    held.close()


def test_a_process_that_is_gone_is_named() -> None:
    with pytest.raises(FlywheelError, match=f"process {sys.maxsize}"):
        read_memory(sys.maxsize)


def test_the_slope_is_that_of_what_comes_after_the_first_third() -> None:
    filling = [Reading(second, 100.0 * second, 0.0) for second in range(3)]
    settled = [Reading(second, 400.0 + second / 2, 0.0) for second in range(3, 9)]
    course = Course(filling + settled, [1.0] * 9)
    assert course.settled == settled
    assert course.slope() == pytest.approx(30)
    assert Course(settled[:1], [1.0]).slope() == 0


def test_settings_that_measure_nothing_are_refused() -> None:
    with pytest.raises(FlywheelError, match="--budget-mib"):
        main(MemoryConfig(budget_mib=0))


@pytest.mark.slow
@_NEEDS_LINUX
def test_every_side_works_and_is_read(tmp_path: Path) -> None:
    main(MemoryConfig(budget_mib=4, times=4, minutes=0.02, seconds=0.4, folder=tmp_path, output=tmp_path / "figures.json"))
    sides = json.loads((tmp_path / "figures.json").read_text())["sides"]
    assert len(sides) == 3
    for course in sides.values():
        assert len(course["readings"]) == len(course["rates"]) == 3
        assert min(course["rates"]) > 0
