"""A run learns from the labels of its snapshot, again and again the same, and its store remembers it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.datasets.lineage import PolicyRecord
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from tests.point import episode, make_store

NAMES = [f"reach-script-{seed:05d}" for seed in range(12)]


def config(tmp_path: Path, name: str = "iql", output: str = "run", **data: object) -> TrainConfig:
    if not (tmp_path / "store").exists():
        make_store(tmp_path / "store", range(12))
    settings = algorithm_class(name).Config(hidden=(16, 16))
    return TrainConfig(
        name,
        settings,
        store=tmp_path / "store",
        output=tmp_path / output,
        updates=60,
        save_every=50,
        data=DataConfig(batch_size=16, **data),  # type: ignore[arg-type]
    )


def store_of(tmp_path: Path) -> EpisodeStore:
    config(tmp_path)
    return EpisodeStore.open(tmp_path / "store")


def weights(policy: LearnedPolicy) -> dict[str, torch.Tensor]:
    return policy.algorithm.state_dict()


def same(one: LearnedPolicy, other: LearnedPolicy) -> bool:
    return all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


@pytest.mark.parametrize("cache", ["kept", "built again"])
def test_an_old_snapshot_trains_the_same_after_growth_and_relabelling(tmp_path: Path, cache: str) -> None:
    store = store_of(tmp_path)
    store.label(NAMES[:2], "trim", (1, 4), by="anna")
    store.label(NAMES[2:4], "success", False, by="detector-2")
    first = train(config(tmp_path))
    with store.writer() as writer:
        for seed in range(20, 30):
            writer.append(episode(seed))
    store.label(NAMES[:6], "trim", (0, 3), by="bob")
    store.label(NAMES[6:9], "deleted", True, by="bob")
    store.label(NAMES[9:], "invalid", True, by="bob")
    if cache == "built again":
        shutil.rmtree(store.path / ".columns")
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "run" / "snapshot.json", tmp_path / "again")
    again = train(config(tmp_path, output="again"))
    assert again.snapshot == first.snapshot
    assert same(first, again)
    newest = train(config(tmp_path, output="newest"))
    assert newest.snapshot != first.snapshot
    assert not same(first, newest)


def test_labels_decide_what_is_learned_from(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    store.label(NAMES[:3], "invalid", True, by="anna")
    store.label(NAMES[3:5], "deleted", True, by="anna")
    store.label(NAMES[5:7], "task", "push", by="anna")
    train(config(tmp_path, task="reach"))
    snapshot = Snapshot.load(tmp_path / "run" / "snapshot.json")
    assert [entry.episode_id for entry in snapshot.entries] == NAMES[7:]


def test_a_query_chooses_the_episodes(tmp_path: Path) -> None:
    store_of(tmp_path).label(NAMES[4:5], "invalid", True, by="anna")
    train(config(tmp_path, where="seed between 3 and 6"))
    snapshot = Snapshot.load(tmp_path / "run" / "snapshot.json")
    assert [entry.episode_id for entry in snapshot.entries] == [NAMES[3], *NAMES[5:7]]
    with pytest.raises(FlywheelError, match="no episodes for which seed > 99 holds to learn from"):
        train(config(tmp_path, output="none", where="seed > 99"))
    with pytest.raises(FlywheelError, match="no column 'sed'; did you mean 'seed'"):
        train(config(tmp_path, output="wrong", where="sed > 99"))
    assert not (tmp_path / "wrong" / "config.yaml").exists()


def test_the_store_remembers_the_snapshot_and_the_policy(tmp_path: Path) -> None:
    policy = train(config(tmp_path))
    lineage = EpisodeStore.open(tmp_path / "store").lineage
    assert lineage.snapshot(policy.snapshot) == Snapshot.load(tmp_path / "run" / "snapshot.json")
    expected = PolicyRecord(
        checkpoint=policy.checkpoint,
        snapshot=policy.snapshot,
        run=str((tmp_path / "run").resolve()),
        algorithm="iql",
        updates=60,
        code_version=policy.header.code_version,
    )
    assert lineage.policies() == {policy.checkpoint: expected}


def test_what_a_kill_kept_from_being_remembered_is_remembered_the_next_time(tmp_path: Path) -> None:
    policy = train(config(tmp_path))
    store = EpisodeStore.open(tmp_path / "store")
    (store.path / ".meta" / "policies" / f"{policy.checkpoint}.json").unlink()
    train(config(tmp_path))
    assert list(store.lineage.policies()) == [policy.checkpoint]


def test_a_store_that_cannot_remember_is_no_reason_not_to_learn(tmp_path: Path) -> None:
    for folder in ("snapshots", "policies"):
        (store_of(tmp_path).path / ".meta" / folder).write_text("in the way")
    run = config(tmp_path)
    with pytest.warns(UserWarning, match="cannot remember this run"):
        policy = train(run)
    assert policy.header.updates == 60
    shutil.rmtree(tmp_path / "store")
    with pytest.warns(UserWarning, match="cannot remember this run"):
        assert same(train(run), policy)


def test_a_run_of_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    first = train(config(tmp_path))
    path = tmp_path / "run" / "config.yaml"
    held = configs.load_dict(path)
    del held["data"]["where"]
    path.write_text(yaml.safe_dump(held))
    assert train(config(tmp_path)).checkpoint == first.checkpoint
