"""Offline to online, on the kinematic arm: rounds, lineage, symmetric sampling, resuming, refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.online import Curve, OnlineConfig, improve
from flywheel.policy import LearnedPolicy
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.training.fit import load_checkpoint
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of scripted episodes and an IQL run on it."""
    folder = tmp_path_factory.mktemp("begun")
    collect(CollectConfig("lift", "fake", store=folder / "store", episodes=6, processes=1))
    settings = algorithm_class("iql").Config(hidden=(16, 16))
    train(TrainConfig("iql", settings, folder / "store", folder / "offline", 50, data=DataConfig(batch_size=32, task="lift")))
    return folder


def _config(folder: Path, **settings: object) -> OnlineConfig:
    values = {"episodes": 4, "per_round": 2, "evaluate_every": 2, "evaluation_episodes": 3, "updates_per_step": 0.5, **settings}
    return OnlineConfig("lift", folder / "offline", folder / "online", robot="fake", **values)


def _copy(begun: Path, folder: Path) -> Path:
    """The same at another place; runs remember their store by its path."""
    shutil.copytree(begun, folder, dirs_exist_ok=True)
    for run in folder.glob("*/config.yaml"):
        run.write_text(run.read_text().replace(str(begun), str(folder)))
    return folder


@pytest.fixture(scope="module")
def improved(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Curve]:
    folder = _copy(begun, tmp_path_factory.mktemp("improved"))
    return folder, improve(_config(folder))


def test_rounds_collect_train_and_evaluate(improved: tuple[Path, Curve]) -> None:
    folder, curve = improved
    assert [point.episodes for point in curve.points] == [0, 2, 4]
    assert len(curve.collected) == 4
    assert curve.policy == folder / "online" / "round-002"
    assert curve.points[-1].updates == pytest.approx(0.5 * curve.points[-1].steps, abs=2)
    assert len(EpisodeStore.open(folder / "store").rows()) == 10
    saved = json.loads((folder / "online" / "curve.json").read_text())
    assert saved == curve.to_json()
    assert saved["dip"] >= 0
    assert (folder / "online" / "curve.svg").read_text().startswith("<?xml")


def test_every_episode_knows_the_policy_that_made_it(improved: tuple[Path, Curve]) -> None:
    folder, _ = improved
    policies = [LearnedPolicy.load(folder / run) for run in ("offline", "online/round-001", "online/round-002")]
    assert [policy.header.parent for policy in policies[1:]] == [policy.checkpoint for policy in policies[:2]]
    own = [row for row in EpisodeStore.open(folder / "store").rows() if row.policy_checkpoint]
    assert sorted(row.policy_checkpoint for row in own) == sorted([policies[0].checkpoint, policies[1].checkpoint] * 2)


def test_a_round_goes_on_with_the_optimizer(improved: tuple[Path, Curve]) -> None:
    folder, curve = improved
    steps = []
    for run in ("offline", "online/round-001", "online/round-002"):
        checkpoint = load_checkpoint(folder / run / "last.ckpt")
        states = checkpoint["optimizer_states"][0]["state"].values()
        steps.append({float(state["step"]) for state in states})
        assert steps[-1] == {float(checkpoint["update"])}
    assert steps[0] == {50.0}
    assert steps[2] == {50.0 + curve.points[-1].updates}


def test_a_loop_that_was_interrupted_goes_on(
    begun: Path, improved: tuple[Path, Curve], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round is bit-identical; later ones learn from episodes that were made at another time and have other names."""
    folder = _copy(begun, tmp_path)
    for name in ("evaluate", "collect", "train"):
        with monkeypatch.context() as patch:
            patch.setattr(f"flywheel.online.{name}", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                improve(_config(folder))
    curve = improve(_config(folder))
    assert [point.episodes for point in curve.points] == [0, 2, 4]
    assert len(EpisodeStore.open(folder / "store").rows()) == 10
    runs = [place / "online" / "round-001" for place in (improved[0], folder)]
    whole, resumed = (LearnedPolicy.load(run).algorithm.state_dict() for run in runs)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_of_another_loop_is_refused(improved: tuple[Path, Curve]) -> None:
    with pytest.raises(FlywheelError, match=r"other settings \(per_round\)"):
        improve(_config(improved[0], per_round=1))


def test_what_was_not_trained_on_the_task_is_refused(begun: Path) -> None:
    with pytest.raises(FlywheelError, match="learned lift, so it cannot go on online with stack"):
        improve(dataclasses.replace(_config(begun), task="stack", output=begun / "other"))
    assert not (begun / "other").exists()


@pytest.mark.parametrize("chosen", [("where: ''", "where: success"), ("balance: transitions", "balance: episodes")])
def test_a_run_that_may_leave_own_episodes_out_is_refused(begun: Path, tmp_path: Path, chosen: tuple[str, str]) -> None:
    folder = _copy(begun, tmp_path)
    config = folder / "offline" / "config.yaml"
    config.write_text(config.read_text().replace(*chosen))
    with pytest.raises(FlywheelError, match="may leave own episodes out"):
        improve(_config(folder))
    assert len(EpisodeStore.open(folder / "store").rows()) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"episodes": 5},
        {"per_round": 0},
        {"evaluate_every": 3},
        {"updates_per_step": 0.0},
        {"updates_per_step": math.nan},
        {"updates_per_step": math.inf},
        {"new_fraction": 1.5},
        {"first_seed": -1},
        {"first_seed": 9_999_997},
        {"evaluation_seed": 5},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(FlywheelError):
        _config(tmp_path, **settings)


def test_a_loop_that_was_killed_while_it_trained_goes_on(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill leaves: a round's folder without a policy."""
    folder = _copy(begun, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("flywheel.training.train._fit", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            improve(_config(folder))
    assert (folder / "online" / "round-001" / "config.yaml").exists()
    assert len(improve(_config(folder)).collected) == 4


def test_two_loops_on_one_store_count_their_own_episodes(begun: Path, tmp_path: Path) -> None:
    """The same initial policy and the same seeds, but other episodes."""
    folder = _copy(begun, tmp_path)
    first = improve(_config(folder))
    second = improve(dataclasses.replace(_config(folder, explore=False), output=folder / "second"))
    assert len(first.collected) == len(second.collected) == 4
    assert len(EpisodeStore.open(folder / "store").rows()) == 6 + 8


def test_episodes_that_were_deleted_since_still_count_as_collected(begun: Path, tmp_path: Path) -> None:
    folder = _copy(begun, tmp_path)
    before = improve(_config(folder))
    store = EpisodeStore.open(folder / "store")
    store.label([next(row.episode_id for row in store.rows() if row.policy_checkpoint)], "deleted", True, by="anna")
    assert improve(_config(folder)) == before


def test_a_round_keeps_its_updates_where_episodes_were_trimmed_since(begun: Path, tmp_path: Path) -> None:
    folder = _copy(begun, tmp_path)
    before = improve(_config(folder))
    store = EpisodeStore.open(folder / "store")
    store.label([row.episode_id for row in store.rows() if row.policy_checkpoint][:1], "trim", (0, 2), by="anna")
    assert [point.updates for point in improve(_config(folder)).points] == [point.updates for point in before.points]


def test_a_robot_that_does_not_exist_leaves_the_folder_free(begun: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(_config(begun), output=tmp_path / "online", robot="nobody")
    with pytest.raises(FlywheelError, match="There is no robot 'nobody'"):
        improve(config)
    assert not config.output.exists()
