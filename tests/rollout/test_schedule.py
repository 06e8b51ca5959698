from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.cli.main import main
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.schedule import Count, ScheduleConfig, Turn, collect_tasks, count, next_turn

TASKS = ("lift_red", "lift_green", "stack")


def config(store: Path, **settings: object) -> ScheduleConfig:
    return replace(ScheduleConfig(TASKS, "world", "fake", store=store, episodes=12, turn=2, processes=1), **settings)  # type: ignore[arg-type]


def test_the_task_with_the_fewest_successes_is_next() -> None:
    counts = {"a": Count(9, 4), "b": Count(5, 2), "c": Count(3, 2)}
    assert next_turn(counts, 0.0, 0) == Turn("c", "fewest successes: 2 of 3 episodes; a 4, b 2")
    assert next_turn({"a": Count(0, 0), "b": Count(0, 0)}, 0.0, 0).task == "a"


def test_exploration_goes_to_any_task_and_follows_from_the_seed_and_the_store() -> None:
    stores = [{"a": Count(number, 0), "b": Count(number, number)} for number in range(200)]
    turns = [next_turn(counts, 0.5, 7) for counts in stores]
    assert turns == [next_turn(counts, 0.5, 7) for counts in stores]
    assert turns != [next_turn(counts, 0.5, 8) for counts in stores]
    drawn = [turn for turn in turns if turn.reason == "drawn at random"]
    assert 70 < len(drawn) < 130
    assert {turn.task for turn in drawn} == {"a", "b"}


def test_collecting_evens_out_the_successes_and_repeats_itself(tmp_path: Path) -> None:
    one, two = (collect_tasks(config(tmp_path / name, exploration=0.0)) for name in ("one", "two"))
    assert one.turns == two.turns
    assert one.stored == 12
    rows = EpisodeStore.open(tmp_path / "one" / "world").rows()
    found = count(rows, TASKS)
    assert sum(held.episodes for held in found.values()) == 12
    assert max(held.successes for held in found.values()) - min(held.successes for held in found.values()) <= 2
    again = collect_tasks(config(tmp_path / "one", episodes=4))
    assert again.stored == 4
    assert len({(row.task, row.seed) for row in EpisodeStore.open(tmp_path / "one" / "world").rows()}) == 16


def test_invalid_and_deleted_episodes_count_for_nothing_but_their_seeds_are_used(tmp_path: Path) -> None:
    collect_tasks(config(tmp_path, exploration=0.0))
    store = EpisodeStore.open(tmp_path / "world")
    ids = [row.episode_id for row in store.rows()]
    store.label(ids, "deleted", True, by="test")
    assert count(store.rows(deleted=True), TASKS) == dict.fromkeys(TASKS, Count(0, 0))
    assert collect_tasks(config(tmp_path, exploration=0.0)).stored == 12


def test_it_says_what_is_next_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["collect", "--tasks", *TASKS, "--dataset", "world", "--robot", "fake", "--store", str(tmp_path)]
    main([*arguments, "--episodes", "4", "--turn", "2", "--processes", "1", "--exploration", "0"])
    said = capsys.readouterr().out
    assert "lift_red: fewest successes: 0 of 0 episodes; lift_green 0, stack 0" in said
    assert "Stored 2 episodes of lift_red" in said


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tasks": ("stack",)}, "at least two tasks"),
        ({"tasks": ("stack", "stack")}, "each once"),
        ({"tasks": ("stack", "lift")}, "observed differently"),
        ({"turn": 0}, "at least 1"),
        ({"exploration": 1.5}, r"within \[0, 1\]"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, settings: dict[str, object], told: str) -> None:
    with pytest.raises(FlywheelError, match=told):
        collect_tasks(config(tmp_path, **settings))
