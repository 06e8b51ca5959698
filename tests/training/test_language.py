"""Tasks that are said in words: from a file into the policy, which then needs no file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.tasks.env import make_env
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train

TASKS = ("lift_red", "lift_green")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    root = tmp_path_factory.mktemp("store")
    for task in TASKS:
        found = collect(CollectConfig(task, "fake", store=root, dataset="world", episodes=3, processes=1))
    return EpisodeStore.open(found.dataset)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "words.npz", **{task: rng.normal(size=6) for task in (*TASKS, "stack")})
    return tmp_path / "words.npz"


def config(store: EpisodeStore, output: Path, words: Path, name: str = "iql") -> TrainConfig:
    data = DataConfig(batch_size=16, tasks=TASKS, language=words)
    return TrainConfig(name, algorithm_class(name).Config(hidden=(16,)), store.path, output, 4, data=data, save_every=2)


def test_a_policy_is_told_its_task_in_words_and_keeps_them(store: EpisodeStore, words: Path, tmp_path: Path) -> None:
    policy = train(config(store, tmp_path / "run", words))
    assert policy.header.language == 6
    words.unlink()
    again = LearnedPolicy.load(tmp_path / "run")
    with make_env(TASKS[0], "fake") as env:
        observation = env.reset(seed=1)[0]
    policy.choose_task(TASKS[1])
    again.choose_task(TASKS[1])
    own = again.act(observation)
    np.testing.assert_array_equal(own, policy.act(observation))
    again.algorithm.encoder.language[1] += 1.0
    assert (again.act(observation) != own).any()


def test_finetuning_is_told_in_the_same_words(store: EpisodeStore, words: Path, tmp_path: Path) -> None:
    first = train(config(store, tmp_path / "first", words))
    second = train(dataclasses.replace(config(store, tmp_path / "second", words), initial=tmp_path / "first"))
    np.testing.assert_array_equal(first.algorithm.encoder.language, second.algorithm.encoder.language)


def test_what_does_not_say_the_tasks_is_refused(store: EpisodeStore, words: Path, tmp_path: Path) -> None:
    vector = np.ones(6)
    for number, (arrays, sentence) in enumerate(
        (
            ({"lift_red": vector}, "does not say lift_green in words"),
            ({"lift_red": vector, "lift_green": np.ones(5)}, "all of one length"),
            ({"lift_red": vector, "lift_green": np.full(6, np.nan)}, "finite"),
            ({"lift_red": np.ones((2, 6)), "lift_green": np.ones((2, 6))}, "a vector of finite numbers"),
            ({"lift_red": np.ones(0), "lift_green": np.ones(0)}, "a vector of finite numbers"),
            ({"lift_red": np.array(["a"]), "lift_green": np.array(["b"])}, "is no readable npz"),
        )
    ):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **arrays)
        with pytest.raises(FlywheelError, match=sentence):
            train(config(store, tmp_path / "run", path))
    (tmp_path / "text.npz").write_text("hello")
    for path in (tmp_path / "none.npz", tmp_path / "text.npz"):
        with pytest.raises(FlywheelError, match="is no readable npz"):
            train(config(store, tmp_path / "run", path))
    with pytest.raises(FlywheelError, match="name them"):
        train(dataclasses.replace(config(store, tmp_path / "run", words), data=DataConfig(language=words)))
    assert not (tmp_path / "run" / "config.yaml").exists()
