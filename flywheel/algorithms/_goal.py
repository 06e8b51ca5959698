"""What the goal-conditioned agents of OGBench share (Park, Frans, Eysenbach, Levine 2024; arXiv 2410.20092)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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

    def __init__(self, config: GoalConfig, sizes: Sizes, actor_features: int | None = None) -> None:
        """Raises `FlywheelError` unless there are goals."""
        super().__init__(config, sizes, actor_features)
        if not sizes.goal_conditioned:
            raise FlywheelError(f"{self.name} learns to reach goals; use the relabelling '{self.relabel}'.")

    def actor_features(self, batch: Batch) -> Tensor:
        """The features (B, F) of s and the goal that the actor is trained for."""
        features: Tensor = self.encoder(batch.observation, batch.goal_of_actor)
        return features
