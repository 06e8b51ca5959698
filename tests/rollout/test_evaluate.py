import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.evaluation_folder import load_evaluation
from flywheel.rollout.goals import Goals
from flywheel.rollout.results import EpisodeResult, Evaluation, compare
from flywheel.rollout.rollout import EVALUATION_SEED


def config(folder: Path, **settings: object) -> EvaluateConfig:
    return replace(EvaluateConfig("lift", folder, robot="fake", episodes=8, processes=1), **settings)  # type: ignore[arg-type]


def made_up(successes: list[bool], first_seed: int = EVALUATION_SEED) -> Evaluation:
    results = [EpisodeResult(first_seed + i, success, 10 + i, float(success), "x") for i, success in enumerate(successes)]
    return Evaluation("lift", "fake", "x", tuple(results))


def test_every_process_count_measures_the_same(tmp_path: Path) -> None:
    one = evaluate(config(tmp_path / "one"))
    two = evaluate(config(tmp_path / "two", processes=2))
    assert one == two
    assert [result.seed for result in one.results] == list(range(EVALUATION_SEED, EVALUATION_SEED + 8))
    assert load_evaluation(tmp_path / "one") == one


def test_an_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    whole = evaluate(config(tmp_path / "whole"))
    log = tmp_path / "part" / "episodes.jsonl"
    evaluate(config(tmp_path / "part", episodes=3))
    log.write_bytes(log.read_bytes() + b'{"seed": 1000')
    calls: list[tuple[int, int]] = []
    assert evaluate(config(tmp_path / "part"), lambda done, total: calls.append((done, total))) == whole
    assert calls == [(done, 8) for done in range(3, 9)]
    assert [json.loads(line)["seed"] for line in log.read_text().splitlines()] == [result.seed for result in whole.results]


def test_a_line_torn_at_the_first_episode_is_dropped(tmp_path: Path) -> None:
    evaluate(config(tmp_path, episodes=1))
    (tmp_path / "episodes.jsonl").write_bytes(b'{"se')
    assert len(evaluate(config(tmp_path, episodes=2)).results) == 2


@pytest.mark.parametrize("torn", [b"{}\n", b"\0\0\0\0\n", b"5\n", b'{"seed": 1'])
def test_a_last_line_that_cannot_be_read_is_run_again(tmp_path: Path, torn: bytes) -> None:
    whole = evaluate(config(tmp_path, episodes=3))
    log = tmp_path / "episodes.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + torn)
    assert evaluate(config(tmp_path, episodes=3)) == whole
    assert log.read_bytes().splitlines(keepends=True) == lines


def test_damage_in_the_folder_is_named(tmp_path: Path) -> None:
    evaluate(config(tmp_path, episodes=3))
    log, identity = tmp_path / "episodes.jsonl", tmp_path / "identity.json"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"{torn\n" + lines[2])
    with pytest.raises(FlywheelError, match=r"Line 2 of .*episodes\.jsonl is damaged; delete that line"):
        evaluate(config(tmp_path, episodes=3))
    for content in (b"", b"{", b"\xff\xfe"):
        identity.write_bytes(content)
        with pytest.raises(FlywheelError, match=r"identity\.json is damaged; restore it from a copy"):
            evaluate(config(tmp_path, episodes=3))


def test_another_policy_needs_another_folder(tmp_path: Path) -> None:
    evaluate(config(tmp_path, episodes=1))
    with pytest.raises(FlywheelError, match="another folder"):
        evaluate(config(tmp_path, episodes=1, policy="random"))


@pytest.mark.parametrize(("settings", "message"), [({"episodes": 0}, "at least one"), ({"first_seed": 5}, "seeds from 10000000")])
def test_nonsense_is_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(FlywheelError, match=message):
        evaluate(config(tmp_path, **settings))


def test_a_missing_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="no policy 'nowhere'"):
        evaluate(config(tmp_path, policy="nowhere"))


def test_unreadable_goals_are_named(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 torn", b"text"):
        (tmp_path / "goals.npz").write_bytes(content)
        with pytest.raises(FlywheelError, match="no goal observations"):
            evaluate(config(tmp_path / "out", goals=tmp_path / "goals.npz"))
    np.save(tmp_path / "goals.npz.npy", np.zeros(3))
    np.savez(tmp_path / "empty.npz", cube_pos=np.zeros((0, 3)))
    for name in ("nowhere.npz", "goals.npz.npy", "empty.npz"):
        with pytest.raises(FlywheelError, match="no goal observations"):
            evaluate(config(tmp_path / "out", goals=tmp_path / name))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"seed": [5, 6]}, "holds seeds and no goal observations"),
        ({"seed": [5, 5], "cube_pos": np.zeros((2, 3))}, "gives several goals the seed 5"),
        ({"seed": ["5", "6"], "cube_pos": np.zeros((2, 3))}, "one integer per goal"),
        ({"seed": [5.5, 6.5], "cube_pos": np.zeros((2, 3))}, "one integer per goal"),
        ({"seed": [[5], [6]], "cube_pos": np.zeros((2, 3))}, "one integer per goal"),
    ],
)
def test_goals_with_seeds_that_cannot_be_used_are_named(tmp_path: Path, arrays: dict[str, object], sentence: str) -> None:
    np.savez(tmp_path / "goals.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(FlywheelError, match=sentence):
        evaluate(config(tmp_path / "out", goals=tmp_path / "goals.npz", episodes=2))
    assert not (tmp_path / "out").exists()


def test_goals_are_taken_in_turn() -> None:
    goals = Goals({"cube_pos": np.arange(6.0).reshape(2, 3)})
    assert [goals.at(index)["cube_pos"].tolist() for index in range(3)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]


def test_kept_ends_are_goals_that_bring_their_seeds(tmp_path: Path) -> None:
    first = evaluate(config(tmp_path / "expert", keep_ends=True, episodes=6))
    goals = Goals.load(tmp_path / "expert" / "ends.npz")
    assert goals.seeds == tuple(result.seed for result in first.results if result.success)
    assert len(goals) == first.successes > 1
    again = evaluate(config(tmp_path / "again", goals=tmp_path / "expert" / "ends.npz", episodes=2, first_seed=0))
    assert tuple(result.seed for result in again.results) == goals.seeds[:2]
    with pytest.raises(FlywheelError, match="goals with seeds"):
        evaluate(config(tmp_path / "more", goals=tmp_path / "expert" / "ends.npz", episodes=len(goals) + 1))


def test_an_evaluation_takes_goals_from_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "goals.npz", cube_pos=np.arange(6.0).reshape(2, 3))
    evaluation = evaluate(config(tmp_path / "out", goals=tmp_path / "goals.npz", episodes=3))
    assert len(evaluation.results) == 3


def test_the_first_episodes_are_filmed(tmp_path: Path) -> None:
    evaluation = evaluate(config(tmp_path, videos=2, episodes=3))
    assert [result.video for result in evaluation.results] == [f"videos/{EVALUATION_SEED + i}.mp4" for i in range(2)] + [""]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [f"{EVALUATION_SEED + i}.mp4" for i in range(2)]


def test_videos_and_ends_are_not_promised_of_episodes_that_are_done(tmp_path: Path) -> None:
    done = evaluate(config(tmp_path, episodes=3))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for episodes in (3, 4):
        with pytest.raises(FlywheelError, match="were not filmed; give another --output"):
            evaluate(config(tmp_path, episodes=episodes, videos=1))
        with pytest.raises(FlywheelError, match="ends were not kept; give another --output"):
            evaluate(config(tmp_path, episodes=episodes, keep_ends=True))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert evaluate(config(tmp_path, episodes=3)) == done


def test_videos_and_ends_that_are_there_may_be_asked_for_again(tmp_path: Path) -> None:
    first = evaluate(config(tmp_path, episodes=3, videos=2, keep_ends=True))
    (tmp_path / "ends.npz").unlink()
    assert evaluate(config(tmp_path, episodes=3, videos=1, keep_ends=True)) == first
    assert len(Goals.load(tmp_path / "ends.npz")) == first.successes


def test_the_summary(tmp_path: Path) -> None:
    summary = made_up([True] * 33 + [False] * 17).to_json()
    assert summary["success"] == 0.66
    assert summary["ci95"] == pytest.approx([0.5215, 0.7756], abs=1e-4)
    assert (summary["episodes"], summary["mean_length"], summary["mean_return"]) == (50, 34.5, 0.66)


def test_comparison_pairs_by_seed() -> None:
    a = made_up([True, True, True, False, False, True])
    b = made_up([True, False, False, True, False], EVALUATION_SEED)
    pair = compare(a, b)
    assert (pair.both, pair.only_a, pair.only_b, pair.neither, pair.count) == (1, 2, 1, 1, 5)
    assert pair.p_value == 1.0
    assert pair.to_json()["difference"] == pytest.approx(0.2)
    assert len(pair.to_json()["ci95"]) == 2


def test_comparison_needs_common_ground() -> None:
    with pytest.raises(FlywheelError, match="no seed in common"):
        compare(made_up([True]), made_up([True], EVALUATION_SEED + 50))
    with pytest.raises(FlywheelError, match="evaluate both on the same"):
        compare(made_up([True]), replace(made_up([True]), task="stack"))


def test_the_comparison_with_an_earlier_evaluation_is_written(tmp_path: Path) -> None:
    evaluate(config(tmp_path / "random", policy="random"))
    evaluation = evaluate(config(tmp_path / "expert", versus=tmp_path / "random"))
    written = json.loads((tmp_path / "expert" / "comparison.json").read_text())
    assert written["only_a"] == evaluation.successes > 0
    with pytest.raises(FlywheelError, match="no finished evaluation"):
        evaluate(config(tmp_path / "expert", versus=tmp_path / "nowhere"))
