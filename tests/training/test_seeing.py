"""Learning from cameras, from the robot to the policy that acts on it: the fake arm's camera shows its hand and the cube."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import Array
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import TaskReward
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.schema import Pictures, Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.robots.fake import FakeRobot
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.policies import env_for, open_policy
from flywheel.rollout.rollout import rollout
from flywheel.tasks.env import make_env
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train

SIZE = 40
CAMERAS = {"agentview": (SIZE, SIZE), "eye_in_hand": (SIZE, SIZE)}
HIDE = ("cube_pos", "cube_quat", "gripper_to_cube_pos")
SEEN = DataConfig(batch_size=8, pictures=("agentview", "eye_in_hand"), hide=HIDE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return collect(
        CollectConfig("lift", "fake", store=folder, episodes=8, processes=1, cameras=tuple(CAMERAS), picture_size=SIZE)
    ).dataset


def config(store: Path, output: Path, name: str = "bc", data: DataConfig = SEEN, updates: int = 20) -> TrainConfig:
    settings = algorithm_class(name).Config(hidden=(16,))
    settings = dataclasses.replace(settings, encoder=dataclasses.replace(settings.encoder, features=8))
    return TrainConfig(name, settings, store=store, output=output, data=data, updates=updates, save_every=10)


def observation(seed: int = 3) -> dict[str, Array]:
    with make_env("lift", "fake", cameras=CAMERAS) as env:
        return env.reset(seed=seed)[0]


def test_a_policy_that_sees_acts_where_it_is_given_its_cameras(data: Path, tmp_path: Path) -> None:
    policy = train(config(data, tmp_path / "run", "iql"))
    assert policy.header.pictures == ("agentview", "eye_in_hand")
    assert not set(HIDE) & policy.observation_spec.arrays.keys()
    assert policy.act(observation()).shape == (7,)
    changed = observation() | {"cube_pos": np.full(3, 9.0, np.float32)}
    np.testing.assert_array_equal(policy.act(changed), policy.act(observation()))
    changed = observation() | {"agentview": 255 - observation()["agentview"]}
    assert (policy.act(changed) != policy.act(observation())).any()
    result = evaluate(EvaluateConfig("lift", tmp_path / "eval", "fake", str(tmp_path / "run"), episodes=2, processes=1))
    assert len(result.results) == 2
    again = collect(CollectConfig("lift", "fake", str(tmp_path / "run"), data.parent.parent, episodes=1, processes=1))
    assert again.dataset == data  # with the cameras that it sees, so that the episode joins those it learned from


def test_trained_weights_keep_their_statistics_and_need_no_file_once_the_policy_has_them(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, file)
    run = config(data, tmp_path / "run", updates=2)
    encoder = dataclasses.replace(run.algorithm.encoder, network="resnet18", weights=file)
    policy = train(dataclasses.replace(run, algorithm=dataclasses.replace(run.algorithm, encoder=encoder)))
    network = policy.algorithm.encoder.cameras[0].network.state_dict()
    assert torch.equal(network["1.running_mean"], state["bn1.running_mean"])
    assert not torch.equal(network["0.weight"], state["conv1.weight"])
    file.unlink()
    again = LearnedPolicy.load(tmp_path / "run")
    np.testing.assert_array_equal(again.act(observation()), policy.act(observation()))


def test_a_run_that_was_interrupted_ends_bit_identically(data: Path, tmp_path: Path) -> None:
    for name in ("bc", "actionable_models"):
        whole = train(config(data, tmp_path / name / "whole", name))
        train(config(data, tmp_path / name / "resumed", name, updates=10))
        resumed = train(config(data, tmp_path / name / "resumed", name))
        for key, tensor in whole.algorithm.state_dict().items():
            assert torch.equal(tensor, resumed.algorithm.state_dict()[key]), key


@pytest.mark.parametrize("kept", ["png", "jpeg", "raw"])
@pytest.mark.parametrize("budget", [None, 0])
def test_the_policy_sees_what_training_saw_to_the_bit(kept: Pictures, budget: int | None, tmp_path: Path) -> None:
    with make_env("lift", "fake", cameras=CAMERAS) as env:
        store = EpisodeStore.create(tmp_path, "kept", Schema(env.robot.observation_spec, env.robot.action_spec, pictures=kept))
        rng = np.random.default_rng(0)
        episode = rollout(env, env.task.expert(), 5)
    noise = {key: rng.integers(0, 256, value.shape, np.uint8) for key, value in episode.observation.items() if key in CAMERAS}
    episode = dataclasses.replace(episode, observation={**episode.observation, **noise})  # JPEG changes noise
    with store.writer() as writer:
        writer.append(episode)
    policy = train(config(store.path, tmp_path / "run", data=dataclasses.replace(SEEN, picture_budget=budget), updates=2))
    columns = Columns.open(store, store.snapshot(), arrays=sorted(CAMERAS), picture_budget=budget)
    rows = columns.table.step_rows[:4]
    trained = columns.observations(rows)
    for number in range(len(rows)):
        raw = {key: value[number] for key, value in episode.observation.items()}
        seen = policy.see(raw)
        for key in CAMERAS:
            assert torch.equal(seen[key], trained[key][number : number + 1]), key
            assert seen[key].is_contiguous(memory_format=torch.channels_last)
            assert np.array_equal(seen[key][0].permute(1, 2, 0).numpy(), raw[key]) == (kept != "jpeg")
        mine = {key: value[number : number + 1] for key, value in trained.items()}
        with torch.inference_mode():
            action = policy.algorithm.act(mine, None, True)[0].numpy()
        np.testing.assert_array_equal(policy.act(raw), policy.action_spec.denormalize(action))


def test_goals_are_pictures(data: Path, tmp_path: Path) -> None:
    seen = dataclasses.replace(SEEN, goal_pictures=("agentview",))
    policy = train(config(data, tmp_path / "pretrained", "actionable_models", seen))
    goal = {"agentview": observation(4)["agentview"]}
    assert policy.act(observation(), goal).shape == (7,)
    with pytest.raises(SpecError, match=r"lacks \['agentview'\]"):
        policy.act(observation(), {"eye_in_hand": goal["agentview"]})
    with pytest.raises(FlywheelError, match="reaches goals and was given none"):
        policy.act(observation())
    task = dataclasses.replace(seen, task="lift", relabel="task_goal")
    tuned = train(dataclasses.replace(config(data, tmp_path / "tuned", "iql", task), initial=tmp_path / "pretrained"))
    assert tuned.goal is not None
    assert tuned.goal["agentview"].shape == (SIZE, SIZE, 3)
    found = LearnedPolicy.load(tmp_path / "tuned")
    np.testing.assert_array_equal(found.act(observation()), tuned.act(observation(), {"agentview": tuned.goal["agentview"]}))


def test_all_is_drawn_from_the_same_columns(data: Path) -> None:
    """A batch's pictures are uint8 and channels last until the device."""
    store = EpisodeStore.open(data)
    columns = Columns.open(store, store.snapshot(), arrays=sorted(CAMERAS))
    rng = np.random.default_rng(0)
    indices = UniformSampler(columns.table).sample(rng, 4)
    batch = columns.gather(indices, TaskReward()(columns.table, indices, rng), 0.9)
    assert batch.observation["agentview"].dtype == torch.uint8
    assert batch.observation["agentview"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pictures": ("agentviw",)}, "no camera 'agentviw'; did you mean 'agentview'"),
        ({"pictures": ("cube_pos",)}, "no camera 'cube_pos'"),
        ({"pictures": ("agentview", "agentview")}, "named twice"),
        ({"hide": ("cube_po",)}, "did you mean 'cube_pos'"),
        ({"goal_pictures": ("wrist",)}, "which the networks do not see"),
        ({"also": (Path("other"),)}, "leave hide out"),
    ],
)
def test_what_cannot_be_seen_is_refused_before_anything_is_read(
    settings: dict[str, object], sentence: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(FlywheelError, match=sentence):
        train(config(data, tmp_path / "run", data=dataclasses.replace(SEEN, **settings)))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_networks_that_would_see_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    every = tuple(EpisodeStore.open(data).schema.observation.state_keys)
    with pytest.raises(FlywheelError, match="Nothing is left for bc to see"):
        train(config(data, tmp_path / "run", data=DataConfig(hide=every)))
    assert train(config(data, tmp_path / "blind", data=dataclasses.replace(SEEN, hide=every))).act(observation()).shape == (7,)


def test_another_size_of_a_camera_is_refused_where_it_acts(data: Path, tmp_path: Path) -> None:
    train(config(data, tmp_path / "run", updates=2))
    with pytest.raises(FlywheelError, match=r"sees the camera 'agentview' in \(40, 40\) pixels, not \(64, 64\)"):
        env_for(str(tmp_path / "run"), "lift", "fake", cameras={"agentview": (64, 64)})
    with pytest.raises(SpecError, match="agentview"):
        LearnedPolicy.load(tmp_path / "run").act(observation() | {"agentview": np.zeros((64, 64, 3), np.uint8)})


def test_finetuning_sees_what_pretraining_saw(data: Path, tmp_path: Path) -> None:
    train(config(data, tmp_path / "first", updates=2))
    for other in (dataclasses.replace(SEEN, hide=()), dataclasses.replace(SEEN, pictures=("agentview",))):
        with pytest.raises(FlywheelError, match=r"hide the same|other observations"):
            train(dataclasses.replace(config(data, tmp_path / "second", data=other), initial=tmp_path / "first"))


def test_another_simulator_than_that_of_the_data_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    policy = train(config(data, tmp_path / "run", updates=2))
    assert [json.loads(software) for software in policy.header.software] == [FakeRobot().software]
    with make_env("lift", "fake", cameras=CAMERAS) as env:
        with open_policy(str(tmp_path / "run"), env):
            assert not recwarn
        monkeypatch.setattr(FakeRobot, "software", property(lambda robot: {"mujoco": "9.9"}))
        with (
            pytest.warns(UserWarning, match=r"something else drew \(mujoco none then, 9\.9 now\)"),
            open_policy(str(tmp_path / "run"), env),
        ):
            pass
