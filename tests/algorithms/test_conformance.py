"""What every algorithm promises (`Algorithm`), checked for each that is registered."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.core import config as configs
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, optimizer_of, random_batch, update

VARIANTS = [
    ("cql", {"lagrange_threshold": 1.0}),
    ("cql", {"warm_up": 3}),
    ("brac", {"warm_up": 0}),
    ("brac", {"penalty": "policy", "divergence": "mmd"}),
    ("bear", {"warm_up": 0}),
    ("cql", {"importance_sampling": False, "max_target_backup": True}),
    ("actionable_models", {"reward_scale": "steps"}),
    ("actionable_models", {"maximise": "cem"}),
    ("gciql", {"actor_loss": "awr"}),
    ("crl", {"actor_loss": "awr"}),
    ("iql", {"actor_loss": "ddpgbc"}),
    ("implicit_actionable_models", {"actor_loss": "ddpgbc"}),
    ("iql", {"activation": "gelu", "layer_norm": True}),
    ("cql", {"activation": "gelu", "layer_norm": True}),
]
CASES = [(name, {}) for name in registry.names("algorithms")] + VARIANTS


def make(name: str, **settings: object) -> Algorithm:
    cls = registry.load("algorithms", name, Algorithm)
    return cls(cls.Config(**{"hidden": (16, 12), **settings}), Sizes(STATE_DIM, ACTION_DIM, True))


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *case[1]]))
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    name, settings = request.param
    return make(name, **settings)


def _state(seed: int, rows: int = 9) -> dict[str, torch.Tensor]:
    return {"state": torch.randn(rows, STATE_DIM, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("value", [-1e-3, float("inf"), float("nan")])
def test_rates_that_make_no_sense_are_refused(algorithm: Algorithm, value: float) -> None:
    names = [field.name for field in dataclasses.fields(algorithm.config)]
    rates = [name for name in names if name.endswith(("learning_rate", "target_rate"))]
    assert rates
    for name in rates:
        with pytest.raises(FlywheelError, match=name.replace("_", "-")):
            dataclasses.replace(algorithm.config, **{name: value})


def test_numbers_that_are_not_finite_are_refused(algorithm: Algorithm) -> None:
    for name in [field.name for field in dataclasses.fields(algorithm.config) if field.type == "float"]:
        with pytest.raises(FlywheelError, match=name.replace("_", "-")):
            dataclasses.replace(algorithm.config, **{name: float("nan")})


def test_registered_are_the_four() -> None:
    assert {"bc", "iql", "cql", "actionable_models"} <= set(registry.names("algorithms"))


def test_name_is_the_files_name(algorithm: Algorithm) -> None:
    assert type(algorithm).__module__.endswith(f".{algorithm.name}")


def test_every_setting_is_documented_and_survives_yaml(algorithm: Algorithm) -> None:
    config = algorithm.config
    assert configs.from_dict(type(config), configs.to_dict(config)) == config
    fields, none = dataclasses.fields(config), dataclasses.MISSING
    assert all(item.default is not none or item.default_factory is not none for item in fields)


def test_losses_are_finite_scalars(algorithm: Algorithm) -> None:
    losses = algorithm.losses(random_batch(0))
    assert losses
    for loss in losses.values():
        assert loss.shape == ()
        assert torch.isfinite(loss)


def test_each_loss_leaves_gradients_on_its_own_network_alone(algorithm: Algorithm) -> None:
    names = list(algorithm.losses(random_batch(0)))
    trained = set()
    for key in names:
        algorithm.zero_grad(set_to_none=True)
        algorithm.losses(random_batch(0))[key].backward()
        touched = {name for name, p in algorithm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert touched
        assert all(name.startswith(f"{key}.") or name == f"log_{key}" for name in touched)
        trained |= touched
    assert {name.partition(".")[0] for name in trained} == {
        name.partition(".")[0] for name, p in algorithm.named_parameters() if p.requires_grad
    }


def test_parameter_groups_hold_every_trainable_parameter_once(algorithm: Algorithm) -> None:
    grouped = [p for group in algorithm.parameter_groups() for p in group["params"]]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in grouped} == {id(p) for p in algorithm.parameters() if p.requires_grad}
    assert all(group["lr"] > 0 for group in algorithm.parameter_groups())


def test_losses_leave_every_parameter_trainable_as_it_was(algorithm: Algorithm) -> None:
    before = {name: p.requires_grad for name, p in algorithm.named_parameters()}
    algorithm.losses(random_batch(0))
    assert {name: p.requires_grad for name, p in algorithm.named_parameters()} == before


def test_actions_are_in_bounds_and_repeat_when_asked(algorithm: Algorithm) -> None:
    state, goal = _state(1), _state(2)
    with torch.inference_mode():
        first, again = (algorithm.act(state, goal, deterministic=True) for _ in range(2))
        sampled, other = (algorithm.act(state, goal, deterministic=False) for _ in range(2))
    assert first.shape == sampled.shape == (9, ACTION_DIM)
    assert torch.equal(first, again)
    assert not torch.equal(sampled, other)
    assert torch.cat([first, sampled, other]).abs().max() <= 1.0


def test_deterministic_actions_depend_on_the_goal_and_on_no_other_row(algorithm: Algorithm) -> None:
    state, goal = _state(1), _state(2)
    with torch.inference_mode():
        together = algorithm.act(state, goal, deterministic=True)
        alone = algorithm.act({"state": state["state"][:1]}, {"state": goal["state"][:1]}, deterministic=True)
        elsewhere = algorithm.act(state, _state(3), deterministic=True)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert not torch.equal(together, elsewhere)


@pytest.mark.parametrize("name", registry.names("algorithms"))
def test_a_task_is_told_apart_beside_the_goal(name: str) -> None:
    cls = registry.load("algorithms", name, Algorithm)
    algorithm = cls(cls.Config(hidden=(16, 12)), Sizes(STATE_DIM, ACTION_DIM, True, tasks=3))
    batch, losses = random_batch(0), []
    for task in (torch.arange(16) % 3, torch.zeros(16, dtype=torch.long)):
        now, following = ({**observation, "task": task} for observation in (batch.observation, batch.next_observation))
        torch.manual_seed(1)
        losses.append(algorithm.losses(dataclasses.replace(batch, observation=now, next_observation=following)))
    for key, loss in losses[0].items():
        assert torch.isfinite(loss)
        assert loss != losses[1][key]


def test_restored_state_continues_bit_identically(algorithm: Algorithm) -> None:
    optimizer = optimizer_of(algorithm)
    for number in range(3):
        update(algorithm, optimizer, random_batch(number))
    saved = copy.deepcopy((algorithm.state_dict(), optimizer.state_dict()))
    settings = {item.name: getattr(algorithm.config, item.name) for item in dataclasses.fields(algorithm.config)}
    restored = make(algorithm.name, **settings)
    restored.load_state_dict(saved[0])
    its_optimizer = optimizer_of(restored)
    its_optimizer.load_state_dict(saved[1])
    for number in range(3, 6):
        for one, of_one in ((algorithm, optimizer), (restored, its_optimizer)):
            torch.manual_seed(number)
            update(one, of_one, random_batch(number))
    for name, tensor in algorithm.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name]), name


def test_everything_is_float32(algorithm: Algorithm) -> None:
    assert {tensor.dtype for tensor in (*algorithm.parameters(), *algorithm.buffers())} == {torch.float32}
    assert {loss.dtype for loss in algorithm.losses(random_batch(0)).values()} == {torch.float32}


def test_metrics_are_detached_scalars(algorithm: Algorithm) -> None:
    algorithm.losses(random_batch(0))
    assert algorithm.metrics()
    assert all(value.shape == () and not value.requires_grad for value in algorithm.metrics().values())


def test_target_networks_follow_slowly(algorithm: Algorithm) -> None:
    targets = {name: p.clone() for name, p in algorithm.named_parameters() if name.startswith("target_")}
    assert not any(p.requires_grad for name, p in algorithm.named_parameters() if name in targets)
    update(algorithm, optimizer_of(algorithm), random_batch(0))
    after = dict(algorithm.named_parameters())
    for name, before in targets.items():
        online = after[name.removeprefix("target_")]
        expected = before + algorithm.config.target_rate * (online - before)
        torch.testing.assert_close(after[name], expected)


@pytest.mark.parametrize("name", registry.names("algorithms"))
def test_pretrained_weights_are_taken_where_they_fit(name: str) -> None:
    source, other = make("actionable_models"), make(name)
    source.set_statistics(torch.full((STATE_DIM,), 2.0), torch.full((STATE_DIM,), 3.0))
    before = copy.deepcopy(other.state_dict())
    taken = other.load_pretrained(source.state_dict())
    after = other.state_dict()
    if name in (
        "hiql",
        "qt_opt",
        "discrete_cql",
    ):  # the first one's actor sees a representation of the goal, the others have none
        assert not taken
        assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
        return
    assert {"encoder.mean", "encoder.std", "actor.hidden.layers.0.weight", "actor.mean.weight"} <= set(taken)
    assert not [key for key in taken if key.startswith(("critic.output", "target_"))]
    for key, tensor in after.items():
        if key in taken:
            assert torch.equal(tensor, source.state_dict()[key]), key
        elif key.startswith(("target_", "average_")):
            assert torch.equal(tensor, after[key.removeprefix("target_").removeprefix("average_")]), key
        elif key.startswith(("critic.output", "value.output")):
            begins_low = name.endswith("actionable_models") and key.endswith("bias")  # as it does without
            assert torch.equal(tensor, before[key] if begins_low else torch.zeros_like(tensor)), key
        else:
            assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", ["bc", "iql", "actionable_models"])
def test_the_average_acts_and_is_what_others_start_from(name: str) -> None:
    algorithm = make(name, average_rate=0.5)
    start = copy.deepcopy(algorithm.actor.state_dict())
    update(algorithm, optimizer_of(algorithm), random_batch(0))
    for key, tensor in algorithm.acting_state().items():
        if key.startswith("actor."):
            inner = key.removeprefix("actor.")
            torch.testing.assert_close(tensor, (start[inner] + algorithm.actor.state_dict()[inner]) / 2)
    batch = random_batch(1)
    before = algorithm.act(batch.observation, batch.goal, True)
    with torch.no_grad():
        algorithm.actor.mean.bias.add_(1.0)
    assert torch.equal(algorithm.act(batch.observation, batch.goal, True), before)


def test_dropout_is_for_training_alone() -> None:
    algorithm = make("bc", actor_dropout=0.5)
    batch = random_batch(0)
    assert not torch.equal(algorithm.losses(batch)["actor"], algorithm.losses(batch)["actor"])
    algorithm.eval()
    assert torch.equal(algorithm.act(batch.observation, batch.goal, True), algorithm.act(batch.observation, batch.goal, True))


def test_pretrained_weights_of_another_width_change_nothing() -> None:
    algorithm = make("iql")
    before = copy.deepcopy(algorithm.state_dict())
    assert algorithm.load_pretrained(make("actionable_models", hidden=(7, 7)).state_dict()) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in algorithm.state_dict().items())


def test_pretrained_layers_are_taken_whole() -> None:
    taken = make("iql").load_pretrained(make("actionable_models", hidden=(16, 7)).state_dict())
    assert "actor.hidden.layers.0.weight" in taken
    assert not [name for name in taken if name.startswith(("actor.hidden.layers.1", "actor.mean"))]


def test_pretrained_layers_are_taken_with_their_normalisation() -> None:
    """Without it the layers after the first would see other features than those for which they were trained."""
    source, other = make("gciql"), make("iql", activation="gelu", layer_norm=True)
    for parameter in source.critic.norms.parameters():
        torch.nn.init.uniform_(parameter)
    other.load_pretrained(source.state_dict())
    for name, tensor in source.critic.norms.state_dict().items():
        assert torch.equal(other.critic.norms.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("name", "settings", "word"),
    [
        ("bc", {"hidden": ()}, "hidden"),
        ("iql", {"expectile": 1.0}, "expectile"),
        ("cql", {"n_actions": 0}, "n-actions"),
        ("cql", {"warm_up": -1}, "warm-up"),
        ("actionable_models", {"cem_elites": 65}, "cem-elites"),
        ("actionable_models", {"maximise": "cem", "average_rate": 0.1}, "there is none"),
        ("actionable_models", {"n_negatives": 0}, "n-negatives"),
        ("actionable_models", {"negative_weight": -1.0}, "negative-weight"),
        ("iql", {"inverse_temperature": -1.0}, "inverse-temperature"),
        ("bear", {"mmd_sigma": 0.0}, "mmd-sigma"),
        ("brac", {"mmd_sigma": 0.0}, "mmd-sigma"),
    ],
)
def test_a_useless_setting_is_refused_by_name(name: str, settings: dict[str, object], word: str) -> None:
    with pytest.raises(FlywheelError, match=word):
        make(name, **settings)


def test_mixed_precision_gives_nearly_the_same_losses(algorithm: Algorithm) -> None:
    """Within bfloat16's three digits, for equal draws; what is drawn from a distribution of values may be another action."""
    batch = random_batch(0)
    torch.manual_seed(0)
    expected = algorithm.losses(batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = algorithm.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name], rtol=0.1, atol=0.1)
