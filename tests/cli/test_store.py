from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.cli.main import main
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.statistics import wilson
from tests.point import SCHEMA, episode, make_store


def test_info_counts_episodes_by_task_and_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path, range(4))
    main(["store", "info", str(tmp_path)])
    output = capsys.readouterr().out
    assert "4 episodes" in output
    assert store.snapshot().hash[:12] in output
    assert ["reach", "script", "4", "4", "100%", "51%", "to", "100%"] in [line.split() for line in output.splitlines()]


def test_info_shows_hours_intervals_and_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EpisodeStore.create(tmp_path, "point", SCHEMA)
    with store.writer() as writer:
        for day, seed in enumerate((1, 2, 3)):
            made = episode(seed)
            at_ns = 1_750_000_000_000_000_000 + day * 86_400_000_000_000
            writer.append(replace(made, metadata=replace(made.metadata, started_at_ns=at_ns)))
    main(["store", "info", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "hours at 10 Hz" in shown
    assert shown.count("█" * 30) == 3
    assert "2025-06-16" in shown
    low, high = wilson(sum(row.success for row in store.rows()), 3)
    assert f"{low:.0%} to {high:.0%}" in shown


def test_view_writes_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, range(3))
    output = tmp_path / "two.rrd"
    main(["store", "view", str(tmp_path), "reach-script-00000", "reach-script-00001", "--output", str(output), "--no-window"])
    assert output.stat().st_size > 1_000
    assert "holds 2 episodes" in capsys.readouterr().out


def test_sync_copies_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "here", range(3))
    main(["store", "sync", str(tmp_path / "here"), str(tmp_path / "there")])
    assert "1 shards" in capsys.readouterr().out
    assert EpisodeStore.open(tmp_path / "there").snapshot() == store.snapshot()


def test_ls_lists_the_latest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, range(4))
    main(["store", "ls", str(tmp_path), "--limit", "1"])
    output = capsys.readouterr().out
    assert "reach-script-00003" in output
    assert "reach-script-00002" not in output
    assert "The latest 1 of 4 episodes" in output


def test_show_takes_the_beginning_of_an_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, range(8, 11))
    main(["store", "show", str(tmp_path), "reach-script-0001", "--strip", str(tmp_path / "strip.png")])
    assert (tmp_path / "strip.png").is_file()
    output = capsys.readouterr().out
    assert ["steps", str(episode(10).transitions)] in [line.split() for line in output.splitlines()]
    assert "observation position" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "{}", "reach-scrpt-00003"], "did you mean 'reach-script-00003'?"),
        (["show", "{}", "reach"], "4 episodes begin with 'reach'"),
        (["view", "{}"], "Give the episodes to view"),
        (["ls", "{}", "--limit", "-1"], "--limit is -1"),
        (["info", "{}/missing"], "There is no store at"),
    ],
)
def test_mistakes_get_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    make_store(tmp_path, range(4))
    with pytest.raises(SystemExit) as exit_:
        main(["store", *(argument.format(tmp_path) for argument in arguments)])
    assert exit_.value.code == 1
    assert message in capsys.readouterr().err


def test_verify_names_the_damage_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path, range(4))
    main(["store", "verify", str(tmp_path)])
    assert "Sound: 4 episodes in 1 shards" in capsys.readouterr().out
    (shard,) = store.path.glob("*.tfrecord-*")
    data = bytearray(shard.read_bytes())
    data[store.rows()[1].offset + 200] ^= 1
    shard.write_bytes(data)
    with pytest.raises(SystemExit) as exit_:
        main(["store", "verify", str(tmp_path)])
    assert exit_.value.code == 1
    output = capsys.readouterr().out
    assert shard.name in output
    assert "3 episodes in 1 shards" in output
