"""Pictures that nothing should be learned from: each is named before the first update."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets import codec
from flywheel.datasets.colors import is_exchanged, redness
from flywheel.datasets.pictures import encode_many
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning
from flywheel.labelling.verdicts import label_episodes
from flywheel.policy import LearnedPolicy
from flywheel.rollout.rollout import rollout
from flywheel.tasks.env import make_env
from flywheel.training.detector import DetectorConfig, train_detector
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train

CAMERAS = {"agentview": (40, 40)}
SEEN = DataConfig(batch_size=8, pictures=("agentview",))


@pytest.fixture(scope="module")
def recorded() -> list[Episode]:
    with make_env("lift", "fake", cameras=CAMERAS) as env:
        return [rollout(env, env.task.expert(), seed, episode_id=f"episode-{seed}") for seed in range(10)]


def stored(folder: Path, episodes: list[Episode]) -> EpisodeStore:
    with make_env("lift", "fake", cameras=CAMERAS) as env:
        store = EpisodeStore.create(folder, "seen", Schema(env.robot.observation_spec, env.robot.action_spec, pictures="jpeg"))
    with store.writer() as writer:
        for episode in episodes:
            writer.append(episode)
    return store


def config(store: EpisodeStore, output: Path, data: DataConfig = SEEN) -> TrainConfig:
    return TrainConfig("bc", algorithm_class("bc").Config(hidden=(8,)), store.path, output, 2, data=data)


def exchanged(episode: Episode) -> Episode:
    """As OpenCV would give it."""
    return dataclasses.replace(
        episode,
        observation={**episode.observation, "agentview": np.ascontiguousarray(episode.observation["agentview"][..., ::-1])},
    )


def with_outcome(episode: Episode, number: int) -> Episode:
    """Another episode of the same pictures."""
    metadata = dataclasses.replace(episode.metadata, episode_id=f"outcome-{number}", success=number % 2 == 0)
    return dataclasses.replace(episode, metadata=metadata)


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("damage", ["torn", "no picture", "smaller"])
def test_a_damaged_picture_is_named_and_its_episode_left_out(
    damage: str, budget: int | None, recorded: list[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(pictures: np.ndarray, encoding: str) -> list[bytes]:
        found = encode_many(pictures, encoding)
        if np.array_equal(pictures, recorded[3].observation["agentview"]):
            smaller = encode_many(pictures[:1, :20, :20], encoding)[0]
            found[2] = {"torn": found[2][: len(found[2]) // 2], "no picture": b"hello", "smaller": smaller}[damage]
        return found

    monkeypatch.setattr(codec, "encode_many", spoiled)
    store = stored(tmp_path, recorded[2:5])
    data = dataclasses.replace(SEEN, picture_budget=budget)
    with pytest.warns(DamageWarning, match=r"episode-3 .*observation/agentview: A picture of \(40, 40, 3\) is damaged"):
        train(config(store, tmp_path / "run", data))
    only = dataclasses.replace(data, where="seed = 3")
    with pytest.warns(DamageWarning), pytest.raises(FlywheelError, match=r"No episode of the snapshot .* is readable"):
        train(config(store, tmp_path / "none", only))
    assert not (tmp_path / "none" / "last.ckpt").exists()


def test_an_episode_with_red_and_blue_exchanged_is_named(recorded: list[Episode], tmp_path: Path) -> None:
    store = stored(tmp_path, [*recorded[:6], exchanged(recorded[6]), *recorded[7:]])
    with pytest.raises(FlywheelError, match="camera 'agentview' seems to show blue for red in 1 of 10 episodes, as in episode-6"):
        train(config(store, tmp_path / "run"))
    assert not (tmp_path / "run" / "config.yaml").exists()
    train(config(store, tmp_path / "run", dataclasses.replace(SEEN, any_colors=True)))
    store.label(["episode-6"], "invalid", True, by="test")
    train(config(store, tmp_path / "without"))


def test_a_camera_with_red_and_blue_exchanged_is_refused_where_the_policy_acts(recorded: list[Episode], tmp_path: Path) -> None:
    train(config(stored(tmp_path, recorded), tmp_path / "run"))
    policy = LearnedPolicy.load(tmp_path / "run")
    first = {key: value[0] for key, value in recorded[0].observation.items()}
    policy.reset(0)
    policy.act(first)
    policy.reset(1)
    with pytest.raises(FlywheelError, match="'agentview' seems to show blue for red; give RGB pictures"):
        policy.act({key: value[0] for key, value in exchanged(recorded[0]).observation.items()})


def test_a_second_store_with_red_and_blue_exchanged_is_named(recorded: list[Episode], tmp_path: Path) -> None:
    first = stored(tmp_path / "rgb", recorded)
    second = stored(tmp_path / "bgr", [exchanged(episode) for episode in recorded])
    both = dataclasses.replace(SEEN, hide=(), also=(second.path,))
    with pytest.raises(FlywheelError, match=r"camera 'agentview' of .*bgr.* seems to show blue for red, beside the first store"):
        train(config(first, tmp_path / "run", both))
    train(config(first, tmp_path / "run", dataclasses.replace(both, any_colors=True)))


def test_a_detector_refuses_red_and_blue_exchanged(recorded: list[Episode], tmp_path: Path) -> None:
    made = [with_outcome(recorded[number % 10], number) for number in range(40)]
    first, second = stored(tmp_path / "rgb", made), stored(tmp_path / "bgr", [exchanged(episode) for episode in made])
    asked = DetectorConfig((first.path,), tmp_path / "run", cameras=("agentview",), held_out=0.5, updates=2, hidden=(8,))
    with pytest.raises(FlywheelError, match="'agentview' of store 2 seems to show blue for red"):
        train_detector(dataclasses.replace(asked, store=(first.path, second.path)))
    detector = train_detector(asked)
    label_episodes(first, detector, first.rows()[:2])
    with pytest.raises(FlywheelError, match="'agentview' seems to show blue for red"):
        label_episodes(second, detector, second.rows()[:2])


def test_scenes_that_have_nothing_in_common_are_hardly_ever_refused() -> None:
    rng, refused = np.random.default_rng(0), 0
    for _ in range(1000):
        seen, usual = (redness(rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(10, 0).repeat(13, 1)) for _ in range(2))
        refused += is_exchanged(seen, usual)
        assert not is_exchanged(seen, seen)
        assert is_exchanged(-seen, seen)
    assert refused <= 3
    object_alone, tint = np.zeros((2, 4, 4), np.float32)
    object_alone[1:3, 1:3], tint[:] = 60.0, 1.0
    for few in (object_alone, tint):
        assert not is_exchanged(-few, few)  # another object, and next to no colour
    grey = np.repeat(rng.integers(0, 256, (40, 52, 1), np.uint8), 3, axis=-1)
    assert not is_exchanged(redness(grey), redness(grey))  # without colours there is no telling
