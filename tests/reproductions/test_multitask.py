from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reproductions.multitask import RARE, RESULTS, TASKS, Config, load, reproduce, table


def test_six_runs_make_a_table_and_are_not_run_again(tmp_path: Path) -> None:
    config = Config(episodes=20, updates=2, evaluations=1, robot="fake", root=tmp_path / "runs", results=tmp_path / "results")
    found = reproduce(config)
    assert [(result.impersonate, result.rebalance) for result in found] == [
        (mode, rebalance) for mode in ("orig", "skill", "all") for rebalance in (False, True)
    ]
    assert {result.store[RARE][0] for result in found} == {1}
    assert len({result.snapshot for result in found}) == 1
    lines = table(found).splitlines()
    assert len(lines) == 8
    assert all(task in lines[0] for task in TASKS)
    assert reproduce(replace(config, robot="none")) == found
    assert sorted(load(tmp_path / "results"), key=str) == sorted(found, key=str)


def test_what_is_checked_in_can_be_shown() -> None:
    found = load(RESULTS)
    assert {result.updates for result in found} == {6_000}
    assert all(result.evaluations >= 100 for result in found)
