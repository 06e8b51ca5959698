"""What every algorithm promises where it sees pictures: who trains the encoder, and what the actions depend on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from flywheel.algorithms._representation import RepresentationConfig
from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.core import registry
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.pictures import PictureConfig
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, optimizer_of, random_batch, update

NAMES = registry.names("algorithms")
IMITATORS = ("bc", "gcbc")
WITHOUT_ACTOR = ("discrete_cql", "qt_opt")
NOTHING = RepresentationConfig()
APART = ("crl", "hiql")
"""They look at goals by themselves."""
SHAPE = (36, 36, 3)
OBSERVATIONS = ("observation", "next_observation", "goal", "actor_goal", "low_actor_goal", "high_actor_target")


def pictures(seed: int, rows: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (rows, *SHAPE), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)


def batch_of_pictures(seed: int) -> Batch:
    batch = random_batch(seed)
    shown = {
        name: {**getattr(batch, name), "wrist": pictures(10 * seed + k), "front": pictures(1000 + 10 * seed + k)}
        for k, name in enumerate(OBSERVATIONS)
    }
    return dataclasses.replace(batch, **shown)


def make(
    name: str, goal_pictures: tuple[str, ...] = ("front",), representation: RepresentationConfig = NOTHING, **encoder: object
) -> Algorithm:
    torch.manual_seed(0)
    cls = registry.load("algorithms", name, Algorithm)
    default = cls.Config().encoder
    settings = {"network": "nature", "features": 6, **encoder}
    config = cls.Config(hidden=(16, 12), encoder=dataclasses.replace(default, **settings), representation=representation)
    sizes = Sizes(
        STATE_DIM, ACTION_DIM, True, seen=(0, 2), pictures={"wrist": SHAPE, "front": SHAPE}, goal_pictures=goal_pictures
    )
    return cls(config, sizes)


def trains(algorithm: Algorithm, loss: str) -> set[str]:
    """The encoders that a loss leaves gradients on."""
    algorithm.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    algorithm.losses(batch_of_pictures(0))[loss].backward()
    touched = {name for name, p in algorithm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    heads = {name.partition(".")[0] for name in touched}
    assert heads - {"encoder", "actor_encoder", f"log_{loss}"} <= {loss}
    return heads & {"encoder", "actor_encoder"}


@pytest.mark.parametrize("name", NAMES)
def test_one_encoder_is_trained_by_all_losses(name: str) -> None:
    algorithm = make(name)
    for loss in algorithm.losses(batch_of_pictures(0)):
        expected = set() if loss in ("temperature", "multiplier") else {"encoder"}
        assert trains(algorithm, loss) == expected, loss


@pytest.mark.parametrize("name", [name for name in NAMES if name not in IMITATORS])
def test_a_detached_actor_leaves_the_encoder_alone(name: str) -> None:
    algorithm = make(name, actor="detached")
    for loss in algorithm.losses(batch_of_pictures(0)):
        expected = set() if loss in ("temperature", "multiplier", "actor", "high_actor") else {"encoder"}
        assert trains(algorithm, loss) == expected, loss


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*IMITATORS, "hiql")])
def test_an_actor_may_have_an_encoder_of_its_own(name: str) -> None:
    algorithm = make(name, actor="separate")
    for loss in algorithm.losses(batch_of_pictures(0)):
        expected = {"actor": {"actor_encoder"}, "temperature": set(), "multiplier": set()}.get(loss, {"encoder"})
        assert trains(algorithm, loss) == expected, loss
    if name in WITHOUT_ACTOR:
        return
    before = algorithm.act(batch_of_pictures(0).observation, batch_of_pictures(0).goal, True)
    with torch.no_grad():
        for parameter in algorithm.actor_encoder.parameters():
            parameter.add_(0.1)
    assert not torch.equal(before, algorithm.act(batch_of_pictures(0).observation, batch_of_pictures(0).goal, True))


@pytest.mark.parametrize("name", NAMES)
def test_all_is_learned_once_and_updates_change_the_encoder(name: str) -> None:
    algorithm = make(name)
    grouped = [p for group in algorithm.parameter_groups() for p in group["params"]]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in grouped} == {id(p) for p in algorithm.parameters() if p.requires_grad}
    before = {key: p.clone() for key, p in algorithm.encoder.named_parameters()}
    optimizer = optimizer_of(algorithm)
    for number in range(2):
        losses = update(algorithm, optimizer, batch_of_pictures(number))
        assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(not torch.equal(before[key], p) for key, p in algorithm.encoder.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_actions_depend_on_the_picture_and_the_goals_but_not_on_what_is_hidden(name: str) -> None:
    algorithm = make(name).eval()
    for number in range(3):
        update(algorithm, optimizer_of(algorithm), batch_of_pictures(number))
    batch = batch_of_pictures(5)

    def act(observation: dict[str, Tensor], goal: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            return (
                algorithm.critic(algorithm.encoder(observation, goal))
                if name == "discrete_cql"
                else algorithm.act(observation, goal, True)
            )

    own = act(batch.observation, batch.goal)
    assert torch.equal(own, act(batch.observation, batch.goal))
    assert not torch.equal(own, act({**batch.observation, "wrist": pictures(77)}, batch.goal))
    assert not torch.equal(own, act(batch.observation, {**batch.goal, "front": pictures(78)}))
    assert torch.equal(own, act(batch.observation, {"front": batch.goal["front"]}))  # the goal is one picture, no more
    hidden = batch.observation["state"].clone()
    hidden[:, [1, 3, 4]] += 1.0
    assert torch.equal(own, act({**batch.observation, "state": hidden}, batch.goal))
    hidden[:, 2] += 1.0
    assert not torch.equal(own, act({**batch.observation, "state": hidden}, batch.goal))


@pytest.mark.parametrize("goal", ["early", "shared", "separate"])
@pytest.mark.parametrize("film", [False, True])
def test_every_way_of_seeing_goals_learns(goal: str, film: bool) -> None:
    algorithm = make("gciql", goal=goal, film=film, goal_pictures=("front", "wrist"))
    update(algorithm, optimizer_of(algorithm), batch_of_pictures(0))
    assert all(p.grad is not None for p in algorithm.encoder.parameters())
    assert algorithm.encoder.goal_dim == (0 if goal == "early" else 12)


@pytest.mark.parametrize("name", APART)
def test_those_that_look_at_goals_by_themselves_say_so(name: str) -> None:
    with pytest.raises(FlywheelError, match=r"set encoder\.goal to 'shared' or 'separate'"):
        make(name, goal="early")


@pytest.mark.parametrize("name", IMITATORS)
def test_those_without_a_value_have_nothing_to_detach_from(name: str) -> None:
    with pytest.raises(FlywheelError, match="learns its actor alone"):
        make(name, actor="detached")


def test_a_camera_that_is_missing_is_named() -> None:
    algorithm, batch = make("bc"), batch_of_pictures(0)
    with pytest.raises(FlywheelError, match="looks at the camera 'wrist'"):
        algorithm.act({"state": batch.observation["state"], "front": pictures(1)}, batch.goal, True)
    with pytest.raises(FlywheelError, match="no camera shows the goal".capitalize()):
        make("bc", goal_pictures=())


def test_a_policy_without_any_state_acts() -> None:
    torch.manual_seed(0)
    cls = registry.load("algorithms", "iql", Algorithm)
    algorithm = cls(cls.Config(hidden=(8,), encoder=PictureConfig(features=4)), Sizes(0, ACTION_DIM, pictures={"front": SHAPE}))
    assert algorithm.act({"state": torch.zeros(16, 0), "front": pictures(0)}, None, True).shape == (16, ACTION_DIM)


OBJECTIVES = ["contrastive", "time_contrastive", "reconstruction", "dr3", "bottleneck"]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["bc", "iql", "cql", "gciql"])
def test_what_is_learned_beside_trains_the_encoder_alone(name: str, objective: str) -> None:
    settings = {"bottleneck": 0.01} if objective == "bottleneck" else {}
    algorithm = make(name, representation=RepresentationConfig(**({} if settings else {objective: 1.0})), **settings)
    losses = algorithm.all_losses(batch_of_pictures(0))
    assert losses.keys() - algorithm.losses(batch_of_pictures(0)).keys() == {objective}
    algorithm.zero_grad(set_to_none=True)
    losses[objective].backward()
    touched = {key.partition(".")[0] for key, p in algorithm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched <= {"encoder", "representation"}
    assert "encoder" in touched
    grouped = [p for group in algorithm.parameter_groups() for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in algorithm.parameters() if p.requires_grad}


@pytest.mark.parametrize("objective", ["contrastive", "time_contrastive", "reconstruction"])
def test_what_is_learned_beside_is_learned(objective: str) -> None:
    algorithm, batch = make("bc", representation=RepresentationConfig(**{objective: 1.0}), features=16), batch_of_pictures(0)
    optimizer = torch.optim.Adam(algorithm.parameter_groups())
    found = []
    for _ in range(60):
        loss = algorithm.representation.losses(algorithm.encoder, batch)[objective]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.7 * found[0]


@pytest.mark.parametrize("objective", ["contrastive", "time_contrastive", "dr3"])
@pytest.mark.parametrize("goal", ["early", "shared", "separate"])
def test_a_bottleneck_is_charged_beside_any_objective(objective: str, goal: str) -> None:
    beside = RepresentationConfig(**{objective: 1.0})
    algorithm = make("gciql", representation=beside, bottleneck=0.1, goal=goal, goal_pictures=("front", "wrist"))
    algorithm.all_losses(batch_of_pictures(0))["bottleneck"].backward()
    noise = [p.grad for key, p in algorithm.encoder.named_parameters() if ".noise." in key]
    assert len(noise) == (8 if goal == "separate" else 4)
    assert all(grad is not None and grad.abs().sum() > 0 for grad in noise)


def test_a_goals_passage_through_a_shared_bottleneck_is_charged_too() -> None:
    algorithm, batch = make("gciql", bottleneck=0.1, goal="shared"), batch_of_pictures(0)
    torch.manual_seed(0)
    algorithm.encoder(batch.observation, batch.goal)
    cameras = algorithm.encoder.cameras
    assert algorithm.encoder.divergence.item() > sum(camera.divergence.item() for camera in cameras)


def test_a_bottleneck_of_an_encoder_that_the_actor_alone_trains_is_refused() -> None:
    with pytest.raises(FlywheelError, match=r"set encoder\.actor to shared or detached"):
        make("iql", actor="separate", bottleneck=0.1)


def test_a_bottleneck_is_for_learning_alone() -> None:
    algorithm, batch = make("bc", bottleneck=0.1), batch_of_pictures(0)
    assert not torch.equal(algorithm.encoder(batch.observation, batch.goal), algorithm.encoder(batch.observation, batch.goal))
    algorithm.eval()
    seen = algorithm.encoder(batch.observation, batch.goal)
    assert torch.equal(seen, algorithm.encoder(batch.observation, batch.goal))


def test_a_representation_of_pictures_needs_pictures() -> None:
    cls = registry.load("algorithms", "bc", Algorithm)
    with pytest.raises(FlywheelError, match="needs pictures"):
        cls(cls.Config(representation=RepresentationConfig(dr3=0.1)), Sizes(2, 2))
    with pytest.raises(FlywheelError, match="at least 0"):
        RepresentationConfig(dr3=-1.0)
