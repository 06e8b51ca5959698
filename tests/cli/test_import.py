from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.cli.main import main
from flywheel.datasets.store import EpisodeStore
from tests.datasets.importers import files


def test_import_tells_what_was_stored_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = files.d4rl(tmp_path / "hopper.hdf5", [4, 1, 3], terminal=[0, 2], timeout=[1])
    arguments = ["import", str(path), "--store", str(tmp_path / "data"), "--name", "hopper"]
    main([*arguments, "--dry-run"])
    shown = capsys.readouterr().out
    assert "(d4rl): 3 episodes would go into" in shown
    assert "observation state" in shown
    assert "action highest: 1" in shown
    assert not (tmp_path / "data").exists()
    main(arguments)
    assert "Stored 2 episodes, 1 had no transition; 7 steps, in " in capsys.readouterr().out
    main(arguments)
    assert "Stored 0 episodes, 2 were there already, 1 had no transition; 0 steps" in capsys.readouterr().out
    assert len(EpisodeStore.open(tmp_path / "data").rows()) == 2


def test_a_mapping_file(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "hopper.hdf5", [4], terminal=[0], timeout=[])
    mapping = tmp_path / "hopper.yaml"
    mapping.write_text(
        """
observation:
  position: {from: observations, scale: 0.001, unit: m}
action: {from: actions, low: [-1], high: [1], controller: joint_torque, rate: 125}
task: {value: hop}
"""
    )
    main(["import", str(path), "--store", str(tmp_path), "--name", "hopper", "--mapping", str(mapping), "--kind", "d4rl"])
    store = EpisodeStore.open(tmp_path / "hopper")
    assert store.schema.observation.arrays["position"].unit == "m"
    assert store.schema.action.rate == 125.0
    assert [row.task for row in store.rows()] == ["hop"]


@pytest.mark.parametrize("damage", ["cut", "missing", "mapping"])
def test_what_is_wrong_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    path = files.d4rl(tmp_path / "hopper.hdf5", [4], terminal=[0], timeout=[])
    arguments = ["import", str(path), "--store", str(tmp_path), "--name", "hopper"]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "missing":
        path.unlink()
    else:
        (tmp_path / "m.yaml").write_text("observation: [")
        arguments += ["--mapping", str(tmp_path / "m.yaml")]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    assert not (tmp_path / "hopper").exists()
