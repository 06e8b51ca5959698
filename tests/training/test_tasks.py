"""Runs that learn several tasks at once: from the store to a policy that is told what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.core.errors import FlywheelError
from flywheel.datasets.columns import Columns
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.training.data import ChunkSource, Part
from flywheel.training.impersonation import impersonate
from flywheel.training.recipe import DataConfig, make_recipe
from flywheel.training.train import TrainConfig, algorithm_class, train

TASKS = ("lift_red", "lift_green", "stack")
ALL = DataConfig(batch_size=24, tasks=TASKS, impersonate="all", rebalance=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Two, six and six episodes of three tasks in one world."""
    root = tmp_path_factory.mktemp("store")
    for task, episodes in zip(TASKS, (2, 6, 6), strict=True):
        found = collect(CollectConfig(task, "fake", store=root, dataset="world", episodes=episodes, processes=1))
    return EpisodeStore.open(found.dataset)


def config(store: EpisodeStore, output: Path, name: str = "iql", data: DataConfig = ALL, updates: int = 60) -> TrainConfig:
    algorithm = algorithm_class(name).Config(hidden=(16, 16))
    return TrainConfig(name, algorithm, store.path, output, updates, data=data, save_every=20)


def offered(store: EpisodeStore) -> Columns:
    columns = Columns.open(store, store.snapshot())
    table = impersonate(columns.table, columns.state, store.schema.observation, TASKS, "all")
    return dataclasses.replace(columns, table=table)


@pytest.mark.parametrize("name", ["bc", "iql", "cql", "cal_ql", "awr", "td3_bc", "qt_opt"])
def test_a_policy_is_told_its_task_by_the_environment(store: EpisodeStore, tmp_path: Path, name: str) -> None:
    policy = train(config(store, tmp_path / "run", name, updates=20))
    assert policy.header.tasks == TASKS
    for task in TASKS:
        run = EvaluateConfig(task, tmp_path / task, "fake", str(tmp_path / "run"), episodes=1, processes=1)
        assert len(evaluate(run).results) == 1
    with pytest.raises(FlywheelError, match=r"has not learned the task 'lift';.* it knows lift_red, lift_green, stack"):
        policy.choose_task("lift")


def test_another_task_is_another_action(store: EpisodeStore, tmp_path: Path) -> None:
    policy = train(config(store, tmp_path / "run"))
    observation = {key: value[0] for key, value in next(store.episodes()).observation.items()}
    with pytest.raises(FlywheelError, match="conditioned on a task and was given none"):
        policy.act(observation)
    actions = []
    for task in TASKS:
        policy.choose_task(task)
        actions.append(policy.act(observation))
    assert (actions[0] != actions[1]).any()
    assert (actions[1] != actions[2]).any()


def test_a_run_in_two_parts_is_the_same_run(store: EpisodeStore, tmp_path: Path) -> None:
    whole = train(config(store, tmp_path / "whole"))
    train(config(store, tmp_path / "parts", updates=20))
    parts = train(config(store, tmp_path / "parts"))
    weights, others = whole.algorithm.state_dict(), parts.algorithm.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_batches_say_which_task_and_what_it_returned(store: EpisodeStore) -> None:
    columns = offered(store)
    recipe = make_recipe(ALL, algorithm_class("cal_ql"), columns)
    batch = ChunkSource(columns, recipe.sampler, recipe.relabeler, batch_size=24, discount=0.9, seed=0).draw(0)
    task = batch.observation["task"]
    assert torch.equal(task, batch.next_observation["task"])
    assert (torch.bincount(task) == 50 * 24 // 3).all()
    assert batch.mc_return is not None
    assert (batch.mc_return[batch.reward == 1] == 1).all()
    assert (batch.discount[batch.reward == 1] == 0).all()
    powers = 0.9 ** np.arange(200)
    values = batch.mc_return[batch.mc_return > 0].numpy()
    np.testing.assert_allclose(values, powers[np.abs(values[:, None] - powers).argmin(axis=1)], rtol=1e-5)


def test_parts_of_several_processes_are_one_batch(store: EpisodeStore) -> None:
    columns = offered(store)
    recipe = make_recipe(ALL, algorithm_class("iql"), columns)
    whole, *parts = (
        ChunkSource(columns, recipe.sampler, recipe.relabeler, batch_size=24, discount=0.9, seed=0, part=part).draw(0)
        for part in (Part(), Part(0, 2), Part(1, 2))
    )
    joined = torch.cat([part.observation["task"].view(50, 12) for part in parts], dim=1).flatten()
    assert torch.equal(joined, whole.observation["task"])


def test_statistics_count_every_recorded_row_once(store: EpisodeStore, tmp_path: Path) -> None:
    data = dataclasses.replace(ALL, impersonate="orig")
    one, other = (train(config(store, tmp_path / str(kind.impersonate), data=kind, updates=1)) for kind in (ALL, data))
    assert torch.equal(one.algorithm.encoder.mean, other.algorithm.encoder.mean)


def test_only_episodes_that_are_learned_from_are_in_the_snapshot(store: EpisodeStore, tmp_path: Path) -> None:
    two = DataConfig(batch_size=24, tasks=TASKS[:2])
    train(config(store, tmp_path / "orig", data=two, updates=1))
    train(config(store, tmp_path / "all", data=dataclasses.replace(two, impersonate="all"), updates=1))
    assert [len(Snapshot.load(tmp_path / name / "snapshot.json").entries) for name in ("orig", "all")] == [8, 14]


def test_a_run_starts_from_one_of_the_same_tasks(store: EpisodeStore, tmp_path: Path) -> None:
    train(config(store, tmp_path / "first", updates=20))
    following = dataclasses.replace(config(store, tmp_path / "second", updates=20), initial=tmp_path / "first")
    assert train(following).header.parent == LearnedPolicy.load(tmp_path / "first").checkpoint
    for tasks, told in ((TASKS[::-1], "not stack, lift_green, lift_red"), ((), "not any")):
        data = DataConfig(batch_size=24, tasks=tasks)
        with pytest.raises(FlywheelError, match=f"tells lift_red, lift_green, stack apart, {told}"):
            train(dataclasses.replace(following, output=tmp_path / "third", data=data))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tasks": ()}, "are for several tasks"),
        ({"task": "stack"}, "give one of them"),
        ({"also": (Path("other"),)}, "leave --data.also out"),
        ({"balance": "tasks"}, "balance and rebalance both say"),
        ({"relabel": "hindsight"}, "not goals"),
        ({"success_share": -1.0}, "must lie in"),
        ({"tasks": ("stack", "stak"), "impersonate": "orig"}, "no episode of stak"),
    ],
)
def test_what_does_not_go_together_is_refused(
    store: EpisodeStore, tmp_path: Path, settings: dict[str, object], told: str
) -> None:
    data = dataclasses.replace(ALL, **settings)  # type: ignore[arg-type]
    with pytest.raises(FlywheelError, match=told):
        train(config(store, tmp_path / "run", data=data))
    assert not (tmp_path / "run" / "config.yaml").exists()
