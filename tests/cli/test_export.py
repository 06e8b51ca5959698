from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.cli.main import main
from flywheel.datasets.snapshot import Snapshot
from tests.point import make_store


@pytest.mark.parametrize("form", ["rlds", "lerobot", "robomimic", "minari"])
def test_every_format_is_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    store = make_store(tmp_path / "store", range(4))
    main(["export", str(tmp_path / "store"), str(tmp_path / "out"), "--format", form])
    output = capsys.readouterr().out
    assert "4 of 4 episodes" in output
    assert f"Wrote 4 episodes, snapshot {store.snapshot().hash[:12]}, as {form}" in output
    assert any((tmp_path / "out").iterdir())


def test_episodes_are_chosen_by_query_or_snapshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store", range(8))
    successes = sum(row.success for row in store.rows())
    store.snapshot().only({"reach-script-00003"}).save(tmp_path / "one.json")
    arguments = ["export", str(tmp_path / "store")]
    main([*arguments, str(tmp_path / "a"), "--format", "rlds", "--where", "success"])
    assert f"Wrote {successes} episodes" in capsys.readouterr().out
    main([*arguments, str(tmp_path / "b"), "--format", "rlds", "--snapshot", str(tmp_path / "one.json")])
    assert "Wrote 1 episodes" in capsys.readouterr().out
    assert len(Snapshot.load(tmp_path / "one.json")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}", "{}", "--format", "rlds"], "holds something already"),
        (["{}/missing", "{}/out", "--format", "rlds"], "There is no store at"),
        (["{}", "{}/out", "--format", "rlds", "--where", "task = 'none'"], "nothing to export"),
        (["{}", "{}/out", "--format", "rlds", "--where", "success", "--snapshot", "{}/x"], "give one of them"),
        (["{}", "{}/out", "--format", "rlds", "--shard-mb", "0"], "shard_mb is 0"),
        (["{}", "{}/out", "--format", "minari", "--video"], "--video is for --format lerobot"),
        (["{}", "{}/out", "--format", "rlds", "--fps", "5"], "--fps is for --format lerobot"),
        (["{}", "{}/out", "--format", "robomimic", "--shard-mb", "5"], "--shard-mb is for --format rlds"),
        (["{}", "{}/out", "--format", "lerobot", "--fps", "0.0001"], "give the frames per second with --fps"),
    ],
)
def test_mistakes_get_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    make_store(tmp_path, range(2))
    with pytest.raises(SystemExit) as exit_:
        main(["export", *(argument.format(tmp_path) for argument in arguments)])
    assert exit_.value.code == 1
    assert message in capsys.readouterr().err
