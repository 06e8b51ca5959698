from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from reproductions.family import ALGORITHMS, RESULTS, Config, load, reproduce, table


def test_each_algorithm_has_a_row_and_is_not_run_again(tmp_path: Path) -> None:
    config = Config(logged=4, updates=5, evaluations=2, robot="fake", root=tmp_path / "runs", results=tmp_path / "results")
    found = reproduce(config)
    assert tuple(result.algorithm for result in found) == ALGORITHMS
    assert len({result.snapshot for result in found}) == 1
    assert {result.settings.get("warm_up", 1) for result in found} == {1}
    assert len(table(found).splitlines()) == 2 + len(ALGORITHMS)
    assert reproduce(replace(config, robot="none")) == found
    assert sorted(load(tmp_path / "results"), key=str) == sorted(found, key=str)
    with pytest.raises(FlywheelError, match="'bcc'"):
        reproduce(replace(config, algorithms=("bcc",)))


def test_what_is_checked_in_can_be_shown() -> None:
    found = load(RESULTS)
    assert {result.updates for result in found} == {10_000}
    assert all(result.evaluations >= 100 for result in found)
