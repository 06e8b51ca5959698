"""Hierarchical implicit Q-learning (Park, Ghosh, Eysenbach, Levine 2023; arXiv 2307.11949), as OGBench has it.

    L_V    = GCIVL's, of V_k(s, phi(s, g))
    L_low  = -E[ min(exp(alpha (V(s', w) - V(s, w))), 100) log pi(a|s, phi(s, w)) ],  w = s_{t+k}
    L_high = -E[ min(exp(alpha (V(w', g) - V(s, g))), 100) log pi_h(phi(s, w')|s, g) ],  w' = s_{t+k}, or g if that comes sooner

phi is a representation of the goal as seen from s, on a sphere of radius sqrt(d); it is learned with the value alone, and the
target value sees the same one. The higher actor proposes one, the lower goes there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import weighted_imitation
from flywheel.algorithms._goal import GoalAgent, GoalConfig
from flywheel.algorithms.base import Sizes, frozen, group
from flywheel.algorithms.gcivl import implicit_value_loss
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import UnitGaussianActor
from flywheel.networks.critics import Ensemble
from flywheel.networks.initialise import glorot
from flywheel.networks.mlp import MLP, Layers
from flywheel.networks.pictures import PictureConfig


@dataclass(frozen=True)
class HIQLConfig(GoalConfig):
    """Settings of hierarchical implicit Q-learning."""

    expectile: float = 0.7
    """tau in (0.5, 1): how close V comes to the best next state's value in the data."""
    high_alpha: float = 3.0
    """The inverse temperature of the higher actor's weights."""
    low_alpha: float = 3.0
    """The inverse temperature of the lower actor's weights."""
    representation_dim: int = 10
    """d: the length of a goal's representation."""
    target_rate: float = 0.005
    """How far the target value moves towards the value at each update."""
    encoder: PictureConfig = field(default_factory=lambda: PictureConfig(goal="shared"))
    """How pictures are seen, where there are any: goals by themselves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.expectile < 1.0:
            raise FlywheelError(f"The expectile must lie between 0 and 1 (0.7 is usual), not {self.expectile}.")
        if self.representation_dim < 1:
            raise FlywheelError(f"representation-dim must be at least 1, not {self.representation_dim}.")


class Projector(nn.Module):
    """Features (B, F) -> a point (B, d), on the sphere of radius sqrt(d) once it is normalised."""

    def __init__(self, feature_dim: int, layers: Layers, representation_dim: int) -> None:
        super().__init__()
        self.hidden = MLP(feature_dim, layers)
        self.output = nn.Linear(layers.width, representation_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, d), not normalised."""
        point: Tensor = self.output(self.hidden(features))
        return point


class GoalValue(nn.Module):
    """V_k(s, phi(s, g)): what is seen now (B, F) with the goal beside it, (B, F + D) -> (K, B)."""

    def __init__(self, now_dim: int, feature_dim: int, layers: Layers, representation_dim: int) -> None:
        super().__init__()
        self.now_dim = now_dim
        self.phi = Projector(feature_dim, layers, representation_dim)
        self.ensemble = Ensemble(now_dim + representation_dim, layers, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F + D) -> (K, B)."""
        value: Tensor = self.ensemble(self.see(features)).squeeze(-1)
        return value

    def see(self, features: Tensor) -> Tensor:
        """What is seen now, and the goal as it is seen from there: (B, F + D) -> (B, F + d)."""
        return torch.cat([features[:, : self.now_dim], self.represent(features)], dim=-1)

    def represent(self, features: Tensor) -> Tensor:
        """phi(s, g): (B, F + D) -> (B, d), of length sqrt(d)."""
        return _on_sphere(self.phi(features))


class HIQL(GoalAgent):
    """Two expectile values, a higher actor that proposes where to go next, and a lower one that goes there."""

    name = "hiql"
    Config = HIQLConfig
    actor_sees_next = True
    relabel = "hierarchical"

    def __init__(self, config: HIQLConfig, sizes: Sizes) -> None:
        self._representation_dim = config.representation_dim
        super().__init__(config, sizes)
        self.see_goals_apart()
        if self.actor_encoder is not None:
            raise FlywheelError("HIQL's actors see goals as the value does; set encoder.actor to 'shared' or 'detached'.")
        self.config = config
        features, dim = self.encoder.feature_dim, config.representation_dim
        self.value = glorot(GoalValue(self.encoder.now_dim, features, config.critic_layers, dim))
        self.target_value = nn.ModuleDict({"ensemble": copy.deepcopy(self.value.ensemble)}).requires_grad_(False)
        self.high_actor = UnitGaussianActor(features, dim, config.actor_layers)
        self.average_high_actor = copy.deepcopy(self.high_actor).requires_grad_(False)

    @property
    def actor_dim(self) -> int:
        """The lower actor sees a goal's representation in its place."""
        return self.encoder.now_dim + self._representation_dim

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations; raises `FlywheelError` for a batch without subgoals."""
        if batch.low_actor_goal is None or batch.high_actor_target is None or batch.actor_goal is None:
            raise FlywheelError("HIQL needs subgoals in the batch; use the relabelling 'hierarchical'.")
        features, next_features = self.features(batch)
        seen = self.value.see(features)
        value = self.value.ensemble(seen).squeeze(-1)
        with torch.no_grad():  # the target has no phi of its own
            targets = self.target_value["ensemble"](torch.cat([seen, self.value.see(next_features)]))
        here, following = targets.squeeze(-1).chunk(2, dim=1)
        loss, advantage = implicit_value_loss(batch, value, here, following, self.config.expectile)
        self._metrics = {"value": value.detach().mean(), "advantage": advantage.mean()}
        return {"value": loss, "actor": self._low_loss(batch), "high_actor": self._high_loss(batch)}

    def _low_loss(self, batch: Batch) -> Tensor:
        features = self.actor_features(batch.observation, batch.low_actor_goal)
        advantage = self._progress(features, batch.next_observation, batch.low_actor_goal)
        with frozen(self.value):  # of pictures the lower actor's loss trains the encoder too, as OGBench's has to
            mean, log_std = self.actor(self.value.see(features))
        return weighted_imitation(ops.gaussian_log_prob(mean, log_std, batch.action), advantage, self.config.low_alpha)

    def _high_loss(self, batch: Batch) -> Tensor:
        assert batch.high_actor_target is not None
        features = self.actor_features(batch.observation, batch.actor_goal)
        ahead = {**batch.observation, **batch.high_actor_target}  # of the same task
        advantage = self._progress(features, ahead, batch.actor_goal)
        with torch.no_grad():
            target = self.value.represent(self.encoder(batch.observation, batch.high_actor_target))
        mean, log_std = self.high_actor(features)
        return weighted_imitation(ops.gaussian_log_prob(mean, log_std, target), advantage, self.config.high_alpha)

    @torch.no_grad()
    def _progress(self, features: Tensor, later: dict[str, Tensor], goal: dict[str, Tensor] | None) -> Tensor:
        """V(later) - V(now), (B,), the mean over the members, of what is seen now."""
        both = torch.cat([features, self.encoder(later, goal)])
        here, there = self.value(both).mean(dim=0).chunk(2)
        progress: Tensor = there - here
        return progress

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The lower actor's mean on the way to the higher one's, or a sample on the way to a sample, clipped to [-1, 1]."""
        features = self.encoder(observation, goal)
        mean, log_std = (self.average_high_actor if self._average_rate else self.high_actor)(features)
        waypoint = _on_sphere(mean if deterministic else torch.normal(mean, log_std.exp()))
        mean, log_std = self.acting(torch.cat([features[:, : self.encoder.now_dim], waypoint], dim=-1))
        return ops.gaussian_action(mean, log_std, deterministic)

    def acting_state(self) -> Mapping[str, Tensor]:
        """The state without the lower actor, which sees a waypoint where others see the goal."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("actor.")}

    def _averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """Both actors'."""
        return [*super()._averages(), (self.average_high_actor, self.high_actor)]

    def after_step(self) -> None:
        """Move the target value and the average actors."""
        super().after_step()
        ops.soft_update(self.target_value.parameters(), self.value.ensemble.parameters(), self.config.target_rate)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All networks at one rate."""
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.high_actor, self.value)]

    def synchronise_targets(self) -> None:
        """Set the target value to the value, the average actors to the actors."""
        super().synchronise_targets()
        self.target_value["ensemble"].load_state_dict(self.value.ensemble.state_dict())


def _on_sphere(point: Tensor) -> Tensor:
    """(B, d) -> (B, d) of length sqrt(d)."""
    return nn.functional.normalize(point, dim=-1) * math.sqrt(point.shape[-1])
