from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.cli.main import main
from tests.point import episode, make_store


def test_info_counts_episodes_by_task_and_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path, range(4))
    main(["store", "info", str(tmp_path)])
    output = capsys.readouterr().out
    assert "4 episodes" in output
    assert store.snapshot().hash[:12] in output
    assert ["reach", "script", "4", "4", "100%"] in [line.split() for line in output.splitlines()]


def test_ls_lists_the_latest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, range(4))
    main(["store", "ls", str(tmp_path), "--limit", "1"])
    output = capsys.readouterr().out
    assert "reach-script-00003" in output
    assert "reach-script-00002" not in output
    assert "The latest 1 of 4 episodes" in output


def test_show_takes_the_beginning_of_an_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path, range(8, 11))
    main(["store", "show", str(tmp_path), "reach-script-0001"])
    output = capsys.readouterr().out
    assert ["steps", str(episode(10).transitions)] in [line.split() for line in output.splitlines()]
    assert "observation position" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "{}", "reach-scrpt-00003"], "did you mean 'reach-script-00003'?"),
        (["show", "{}", "reach"], "4 episodes begin with 'reach'"),
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
