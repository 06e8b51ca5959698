"""Training runs: what they refuse, what they keep, how they start from each other."""

from __future__ import annotations

import dataclasses
import math
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.datasets.cache.column_cache import cache_folder
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning
from flywheel.policy import LearnedPolicy
from flywheel.training.callbacks import read_metrics
from flywheel.training.fit import load_checkpoint
from flywheel.training.module import NonFiniteError
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, load_config, train
from tests.point import episode, make_store


def config(tmp_path: Path, name: str = "bc", output: str = "run", **settings: object) -> TrainConfig:
    if not (tmp_path / "store").exists():
        make_store(tmp_path / "store")
    values = {"updates": 60, "save_every": 50, "data": DataConfig(batch_size=16), **settings}
    algorithm = values.pop("algorithm", None) or algorithm_class(name).Config(hidden=(16, 16))
    return TrainConfig(name, algorithm, store=tmp_path / "store", output=tmp_path / output, **values)


def observation(seed: int = 0) -> dict[str, np.ndarray]:
    return {key: value[0] for key, value in episode(seed).observation.items()}


def test_a_run_leaves_a_policy_that_acts(tmp_path: Path) -> None:
    policy = train(config(tmp_path, "iql"))
    action = policy.act(observation())
    assert action.shape == (2,)
    assert action.dtype == np.float32
    assert (np.abs(action) <= 1).all()
    assert policy.agent_id == f"iql-{policy.checkpoint[:8]}"
    assert policy.snapshot == EpisodeStore.open(tmp_path / "store").snapshot().hash
    np.testing.assert_array_equal(LearnedPolicy.load(tmp_path / "run").act(observation()), action)


def test_progress_and_metrics_count_updates(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    train(config(tmp_path, updates=130), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (130, 130)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert [row["update"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == [50, 100, 130]


def test_a_torn_last_line_of_the_metrics_is_left_out(tmp_path: Path) -> None:
    train(config(tmp_path, updates=100))
    metrics = tmp_path / "run" / "metrics.csv"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-3])
    train(config(tmp_path, updates=200))
    assert [row["update"] for row in read_metrics(metrics)] == [50, 150, 200]


def test_a_run_goes_on_after_chunks_in_which_the_actor_did_not_learn(tmp_path: Path) -> None:
    """TD3's actor learns at every second update, and a chunk can be one update long."""
    train(config(tmp_path, "td3_bc", updates=2, save_every=1))
    train(config(tmp_path, "td3_bc", updates=4, save_every=1))
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert ["loss/actor" in row for row in rows] == [True, False, True, False]


@pytest.mark.parametrize("content", [b"update,loss/actor\r\n50,x\r\n100,1\r\n", b"garbage\r\n1\r\n", b"\xff\xfe,update\r\n1\r\n"])
def test_damaged_metrics_are_named_and_can_be_deleted(tmp_path: Path, content: bytes) -> None:
    train(config(tmp_path, updates=100))
    metrics = tmp_path / "run" / "metrics.csv"
    metrics.write_bytes(content)
    with pytest.raises(FlywheelError, match=r"metrics\.csv is damaged; restore it from a copy, or delete it"):
        train(config(tmp_path, updates=200))
    metrics.unlink()
    train(config(tmp_path, updates=200))
    assert [row["update"] for row in read_metrics(metrics)] == [150, 200]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = train(config(tmp_path))
    stamp = (tmp_path / "run" / "policy.safetensors").stat().st_mtime_ns
    assert train(config(tmp_path)).checkpoint == first.checkpoint
    assert (tmp_path / "run" / "policy.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_policy_that_was_lost_is_made_again_from_the_checkpoint(tmp_path: Path, content: bytes | None) -> None:
    first = train(config(tmp_path))
    stamp = (tmp_path / "run" / "last.ckpt").stat().st_mtime_ns
    policy = tmp_path / "run" / "policy.safetensors"
    policy.unlink() if content is None else policy.write_bytes(content)
    assert train(config(tmp_path)).checkpoint == first.checkpoint
    assert (tmp_path / "run" / "last.ckpt").stat().st_mtime_ns == stamp


def test_a_longer_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    train(config(tmp_path, output="parts", updates=70))
    parts = train(config(tmp_path, output="parts", updates=180))
    whole = train(config(tmp_path, output="whole", updates=180))
    for name, tensor in whole.algorithm.state_dict().items():
        assert torch.equal(tensor, parts.algorithm.state_dict()[name]), name


def _flip(store: EpisodeStore, seed: int) -> None:
    """Change a byte of an episode's record, or change it back."""
    row = next(row for row in store.rows() if row.seed == seed)
    shard = store.path / row.shard
    data = bytearray(shard.read_bytes())
    data[row.offset + 200] ^= 1
    shard.write_bytes(data)


def test_the_snapshot_names_the_episodes_that_were_read(tmp_path: Path) -> None:
    run = config(tmp_path, updates=50)
    store = EpisodeStore.open(tmp_path / "store")
    _flip(store, 3)
    with pytest.warns(DamageWarning, match="00003 is left out"):
        policy = train(run)
    snapshot = Snapshot.load(tmp_path / "run" / "snapshot.json")
    assert len(snapshot) == 29
    assert policy.snapshot == snapshot.hash == store.snapshot(lambda episode: episode.seed != 3).hash
    _flip(store, 3)  # restored from a copy: the run keeps to what it began with
    assert train(dataclasses.replace(run, updates=100)).snapshot == snapshot.hash


def test_a_run_that_can_no_longer_read_what_it_began_with_says_so(tmp_path: Path) -> None:
    run = config(tmp_path, updates=50)
    train(run)
    store = EpisodeStore.open(tmp_path / "store")
    _flip(store, 3)
    shutil.rmtree(cache_folder(store.path))
    longer = dataclasses.replace(run, updates=100)
    sentence = r"snapshot\.json names episode '.*00003', which .* can no longer read; restore the store from a copy"
    with pytest.raises(FlywheelError, match=sentence), pytest.warns(DamageWarning):
        train(longer)
    _flip(store, 3)
    assert train(longer).header.updates == 100


def test_a_longer_run_that_fails_changes_nothing_of_the_shorter(tmp_path: Path) -> None:
    first = train(config(tmp_path))
    checkpoint = tmp_path / "run" / "last.ckpt"
    sound = checkpoint.read_bytes()
    checkpoint.write_bytes(b"garbage")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(FlywheelError, match=r"last\.ckpt is damaged"):
        train(config(tmp_path, updates=120))
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert train(config(tmp_path)).checkpoint == first.checkpoint
    checkpoint.write_bytes(sound)
    assert train(config(tmp_path, updates=120)).header.updates == 120
    assert load_config(tmp_path / "run" / "config.yaml").updates == 120


def test_a_longer_run_that_was_interrupted_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    first = train(config(tmp_path))
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(done: int, total: int) -> None:
        if done == 160:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, updates=300), interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert train(config(tmp_path)).checkpoint == first.checkpoint
    with pytest.raises(FlywheelError, match="holds 110 updates already"):
        train(config(tmp_path, updates=80))
    assert train(config(tmp_path, updates=300)).header.updates == 300


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    train(config(tmp_path))
    with pytest.raises(FlywheelError, match=r"other settings \(seed\)"):
        train(config(tmp_path, seed=1))
    with pytest.raises(FlywheelError, match="updates"):
        train(config(tmp_path, updates=10))


def test_a_saved_configuration_repeats_the_run(tmp_path: Path) -> None:
    first = train(config(tmp_path, "cql"))
    again = dataclasses.replace(load_config(tmp_path / "run" / "config.yaml"), output=tmp_path / "again")
    assert train(again).checkpoint == first.checkpoint


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    configs.save(DataConfig(), tmp_path / "config.yaml")
    with pytest.raises(FlywheelError, match="training run"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"updates": 0}, "at least 1"),
        ({"data": DataConfig(batch_size=0)}, "at least 1"),
        ({"data": DataConfig(discount=1.0)}, "discount"),
        ({"data": DataConfig(new_fraction=0.5)}, "--initial"),
        ({"data": DataConfig(task="lift")}, "no episodes of task 'lift'"),
        ({"initial": Path("nowhere")}, "no policy"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed must be at most"),
        ({"data": DataConfig(batch_size=10**9)}, "batch-size must be at most"),
        ({"data": DataConfig(picture_pool=-1)}, "picture-pool"),
        ({"data": DataConfig(success_share=2.0)}, "success-share"),
    ],
)
def test_bad_settings_are_named_and_leave_the_folder_free(tmp_path: Path, settings: dict, words: str) -> None:
    with pytest.raises(FlywheelError, match=words):
        train(config(tmp_path, **settings))
    assert train(config(tmp_path)).header.updates == 60


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(config(tmp_path))
    checkpoint = tmp_path / "run" / "last.ckpt"
    for data in (b"", b"garbage", checkpoint.read_bytes()[:5000]):
        checkpoint.write_bytes(data)
        with pytest.raises(FlywheelError, match=r"last\.ckpt is damaged"):
            train(config(tmp_path, updates=120))


def test_a_checkpoint_of_other_networks_is_named(tmp_path: Path) -> None:
    train(config(tmp_path))
    wide = algorithm_class("bc").Config(hidden=(8, 8))
    train(config(tmp_path, algorithm=wide, output="wide"))
    (tmp_path / "wide" / "last.ckpt").replace(tmp_path / "run" / "last.ckpt")
    with pytest.raises(FlywheelError, match="of other networks"):
        train(config(tmp_path, updates=120))


@pytest.mark.parametrize("left", ["policy.safetensors", "last.ckpt"])
def test_a_folder_with_what_another_run_left_is_refused(tmp_path: Path, left: str) -> None:
    train(config(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "run" / left).replace(tmp_path / "other" / left)
    with pytest.raises(FlywheelError, match=f"holds {left} without the config.yaml"):
        train(config(tmp_path, output="other"))


def test_a_store_is_no_run_folder(tmp_path: Path) -> None:
    run = config(tmp_path)
    with pytest.raises(FlywheelError, match="is a store of episodes"):
        train(dataclasses.replace(run, output=EpisodeStore.open(run.store).path))


def test_a_policy_of_another_robot_is_no_start(tmp_path: Path) -> None:
    train(config(tmp_path, output="first"))
    schema = EpisodeStore.open(tmp_path / "store").schema
    action = dataclasses.replace(schema.action, controller="another")
    store = EpisodeStore.create(tmp_path / "other", "other", dataclasses.replace(schema, action=action))
    with store.writer() as writer:
        writer.append(episode(0))
    with pytest.raises(FlywheelError, match="other observations or actions"):
        train(dataclasses.replace(config(tmp_path, initial=tmp_path / "first"), store=store.path))


@pytest.mark.parametrize("name", ["iql", "actionable_models"])  # the latter draws by values, which may be NaN before weights are
def test_a_loss_that_explodes_stops_the_run_and_saves_nothing_of_it(tmp_path: Path, name: str) -> None:
    wild = algorithm_class(name).Config(hidden=(16, 16), learning_rate=1e30)
    with pytest.raises(NonFiniteError, match=r"non-finite in update \d+ \(.*non_finite.safetensors"):
        train(config(tmp_path, name, algorithm=wild))
    assert not (tmp_path / "run" / "policy.safetensors").exists()
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_finetuning_starts_from_the_pretrained_networks(tmp_path: Path) -> None:
    pretrained = train(config(tmp_path, "actionable_models", output="pretrained"))
    data = DataConfig(batch_size=16, task="reach", relabel="task_goal")
    settings = {"data": data, "initial": tmp_path / "pretrained", "updates": 1}
    tuned = train(config(tmp_path, "iql", output="tuned", **settings))
    assert tuned.header.parent == pretrained.checkpoint
    assert tuned.goal is not None
    before, after = (policy.algorithm.state_dict()["actor.hidden.layers.0.weight"] for policy in (pretrained, tuned))
    assert 0 < float((after - before).abs().max()) < 1e-2
    assert torch.equal(tuned.algorithm.state_dict()["encoder.mean"], pretrained.algorithm.state_dict()["encoder.mean"])
    assert tuned.act(observation()).shape == (2,)


def test_online_finetuning_goes_on_from_all_weights_and_mixes_in_what_is_new(tmp_path: Path) -> None:
    first = train(config(tmp_path, "iql", output="first"))
    with EpisodeStore.open(tmp_path / "store").writer() as writer:
        writer.append(episode(500, agent="policy"))
    data = DataConfig(batch_size=16, new_fraction=0.5)
    second = train(config(tmp_path, "iql", output="second", data=data, initial=tmp_path / "first", updates=1))
    assert len(Snapshot.load(tmp_path / "second" / "snapshot.json").entries) == 31
    for name, tensor in first.algorithm.state_dict().items():
        assert float((second.algorithm.state_dict()[name].float() - tensor.float()).abs().max()) < 1e-2, name


def test_an_average_begins_with_the_actor_of_a_run_that_kept_none(tmp_path: Path) -> None:
    first = train(config(tmp_path, output="first"))
    averaged = algorithm_class("bc").Config(hidden=(16, 16), average_rate=1e-6)
    second = train(config(tmp_path, algorithm=averaged, initial=tmp_path / "first", updates=1))
    np.testing.assert_allclose(second.act(observation()), first.act(observation()), atol=1e-4)


def test_a_run_that_goes_on_has_its_own_learning_rates(tmp_path: Path) -> None:
    first = train(config(tmp_path, output="first"))
    still = algorithm_class("bc").Config(hidden=(16, 16), learning_rate=0.0)
    second = train(config(tmp_path, algorithm=still, initial=tmp_path / "first", go_on=True, updates=70))
    assert second.header.updates == 70
    for name, tensor in first.algorithm.state_dict().items():
        assert torch.equal(second.algorithm.state_dict()[name], tensor), name


def test_a_start_whose_actions_become_smaller_is_told(tmp_path: Path) -> None:
    networks = {"hidden": (16, 16), "activation": "gelu"}
    cloned = algorithm_class("gcbc").Config(**networks)
    hindsight, task_goal = (DataConfig(batch_size=16, task="reach", relabel=kind) for kind in ("hindsight", "task_goal"))
    train(config(tmp_path, "gcbc", output="first", algorithm=cloned, data=hindsight, updates=1))
    iql = config(tmp_path, "iql", "tuned", algorithm=algorithm_class("iql").Config(**networks), updates=1)
    with pytest.warns(UserWarning, match="gcbc's actor has no tanh on its mean and iql's has one"):
        train(dataclasses.replace(iql, data=task_goal, initial=tmp_path / "first"))


def test_nothing_new_to_mix_in_is_named(tmp_path: Path) -> None:
    train(config(tmp_path, "iql", output="first"))
    with pytest.raises(FlywheelError, match="no new episodes"):
        train(config(tmp_path, "iql", initial=tmp_path / "first", data=DataConfig(batch_size=16, new_fraction=0.5)))


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    train(config(tmp_path, "actionable_models", output="pretrained"))
    wide = algorithm_class("iql").Config(hidden=(32, 32))
    data = DataConfig(batch_size=16, task="reach", relabel="task_goal")
    with pytest.raises(FlywheelError, match="same hidden sizes"):
        train(config(tmp_path, "iql", algorithm=wide, data=data, initial=tmp_path / "pretrained"))


def test_weights_of_another_width_are_refused_by_the_same_algorithm(tmp_path: Path) -> None:
    train(config(tmp_path, output="first"))
    wide = algorithm_class("bc").Config(hidden=(32, 32))
    with pytest.raises(FlywheelError, match="same hidden sizes"):
        train(config(tmp_path, algorithm=wide, initial=tmp_path / "first"))


@pytest.mark.parametrize("name", ["bc", "iql"])
def test_weights_of_another_activation_are_refused(tmp_path: Path, name: str) -> None:
    train(config(tmp_path, output="first"))
    other = algorithm_class(name).Config(hidden=(16, 16), activation="gelu")
    with pytest.raises(FlywheelError, match="activation relu"):
        train(config(tmp_path, name, algorithm=other, initial=tmp_path / "first"))


def test_a_start_that_lacks_what_other_settings_add_is_told_why(tmp_path: Path) -> None:
    def settings(**others: object) -> dict[str, object]:
        return {"algorithm": algorithm_class("cql").Config(hidden=(16, 16), **others), "updates": 1}

    train(config(tmp_path, "cql", output="first", **settings()))
    with pytest.raises(FlywheelError, match="a warm-up"):
        train(config(tmp_path, "cql", **settings(warm_up=1), initial=tmp_path / "first"))


def test_a_start_without_an_actor_is_told_why(tmp_path: Path) -> None:
    cem = algorithm_class("actionable_models").Config(hidden=(16, 16), maximise="cem")
    train(config(tmp_path, "actionable_models", output="pretrained", algorithm=cem, updates=1))
    data = DataConfig(batch_size=16, task="reach", relabel="task_goal")
    with pytest.raises(FlywheelError, match="has none, as with CEM"):
        train(config(tmp_path, "iql", data=data, initial=tmp_path / "pretrained"))


def test_a_goal_conditioned_policy_without_a_goal_says_so(tmp_path: Path) -> None:
    policy = train(config(tmp_path, "actionable_models"))
    with pytest.raises(FlywheelError, match="--goals"):
        policy.act(observation())
    assert policy.act(observation(), goal=observation(1)).shape == (2,)


def test_two_trainings_in_one_folder_exclude_each_other(tmp_path: Path) -> None:
    other = config(tmp_path)

    def start_another(done: int, total: int) -> None:
        with pytest.raises(FlywheelError, match="Another process"):
            train(other)

    train(other, start_another)


@pytest.mark.slow
def test_compiled_losses_train_to_the_same_weights(tmp_path: Path) -> None:
    plain = train(config(tmp_path, "iql", updates=50))
    compiled = train(config(tmp_path, "iql", "compiled", updates=50, compile=True))
    for name, weight in plain.algorithm.state_dict().items():
        torch.testing.assert_close(compiled.algorithm.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


def test_bfloat16_trains_to_nearly_the_same_weights_kept_as_float32(tmp_path: Path) -> None:
    plain = train(config(tmp_path, "iql", updates=50))
    mixed = train(config(tmp_path, "iql", "mixed", updates=50, precision="bfloat16"))
    for name, weight in plain.algorithm.state_dict().items():
        assert mixed.algorithm.state_dict()[name].dtype == torch.float32
        torch.testing.assert_close(mixed.algorithm.state_dict()[name], weight, rtol=0.1, atol=0.03)


def test_states_are_normalised_unless_so_asked(tmp_path: Path) -> None:
    for is_normalised in (True, False):
        run = config(tmp_path, output=f"run-{is_normalised}", updates=1, data=DataConfig(batch_size=16, normalise=is_normalised))
        encoder = train(run).algorithm.encoder
        assert torch.equal(encoder.mean, torch.zeros_like(encoder.mean)) is not is_normalised
        assert torch.equal(encoder.std, torch.ones_like(encoder.std)) is not is_normalised
    with pytest.raises(FlywheelError, match="leave normalise on"):
        train(config(tmp_path, output="both", data=DataConfig(normalise=False, also=(tmp_path / "other",))))


def test_a_run_that_goes_on_has_the_other_optimizer(tmp_path: Path) -> None:
    begun = config(tmp_path, "iql")
    train(begun)
    slower = algorithm_class("iql").Config(hidden=(16, 16), learning_rate=1e-5)
    train(config(tmp_path, "iql", "slower", algorithm=slower, updates=70, initial=begun.output, go_on=True))
    optimizer = load_checkpoint(tmp_path / "slower" / "last.ckpt")["optimizer_states"][0]
    assert {group["lr"] for group in optimizer["param_groups"]} == {1e-5}
    assert {float(state["step"]) for state in optimizer["state"].values()} == {70.0}


def test_going_on_needs_a_finished_run_of_fewer_updates(tmp_path: Path) -> None:
    train(begun := config(tmp_path, output="begun"))
    after = config(tmp_path, updates=40, initial=begun.output, go_on=True)
    with pytest.raises(FlywheelError, match=r"begun has had 60 updates.*ask for at least as many"):
        train(after)
    policy = (begun.output / "policy.safetensors").read_bytes()
    train(dataclasses.replace(begun, updates=80))
    (begun.output / "policy.safetensors").write_bytes(policy)  # as before the end of a run that is made longer
    with pytest.raises(FlywheelError, match=r"begun has a policy of 60 updates and a checkpoint of 80; let it finish first"):
        train(dataclasses.replace(after, updates=90))
    (begun.output / "last.ckpt").unlink()
    with pytest.raises(FlywheelError, match=r"begun has no checkpoint any more"):
        train(dataclasses.replace(after, updates=90))
    assert not (after.output / "config.yaml").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"where": "not success"}, "no success to imitate"),
        ({"reward_shift": -1.0}, "reward-shift 0"),
        ({"reward_scale": -1.0}, "reward-scale above 0"),
        ({"relabel": "hindsight"}, "told by the store's rewards"),
    ],
)
def test_successes_that_cannot_be_told_are_refused(tmp_path: Path, data: dict[str, object], message: str) -> None:
    successes = algorithm_class("iql").Config(hidden=(16, 16), imitate="successes")
    with make_store(tmp_path / "store").writer() as writer:
        writer.append(episode(100, horizon=1))
    run = config(tmp_path, "iql", algorithm=successes, data=DataConfig(batch_size=16, **data))
    with pytest.raises(FlywheelError, match=message):
        train(run)
    assert not (run.output / "config.yaml").exists()
    train(dataclasses.replace(run, data=DataConfig(batch_size=16)))


def test_successes_of_other_episodes_in_the_cache_do_not_count(tmp_path: Path) -> None:
    with make_store(tmp_path / "store").writer() as writer:
        writer.append(episode(100, horizon=1))
    train(config(tmp_path, output="all"))  # which caches every episode
    successes = algorithm_class("iql").Config(hidden=(16, 16), imitate="successes")
    data = DataConfig(batch_size=16, where="not success")
    with pytest.raises(FlywheelError, match="no success to imitate"):
        train(config(tmp_path, "iql", algorithm=successes, data=data))


@pytest.mark.parametrize("go_on", [False, True])
def test_an_average_begins_with_the_weights_that_acted(tmp_path: Path, go_on: bool) -> None:
    before = train(begun := config(tmp_path, "iql"))
    averaged = algorithm_class("iql").Config(hidden=(16, 16), average_rate=0.002)
    updates = 61 if go_on else 1
    after = train(config(tmp_path, "iql", "after", algorithm=averaged, updates=updates, initial=begun.output, go_on=go_on))
    np.testing.assert_allclose(after.act(observation()), before.act(observation()), atol=1e-4)


@pytest.mark.parametrize("rewards", [{"reward_scale": math.nan}, {"reward_scale": math.inf}, {"reward_shift": -math.inf}])
def test_rewards_that_would_not_be_finite_are_refused(tmp_path: Path, rewards: dict[str, float]) -> None:
    with pytest.raises(FlywheelError, match="finite numbers"):
        train(config(tmp_path, "iql", data=DataConfig(batch_size=16, **rewards)))
    assert not (tmp_path / "run").exists()
