"""What every algorithm is: networks and losses. No optimizer, no logger, no device, no data source."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Ensemble, ValueFunction
from flywheel.networks.encoders import StateEncoder
from flywheel.networks.mlp import Activation, Layers

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


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the networks see and give."""

    state: int
    """The length D of the state vector."""
    action: int
    """The length A of an action."""
    goal_conditioned: bool = False
    tasks: int = 0
    """How many tasks ``observation["task"]`` (B,) tells apart; 0 if there is nothing to tell."""


class Algorithm(nn.Module, ABC):
    """Networks with losses, one per network.

    An update is: `losses`, one backward over their sum, one optimizer step over `parameter_groups`, `after_step`. Every
    loss leaves gradients on its own network alone, so one backward serves all. Randomness comes from torch's global
    generator, which the trainer seeds before each update.
    """

    name: ClassVar[str]
    Config: ClassVar[type[AlgorithmConfig]]
    relabel: ClassVar[Relabelling] = "task"
    """How transitions are to be relabelled for it."""
    needs_returns: ClassVar[bool] = False
    """Whether it needs the returns that the data went on to collect."""
    actor_sees_next: ClassVar[bool] = False
    """Whether its actor compares s with s' by a goal of its own, so that s' must be the next step's observation."""

    actor: nn.Module

    def __init__(self, config: AlgorithmConfig, sizes: Sizes) -> None:
        super().__init__()
        if not config.hidden or min(config.hidden) < 1:
            raise FlywheelError(f"hidden must name at least one width, each at least 1, not {config.hidden}.")
        self.encoder = StateEncoder(sizes.state, sizes.goal_conditioned, sizes.tasks)
        self.action_dim = sizes.action
        self._metrics: dict[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """One scalar per network, by name."""

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

    def set_statistics(self, mean: Any, std: Any) -> None:
        """Normalise states by (state - mean) / std, each (D,), array or tensor."""
        self.encoder.set_statistics(torch.as_tensor(mean), torch.as_tensor(std))

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
        """The features of s and of s', each (B, F)."""
        return self.encoder(batch.observation, batch.goal), self.encoder(batch.next_observation, batch.goal)


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def group(learning_rate: float, *modules: nn.Module | nn.Parameter) -> dict[str, Any]:
    """One entry of `parameter_groups`."""
    params = [p for item in modules for p in (item.parameters() if isinstance(item, nn.Module) else [item])]
    return {"params": params, "lr": learning_rate}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through the module and leave nothing on its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
