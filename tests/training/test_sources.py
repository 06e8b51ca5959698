"""Runs that learn from several stores, or balance what they draw: they train, resume, and give a policy for their first robot."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flywheel.algorithms.base import Algorithm
from flywheel.algorithms.bc import BC, BCConfig
from flywheel.algorithms.cal_ql import CalQL
from flywheel.algorithms.gcivl import GCIVL
from flywheel.algorithms.hiql import HIQL
from flywheel.algorithms.iql import IQLConfig
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.columns import Columns
from flywheel.datasets.sampler import WeightedSampler, locate
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.training.recipe import DataConfig, make_recipe
from flywheel.training.sources import join, open_sources
from flywheel.training.train import TrainConfig, load_config, train
from tests.point import episode, make_store


def _other_store(root: Path) -> EpisodeStore:
    """The same point with a third action, a speed, and no target."""
    schema = Schema(
        observation=ObservationSpec({"position": ArraySpec((2,)), "speed": ArraySpec((1,))}),
        action=ActionSpec(low=(-2.0,) * 3, high=(2.0,) * 3),
    )
    store = EpisodeStore.create(root, "other", schema)
    with store.writer() as writer:
        for seed in range(100, 108):
            source = episode(seed)
            writer.append(
                dataclasses.replace(
                    source,
                    observation={"position": source.observation["position"], "speed": source.action[:, :1]},
                    action=np.concatenate([source.action, source.action[:, :1]], axis=1),
                )
            )
    return store


def _config(store: Path, output: Path, data: DataConfig, updates: int = 60) -> TrainConfig:
    return TrainConfig("bc", BCConfig(hidden=(16,)), store, output, updates, data=data, save_every=30)


def test_a_mixture_trains_a_policy_for_its_first_robot(tmp_path: Path) -> None:
    store, other = make_store(tmp_path / "a", range(8)), _other_store(tmp_path / "b")
    data = DataConfig(batch_size=16, also=(other.path,), shares=(0.5, 0.5))
    config = _config(store.path, tmp_path / "run", data)
    policy = train(config)
    assert policy.observation_spec == store.schema.observation
    assert policy.header.mixture is not None
    assert (policy.header.mixture["state_dim"], policy.header.mixture["action_dim"]) == (5, 3)
    assert policy.header.mixture["snapshots"] == [other.snapshot().hash]
    action = policy.act({"position": np.zeros(2, np.float32), "target": np.ones(2, np.float32)})
    assert action.shape == (2,)
    assert load_config(tmp_path / "run" / "config.yaml") == config
    assert (tmp_path / "run" / "snapshot-1.json").exists()

    whole = train(_config(store.path, tmp_path / "whole", data)).checkpoint
    train(_config(store.path, tmp_path / "parts", data, updates=30))
    with other.writer() as writer:  # the mixture is pinned, however a store grows
        writer.append(dataclasses.replace(other.raw("reach-script-00100"), metadata=dataclasses.replace(
            other.raw("reach-script-00100").metadata, episode_id="new")))  # fmt: skip
    parts = train(_config(store.path, tmp_path / "parts", data)).checkpoint
    assert whole == parts == policy.checkpoint


def test_a_goal_for_a_mixture_is_one_for_its_first_robot(tmp_path: Path) -> None:
    store, other = make_store(tmp_path / "a", range(30)), _other_store(tmp_path / "b")
    data = DataConfig(batch_size=16, also=(other.path,), relabel="task_goal", task="reach", n_step=3)
    settings = IQLConfig(hidden=(16,))
    train(TrainConfig("iql", settings, store.path, tmp_path / "run", 20, data=data))
    policy = LearnedPolicy.load(tmp_path / "run")
    observation = {"position": np.zeros(2, np.float32), "target": np.ones(2, np.float32)}
    assert policy.act(observation).shape == (2,)
    assert policy.act(observation, goal=observation).shape == (2,)


def test_an_array_that_is_asked_for_is_in_the_columns(tmp_path: Path) -> None:
    schema = Schema(ObservationSpec({"x": ArraySpec((2,)), "stamp": ArraySpec((), "int64")}), ActionSpec((-1.0,), (1.0,)))
    store = EpisodeStore.create(tmp_path, "stamped", schema)
    with store.writer() as writer:
        for seed in range(3):
            source = episode(seed)
            observation = {"x": source.observation["position"], "stamp": np.arange(len(source)) + 1000 * seed}
            writer.append(dataclasses.replace(source, observation=observation, action=source.action[:, :1]))
    columns = Columns.open(store, store.snapshot())
    assert not columns.arrays
    assert not (store.path / ".columns" / "arrays").exists()  # a state-only run stores no more than it needs
    columns = Columns.open(store, store.snapshot(), arrays=["stamp"])
    for number, start in enumerate(columns.table.start):
        rows = np.arange(start, columns.table.final_row[number] + 1)
        np.testing.assert_array_equal(columns.observations(rows)["stamp"], np.arange(len(rows)) + 1000 * number)
    for keys in (["camera"], ["x"]):
        with pytest.raises(FlywheelError, match=r"no observation array \['(camera|x)'\] beside the state; it has \['stamp'\]"):
            Columns.open(store, store.snapshot(), arrays=keys)
    with pytest.raises(FlywheelError, match=r"no camera .stamp."):
        train(_config(store.path, tmp_path / "run", DataConfig(batch_size=8, pictures=("stamp",)), updates=20))


def test_labels_are_the_snapshots_own(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(6))
    before = store.snapshot()
    ids = [row.episode_id for row in store.rows() if row.length > 6 and row.success]
    store.label(ids[:1], "trim", (2, 5), by="test")
    store.label(ids[:1], "task", "push", by="test")
    store.label(ids[1:2], "success", False, by="test")
    store.label(ids[2:3], "deleted", True, by="test")
    now, then = Columns.open(store, store.snapshot()), Columns.open(store, before)
    place, was = now.table.episode_id.index(ids[0]), then.table.episode_id.index(ids[0])
    assert now.table.start[place] == then.table.start[was] + 2
    assert now.table.transitions[place] == 3
    assert now.table.task[place] == "push"
    assert then.table.terminal[was]
    assert not now.table.terminal[place]  # it was cut off before its end
    assert not now.table.success[now.table.episode_id.index(ids[1])]
    assert ids[2] not in now.table.episode_id
    assert len(then.table) == 6
    assert then.table.success[then.table.episode_id.index(ids[1])]
    assert set(then.table.task) == {"reach"}


@pytest.mark.parametrize("balance", ["episodes", "tasks"])
def test_balanced_draws(tmp_path: Path, balance: str) -> None:
    store = make_store(tmp_path, range(6))
    store.label([store.rows()[0].episode_id], "task", "push", by="test")
    columns = Columns.open(store, store.snapshot())
    recipe = make_recipe(DataConfig(balance=balance), BC, columns)  # type: ignore[arg-type]
    assert isinstance(recipe.sampler, WeightedSampler)
    drawn = recipe.sampler.sample(np.random.default_rng(0), 60_000).episode
    share = np.bincount(drawn, minlength=6) / 60_000
    expected = np.full(6, 1 / 6) if balance == "episodes" else np.where(columns.table.task == "push", 0.5, 0.1)
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_episodes_that_any_store_of_the_initial_run_had_are_not_new(tmp_path: Path) -> None:
    store, other = make_store(tmp_path / "a", range(8)), _other_store(tmp_path / "b")
    data = DataConfig(batch_size=16, also=(other.path,))
    train(_config(store.path, tmp_path / "first", data, updates=1))
    again = dataclasses.replace(data, new_fraction=0.5)
    columns = join(open_sources(store.path, again, tmp_path / "second", lambda done, total: None))
    with pytest.raises(FlywheelError, match="no new episodes"):
        make_recipe(again, BC, columns, None, tmp_path / "first")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataConfig(shares=(0.5, 0.5)), "shares need more stores"),
        (DataConfig(shares=(1.0,), balance="tasks"), "balance and shares both say"),
        (DataConfig(n_step=0), "at least one step"),
        (DataConfig(n_step=3, relabel="actionable"), "no n-step form"),
        (DataConfig(n_step=3, relabel="actionable_ahead"), "no n-step form"),
    ],
)
def test_recipes_that_cannot_be_are_refused(tmp_path: Path, data: DataConfig, words: str) -> None:
    store = make_store(tmp_path / "a", range(3))
    with pytest.raises(FlywheelError, match=words):
        train(_config(store.path, tmp_path / "run", data))
    assert not (tmp_path / "run" / "config.yaml").exists()  # the folder is free for another try


def test_a_store_is_named_once(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a", range(3))
    with pytest.raises(FlywheelError, match="is named twice"):
        train(_config(store.path, tmp_path / "run", DataConfig(also=(tmp_path / "a",))))


def test_rewards_are_scaled_and_shifted_with_their_returns(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store").path
    plain, other = (
        join(open_sources(store, data, tmp_path / "run", lambda done, total: None))
        for data in (DataConfig(), DataConfig(reward_scale=10.0, reward_shift=-5.0))
    )
    np.testing.assert_allclose(other.reward, 10.0 * plain.reward - 5.0)

    data, table = DataConfig(reward_scale=10.0, reward_shift=-5.0, discount=0.9), plain.table
    begin = locate(table, table.first[: len(table)])
    meaning = make_recipe(data, CalQL, other).relabeler(table, begin, np.random.default_rng(0))
    assert meaning.mc_return is not None
    for row, transitions, is_terminal, found in zip(begin.row, table.transitions, table.terminal, meaning.mc_return, strict=True):
        collected = sum(0.9**k * reward for k, reward in enumerate(plain.reward[row : row + transitions]))
        shifts = (1 - 0.9**transitions if is_terminal else 1.0) / (1 - 0.9)
        assert found == pytest.approx(10.0 * collected - 5.0 * shifts, rel=1e-4)


@pytest.mark.parametrize(
    "data", [DataConfig(reward_shift=-1.0, relabel="hindsight"), DataConfig(reward_scale=2.0, tasks=("reach",))]
)
def test_rewards_that_are_not_the_stores_cannot_be_scaled(tmp_path: Path, data: DataConfig) -> None:
    store = make_store(tmp_path / "store").path
    columns = join(open_sources(store, data, tmp_path / "run", lambda done, total: None))
    with pytest.raises(FlywheelError, match="store's rewards"):
        make_recipe(data, CalQL, columns)


def test_an_episode_that_was_cut_off_goes_on_with_the_smallest_reward(tmp_path: Path) -> None:
    with make_store(tmp_path / "store", range(3)).writer() as writer:
        writer.append(episode(100, horizon=1))  # without a success
    # Rewards of -1 and 0, scaled and shifted as for Adroit: a success pays 5, every other step -5.
    data = DataConfig(reward_scale=10.0, reward_shift=5.0, discount=0.9)
    columns = join(open_sources(tmp_path / "store", DataConfig(), tmp_path / "run", lambda done, total: None))
    columns = dataclasses.replace(columns, reward=10.0 * (columns.reward - 1.0) + 5.0)
    table = columns.table
    begin = locate(table, table.first[: len(table)])
    returns = make_recipe(data, CalQL, columns).relabeler(table, begin, np.random.default_rng(0)).mc_return
    assert returns is not None
    assert not table.terminal.all()
    np.testing.assert_allclose(returns[~table.terminal], -5.0 / (1 - 0.9), rtol=1e-5)


@pytest.mark.parametrize("algorithm", [GCIVL, HIQL])
def test_an_actor_that_sees_the_next_step_has_no_targets_over_several(tmp_path: Path, algorithm: type[Algorithm]) -> None:
    store = make_store(tmp_path / "store", range(3)).path
    columns = join(open_sources(store, DataConfig(), tmp_path / "run", lambda done, total: None))
    with pytest.raises(FlywheelError, match="n-step to 1"):
        make_recipe(DataConfig(n_step=3), algorithm, columns)
