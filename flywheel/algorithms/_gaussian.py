"""What BC, IQL, Actionable Models and OGBench's agents share: a Gaussian actor, how it follows a value, its average that acts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import GaussianActor, UnitGaussianActor
from flywheel.networks.mlp import Layers

ActorLoss = Literal["awr", "ddpgbc"]
"""Imitation weighted by the advantage, or the critic's gradient beside imitation."""


@dataclass(frozen=True)
class GaussianPolicyConfig(AlgorithmConfig):
    """Settings of the actor."""

    actor_dropout: float = 0.0
    """Dropout in the actor while it learns: 0.1 where episodes are few, as the official IQL has it for Adroit and Kitchen."""
    average_rate: float = 0.0
    """How far the weights that act, an exponential average of the actor's, move at each update (0.002 evens out what the last
    batches did); 0 acts with the actor itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.actor_dropout < 1.0 or not 0.0 <= self.average_rate <= 1.0:
            raise FlywheelError("actor-dropout must lie in [0, 1) and average-rate in [0, 1].")

    @property
    def actor_layers(self) -> Layers:
        """With the dropout."""
        return replace(super().actor_layers, dropout=self.actor_dropout)


class GaussianPolicy(Algorithm):
    """An algorithm whose policy is a Gaussian."""

    Actor: ClassVar[type[GaussianActor | UnitGaussianActor]] = GaussianActor
    actor: nn.Module
    average_actor: nn.Module

    def __init__(self, config: GaussianPolicyConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self._average_rate = config.average_rate
        self.actor = self.Actor(self.actor_dim, sizes.action, config.actor_layers)
        self.average_actor = copy.deepcopy(self.actor).requires_grad_(False)

    @property
    def actor_dim(self) -> int:
        """The length of what the actor sees."""
        return self.encoder.feature_dim

    @property
    def acting(self) -> nn.Module:
        """The actor whose weights act."""
        return self.average_actor if self._average_rate else self.actor

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The mean, or a sample, clipped to [-1, 1]."""
        mean, log_std = self.acting(self.actor_features(observation, goal))
        return ops.gaussian_action(mean, log_std, deterministic)

    def after_step(self) -> None:
        """Keep the deviation in its range, and move the average."""
        if isinstance(self.actor, GaussianActor):
            self.actor.keep_in_range()
        if self._average_rate:
            for average, actor in self._averages():
                ops.soft_update(average.parameters(), actor.parameters(), self._average_rate)

    def synchronise_targets(self) -> None:
        """Set the average to the actor."""
        for average, actor in self._averages():
            average.load_state_dict(actor.state_dict())

    def go_on_from(self, other: Algorithm) -> None:
        """Take all weights; an average that never moved is none, so it begins with the actor."""
        super().go_on_from(other)
        if self._average_rate and isinstance(other, GaussianPolicy) and not other._average_rate:
            GaussianPolicy.synchronise_targets(self)

    def _averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """Every average with the actor that it follows."""
        return [(self.average_actor, self.actor)]

    def acting_state(self) -> Mapping[str, Tensor]:
        """The state, with the acting weights as the actor's."""
        acting = {f"actor.{name}": tensor for name, tensor in self.acting.state_dict().items()}
        return {**self.state_dict(), **acting}


def weighted_imitation(log_prob: Tensor, advantage: Tensor, inverse_temperature: float) -> Tensor:
    """The actor's loss by advantage-weighted regression, -E[min(exp(alpha A), 100) log pi(a|s)], both (B,)."""
    weights = ops.advantage_weights(advantage, inverse_temperature)
    return -(weights * log_prob).mean()


def ascent_with_imitation(value: Tensor, log_prob: Tensor, imitation_weight: float) -> Tensor:
    """The actor's loss by DDPG+BC, -E[Q(s, pi(s))] / E[|Q|] - alpha E[log pi(a|s)], both (B,) (Park et al. 2024, eq. 3)."""
    return -value.mean() / value.detach().abs().mean().clamp(min=1e-6) - imitation_weight * log_prob.mean()
