"""What the goal-conditioned agents of OGBench share (Park, Frans, Eysenbach, Levine 2024; arXiv 2410.20092)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flywheel.algorithms._gaussian import GaussianPolicy, GaussianPolicyConfig
from flywheel.algorithms.base import Relabelling, Sizes
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import UnitGaussianActor
from flywheel.networks.mlp import Activation


@dataclass(frozen=True)
class GoalConfig(GaussianPolicyConfig):
    """Settings of a goal-conditioned agent; the defaults are OGBench's."""

    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths of the hidden layers of every network."""
    activation: Activation = "gelu"
    """What follows each hidden layer."""
    layer_norm: bool = True
    """Normalise the hidden layers of critics and values, not those of actors."""
    learning_rate: float = 3e-4
    """Adam's step size, for all networks."""


class GoalAgent(GaussianPolicy):
    """A Gaussian policy that reaches goals."""

    Actor = UnitGaussianActor
    relabel: ClassVar[Relabelling] = "hindsight"

    def __init__(self, config: GoalConfig, sizes: Sizes) -> None:
        """Raises `FlywheelError` unless there are goals."""
        super().__init__(config, sizes)
        if not sizes.goal_conditioned:
            raise FlywheelError(f"{self.name} learns to reach goals; use the relabelling '{self.relabel}'.")

    def see_goals_apart(self) -> None:
        """Raises `FlywheelError` where the goal's picture is seen as part of the picture of now."""
        if not self.encoder.goal_dim:
            raise FlywheelError(f"{self.name} looks at the goal by itself; set encoder.goal to 'shared' or 'separate'.")

    def aimed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The features (B, F) of s and the goal that the actor is trained for: the actor's, and the critic's without gradient."""
        seen = self.actor_features(batch.observation, batch.goal_of_actor)
        if self.actor_encoder is None:
            return seen, seen.detach()
        with torch.no_grad():
            return seen, self.encoder(batch.observation, batch.goal_of_actor)
