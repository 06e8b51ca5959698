"""Goals as pictures: from files, from folders of examples, from an episode's frame, from the ends of an evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.goals import Goals, as_json
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train

SIZE = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of the fake arm with a camera, and a policy that is shown its goals by it."""
    folder = tmp_path_factory.mktemp("made")
    seen = CollectConfig(
        "lift", "fake", store=folder / "data", episodes=6, processes=1, cameras=("agentview",), picture_size=SIZE
    )
    store = collect(seen).dataset
    settings = algorithm_class("actionable_models").Config(hidden=(8,))
    data = DataConfig(batch_size=8, pictures=("agentview",), hide=("cube_pos", "cube_quat", "gripper_to_cube_pos"))
    train(TrainConfig("actionable_models", settings, store, folder / "run", 2, data=data))
    return store, folder / "run"


def config(made: tuple[Path, Path], output: Path, **settings: object) -> EvaluateConfig:
    return EvaluateConfig("lift", output, "fake", str(made[1]), episodes=2, processes=1, **settings)


def picture(path: Path, size: int = SIZE, value: int = 99) -> Path:
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)
    return path


def test_a_file_and_a_folder_of_examples_are_goals(made: tuple[Path, Path], tmp_path: Path) -> None:
    one = config(made, tmp_path / "one", goal_image=(picture(tmp_path / "goal.png"),))
    assert one.wanted is not None
    assert one.wanted.observations["agentview"].shape == (1, SIZE, SIZE, 3)
    assert len(evaluate(one).results) == 2
    (tmp_path / "examples").mkdir()
    for number in range(3):
        picture(tmp_path / "examples" / f"{number}.jpg", value=50 * number)
    several = config(made, tmp_path / "several", goal_image=(tmp_path / "examples",))
    assert several.wanted is not None
    assert [int(value) for value in several.wanted.observations["agentview"][:, 0, 0, 0]] == [0, 50, 100]
    assert several.wanted.hash != one.wanted.hash
    evaluate(several)
    with pytest.raises(FlywheelError, match="holds another evaluation"):
        evaluate(dataclasses.replace(several, output=tmp_path / "one"))


def test_an_episodes_frame_is_a_goal(made: tuple[Path, Path], tmp_path: Path) -> None:
    store = EpisodeStore.open(made[0])
    episode = next(iter(store.episodes()))
    name = episode.metadata.episode_id
    for place, step in ((f"{made[0]}:{name}", -1), (f"{made[0]}:{name}:2", 2)):
        goal = config(made, tmp_path / str(step), goal_episode=place)
        assert goal.wanted is not None
        np.testing.assert_array_equal(goal.wanted.at(0)["agentview"], episode.observation["agentview"][step])
        evaluate(goal)
    with pytest.raises(FlywheelError, match=r"has \d+ observations, and none of number 999"):
        evaluate(config(made, tmp_path / "no", goal_episode=f"{made[0]}:{name}:999"))
    with pytest.raises(FlywheelError, match="write STORE:ID or STORE:ID:STEP"):
        evaluate(config(made, tmp_path / "no", goal_episode=f"{made[0]}"))
    for wrong in ("last", "-", "--1", "1-"):
        with pytest.raises(FlywheelError, match="write STORE:ID or STORE:ID:STEP"):
            evaluate(config(made, tmp_path / "no", goal_episode=f"{made[0]}:{name}:{wrong}"))


def test_the_ends_of_an_evaluation_are_goals_with_their_pictures(made: tuple[Path, Path], tmp_path: Path) -> None:
    scripted = EvaluateConfig(
        "lift", tmp_path / "expert", "fake", episodes=6, processes=1, cameras=("agentview",), picture_size=SIZE, keep_ends=True
    )
    evaluate(scripted)
    goals = Goals.load(tmp_path / "expert" / "ends.npz")
    assert goals.observations["agentview"].dtype == np.uint8
    assert goals.observations["agentview"].shape == (len(goals), SIZE, SIZE, 3)
    found = evaluate(config(made, tmp_path / "reach", goals=tmp_path / "expert" / "ends.npz"))
    assert [result.seed for result in found.results] == list(goals.seeds[:2])
    plain = tmp_path / "plain"
    evaluate(EvaluateConfig("lift", plain, "fake", episodes=6, processes=1, keep_ends=True))
    with pytest.raises(FlywheelError, match="'agentview' is missing in the goals"):
        evaluate(config(made, tmp_path / "blind", goals=plain / "ends.npz"))


def test_arrays_come_back_from_json_as_they_were() -> None:
    rng = np.random.default_rng(0)
    end = {"state": rng.normal(size=3).astype(np.float32), "wrist": rng.integers(0, 256, (7, 5, 3), np.uint8)}
    goals = Goals.of([(1, {key: as_json(value) for key, value in end.items()})])
    for key, value in end.items():
        np.testing.assert_array_equal(goals.at(0)[key], value)


def test_what_is_no_goal_picture_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    large, small = picture(tmp_path / "large.png", 2 * SIZE), picture(tmp_path / "small.png")
    for given, sentence in (
        ((tmp_path / "none.png",), "There is no goal picture"),
        ((tmp_path / "text.png",), "is no readable picture"),
        ((tmp_path / "empty",), "holds no pictures"),
        ((small, large), "have different sizes"),
        ((large,), r"'agentview' is \(80, 80, 3\) in the goals, and the policy .* sees it as \(40, 40, 3\)"),
    ):
        with pytest.raises(FlywheelError, match=sentence):
            evaluate(config(made, tmp_path / "output", goal_image=given))
    np.savez(tmp_path / "floats.npz", agentview=np.zeros((1, SIZE, SIZE, 3)))
    with pytest.raises(FlywheelError, match="'agentview' in the goals has dtype float64, which does not convert safely"):
        evaluate(config(made, tmp_path / "output", goals=tmp_path / "floats.npz"))
    with pytest.raises(FlywheelError, match="give one of them"):
        evaluate(config(made, tmp_path / "output", goal_image=(small,), goals=tmp_path / "ends.npz"))
    with pytest.raises(FlywheelError, match="by no camera, not by one"):
        evaluate(dataclasses.replace(config(made, tmp_path / "output", goal_image=(small,)), policy="expert"))
