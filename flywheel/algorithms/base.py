"""What every algorithm is: networks and losses. No optimizer, no logger, no device, no data source."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from flywheel.algorithms._representation import Representation, RepresentationConfig
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Ensemble, ValueFunction
from flywheel.networks.encoders import CameraEncoder, StateEncoder, make_encoder
from flywheel.networks.encoders import Sizes as Sizes
from flywheel.networks.mlp import Activation, Layers
from flywheel.networks.pictures import PictureConfig

Relabelling = Literal["task", "hindsight", "hierarchical", "contrastive", "actionable", "actionable_ahead"]
"""How transitions can be relabelled for an algorithm (`training.recipe`)."""
_PRETRAINED = ("encoder.", "actor.", "critic.hidden.", "critic.norms.")
"""What another algorithm can start from. Never a critic's output layer: it is a logit in one, a return in another."""


@dataclass(frozen=True)
class AlgorithmConfig:
    """What every algorithm has to know."""

    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    layer_norm: bool = False
    """Normalise the hidden layers of critics and values, not those of actors, as OGBench's agents do."""
    encoder: PictureConfig = field(default_factory=PictureConfig)
    """How pictures are seen, where there are any."""
    representation: RepresentationConfig = field(default_factory=RepresentationConfig)
    """What the encoder of pictures learns beside."""

    def __post_init__(self) -> None:
        """Raises `FlywheelError` for a number that makes no sense; subclasses add what else they refuse."""
        for setting in fields(self):
            value, name = getattr(self, setting.name), setting.name.replace("_", "-")
            if isinstance(value, float) and not math.isfinite(value):
                raise FlywheelError(f"{name} must be a finite number, for example {setting.default}, not {value}.")
            if isinstance(setting.default, float) and value < 0.0:  # a rate, a weight or a scale
                raise FlywheelError(f"{name} must be at least 0, for example {setting.default}, not {value}.")
            if setting.name == "target_rate" and not 0.0 < value <= 1.0:
                raise FlywheelError(f"{name} must lie in (0, 1], for example {setting.default}, not {value}.")

    @property
    def tells_successes(self) -> bool:
        """Whether it takes what led to a return above 0 for a success."""
        return False

    @property
    def actor_layers(self) -> Layers:
        """The hidden layers of every actor."""
        return Layers(self.hidden, self.activation)

    @property
    def critic_layers(self) -> Layers:
        """The hidden layers of every critic and value function."""
        return Layers(self.hidden, self.activation, self.layer_norm)


class Algorithm(nn.Module, ABC):
    """Networks with losses, one per network.

    An update is: `losses`, one backward over their sum, one optimizer step over `parameter_groups`, `after_step`. Every
    loss leaves gradients on its own network alone, so one backward serves all. Randomness comes from torch's global
    generator, which the trainer seeds before each update.

    The encoder of pictures is the one network that several losses may train: those of critics and values always, the actor's as
    `PictureConfig.actor` has it. What follows a transition is encoded without gradient, by the same weights (as in DrQ-v2: there
    is no target encoder), and where an actor's loss asks a critic, its gradient ends at the critic's features.
    """

    name: ClassVar[str]
    Config: ClassVar[type[AlgorithmConfig]]
    relabel: ClassVar[Relabelling] = "task"
    """How transitions are to be relabelled for it."""
    needs_returns: ClassVar[bool] = False
    """Whether it needs the returns that the data went on to collect."""
    actor_sees_next: ClassVar[bool] = False
    """Whether its actor compares s with s' by a goal of its own, so that s' must be the next step's observation."""
    values: ClassVar[bool] = True
    """Whether it learns a value or a critic; without one, the actor's loss is all that an encoder of pictures can learn from."""

    actor: nn.Module

    def __init__(self, config: AlgorithmConfig, sizes: Sizes) -> None:
        super().__init__()
        if not config.hidden or min(config.hidden) < 1:
            raise FlywheelError(f"hidden must name at least one width, each at least 1, not {config.hidden}.")
        if sizes.pictures and config.encoder.actor != "shared" and not self.values:
            raise FlywheelError(f"{self.name} learns its actor alone, whose encoder is its own; set encoder.actor to 'shared'.")
        self.encoder: StateEncoder = make_encoder(config.encoder, sizes)
        is_separate = sizes.pictures and config.encoder.actor == "separate"
        self.actor_encoder: StateEncoder | None = make_encoder(config.encoder, sizes) if is_separate else None
        self._actor_is_detached = config.encoder.actor == "detached"
        self.representation = self._make_representation(
            config.representation, config.encoder.bottleneck if sizes.pictures else 0.0
        )
        self.action_dim = sizes.action
        self._metrics: dict[str, Tensor] = {}

    def _make_representation(self, config: RepresentationConfig, bottleneck: float) -> Representation | None:
        if config.is_off and not bottleneck:
            return None
        if not isinstance(self.encoder, CameraEncoder):
            raise FlywheelError("A representation of pictures needs pictures; name cameras (--data.pictures).")
        return Representation(config, self.encoder, bottleneck)

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """One scalar per network, by name."""

    def all_losses(self, batch: Batch) -> dict[str, Tensor]:
        """`losses`, and those of the representation where there are any: what training takes the gradients of."""
        if self.representation is None:
            return self.losses(batch)
        assert isinstance(self.encoder, CameraEncoder)
        beside = self.representation.losses(self.encoder, batch)
        return self.losses(batch) | beside

    @abstractmethod
    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """Actions (B, A) in [-1, 1] for observations (B, ...); the same ones again if deterministic."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """The trainable parameters, each once, as an optimizer's groups: ``params`` and ``lr``."""

    def after_step(self) -> None:
        """What follows an optimizer step: target networks move."""

    def metrics(self) -> dict[str, Tensor]:
        """Detached scalar diagnostics of the last `losses`."""
        return self._metrics

    @property
    def encoders(self) -> tuple[nn.Module | None, ...]:
        """The encoder with what it learns beside, and the actor's own where it has one: of `parameter_groups`."""
        return self.encoder, self.representation, self.actor_encoder

    def set_statistics(self, mean: Any, std: Any) -> None:
        """Normalise states by (state - mean) / std, each (D,), array or tensor."""
        for encoder in (self.encoder, self.actor_encoder):
            if encoder is not None:
                encoder.set_statistics(torch.as_tensor(mean), torch.as_tensor(std))

    def set_language(self, embedding: Any) -> None:
        """Say each task by its row of (tasks, L), array or tensor."""
        for encoder in (self.encoder, self.actor_encoder):
            if encoder is not None:
                encoder.set_language(torch.as_tensor(embedding))

    def go_on_from(self, other: Algorithm) -> None:
        """Take all weights of one of the same algorithm; raises `RuntimeError` where it has other networks."""
        self.load_state_dict(other.state_dict())

    def load_pretrained(self, state: Mapping[str, Tensor]) -> list[str]:
        """Take what fits, by name and shape, of another algorithm's `state_dict`: statistics, actor, the critic's hidden layers.

        Layers are taken whole. The critics' output layers start at zero: a random one on trained features makes large random
        advantages, which IQL's exponential weights turn into an actor that forgets. Target networks are set to the online ones.
        Returns the names that were taken; none, and nothing is changed, if not even the actor's first layer fits.
        """
        own = self.state_dict()
        fits = {name: name in own and own[name].shape == tensor.shape for name, tensor in state.items()}
        misfits = {_layer_of(name) for name, fit in fits.items() if not fit}
        taken = [name for name in state if name.startswith(_PRETRAINED) and _layer_of(name) not in misfits]
        if "actor.hidden.layers.0.weight" not in taken:
            return []
        self.load_state_dict({**own, **{name: state[name] for name in taken}})
        for network in self.children():
            if isinstance(network, Ensemble | ValueFunction):
                network.zero_output()
        self.synchronise_targets()
        return sorted(taken)

    def acting_state(self) -> Mapping[str, Tensor]:
        """The state from which another algorithm starts: that in which the actor has the weights that act."""
        return self.state_dict()

    def synchronise_targets(self) -> None:
        """Set every target network to its online network; for algorithms that have one."""

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The features of s and of s', each (B, F); those of s' without gradient."""
        features = self.encoder(batch.observation, batch.goal)
        with torch.no_grad():
            return features, self.encoder(batch.next_observation, batch.goal)

    def actor_features(
        self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, features: Tensor | None = None
    ) -> Tensor:
        """What the actor sees, (B, F); `features` are the critic's of the same, where they are known already."""
        if self.actor_encoder is not None:
            seen: Tensor = self.actor_encoder(observation, goal)
            return seen
        if self._actor_is_detached:
            with torch.no_grad():
                return self.encoder(observation, goal) if features is None else features.detach()
        return self.encoder(observation, goal) if features is None else features


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def group(learning_rate: float, *modules: nn.Module | nn.Parameter | None) -> dict[str, Any]:
    """One entry of `parameter_groups`, of those that are learned; None stands for a network that there is not."""
    found = [item for item in modules if item is not None]
    params = [p for item in found for p in (item.parameters() if isinstance(item, nn.Module) else [item])]
    return {"params": [p for p in params if p.requires_grad], "lr": learning_rate}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through the module and leave nothing on its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
