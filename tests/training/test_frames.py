"""Several pictures in a row: what training sees is what acting sees, and every way of showing goals goes with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.core.errors import FlywheelError
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import TaskReward
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.schema import Pictures, Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.rollout import rollout
from flywheel.tasks.env import make_env
from flywheel.training.data import ChunkSource
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train

SIZE, FRAMES = 40, 3
CAMERAS = {"agentview": (SIZE, SIZE), "eye_in_hand": (SIZE, SIZE)}
SEEN = DataConfig(batch_size=8, pictures=tuple(CAMERAS), frames=FRAMES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    cameras = tuple(CAMERAS)
    return collect(
        CollectConfig("lift", "fake", store=folder, episodes=6, processes=1, cameras=cameras, picture_size=SIZE)
    ).dataset


def config(
    store: Path, output: Path, name: str = "bc", data: DataConfig = SEEN, updates: int = 4, **encoder: object
) -> TrainConfig:
    settings = algorithm_class(name).Config(hidden=(16,))
    settings = dataclasses.replace(settings, encoder=dataclasses.replace(settings.encoder, features=8, **encoder))
    return TrainConfig(name, settings, store=store, output=output, data=data, updates=updates, save_every=2)


@pytest.mark.parametrize("kept", ["png", "jpeg", "raw"])
def test_acting_sees_the_frames_that_training_saw_to_the_bit(kept: Pictures, tmp_path: Path) -> None:
    with make_env("lift", "fake", cameras=CAMERAS) as env:
        store = EpisodeStore.create(tmp_path, "kept", Schema(env.robot.observation_spec, env.robot.action_spec, pictures=kept))
        episode = rollout(env, env.task.expert(), 5)
    rng = np.random.default_rng(0)
    noise = {key: rng.integers(0, 256, value.shape, np.uint8) for key, value in episode.observation.items() if key in CAMERAS}
    episode = dataclasses.replace(episode, observation={**episode.observation, **noise})
    with store.writer() as writer:
        writer.append(episode)
    policy = train(config(store.path, tmp_path / "run", updates=2))
    columns = Columns.open(store, store.snapshot(), arrays=sorted(CAMERAS))
    sampler = UniformSampler(columns.table)
    source = ChunkSource(columns, sampler, TaskReward(), batch_size=8, discount=0.9, seed=0, frames=FRAMES)
    batch, (indices, _) = source.draw(0), source._drawn(0)
    assert batch.observation["agentview"].shape == (400, 3 * FRAMES, SIZE, SIZE)
    assert batch.observation["agentview"].is_contiguous(memory_format=torch.channels_last)
    assert batch.is_pad_history is None
    seen = {}
    for _ in range(2):  # an episode begins with nothing of the one before
        policy.reset(0)
        for step in range(int(indices.step.max()) + 1):
            seen[step] = policy.see({key: value[step] for key, value in episode.observation.items()})
    for place, step in enumerate(indices.step.tolist()):
        for key in ("state", *CAMERAS):
            assert torch.equal(batch.observation[key][place], seen[step][key][0]), (key, step)


@pytest.mark.parametrize("goal", ["early", "shared", "separate"])
def test_goals_are_one_picture(data: Path, tmp_path: Path, goal: str) -> None:
    shown = dataclasses.replace(SEEN, goal_pictures=("agentview",))
    policy = train(config(data, tmp_path / "run", "actionable_models", shown, goal=goal))
    with make_env("lift", "fake", cameras=CAMERAS) as env:
        observation = env.reset(seed=3)[0]
    policy.reset(0)
    assert policy.act(observation, {"agentview": observation["agentview"]}).shape == (7,)


def test_a_run_that_was_interrupted_ends_bit_identically_and_acts(data: Path, tmp_path: Path) -> None:
    whole = train(config(data, tmp_path / "whole", "iql"))
    train(config(data, tmp_path / "resumed", "iql", updates=2))
    resumed = train(config(data, tmp_path / "resumed", "iql"))
    for key, tensor in whole.algorithm.state_dict().items():
        assert torch.equal(tensor, resumed.algorithm.state_dict()[key]), key
    run = EvaluateConfig("lift", tmp_path / "eval", "fake", str(tmp_path / "whole"), episodes=2, processes=1)
    assert len(evaluate(run).results) == 2
    other = dataclasses.replace(SEEN, frames=2)
    with pytest.raises(FlywheelError, match="sees 3 pictures at once"):
        train(dataclasses.replace(config(data, tmp_path / "other", "iql", other), initial=tmp_path / "whole"))


def test_what_movement_cannot_be_seen_in_is_refused(data: Path, tmp_path: Path) -> None:
    for changed in ({"frames": 0}, {"pictures": ()}):
        with pytest.raises(FlywheelError, match="at least 1, and 1 without cameras"):
            train(config(data, tmp_path / "run", data=dataclasses.replace(SEEN, **changed)))
    for name in ("hiql", "implicit_actionable_models"):
        with pytest.raises(FlywheelError, match=f"{name} looks at single pictures of what lies ahead"):
            train(config(data, tmp_path / "run", name))
    assert not (tmp_path / "run" / "config.yaml").exists()
