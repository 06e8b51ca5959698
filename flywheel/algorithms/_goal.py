"""What the goal-conditioned agents of OGBench share (Park, Frans, Eysenbach, Levine 2024; arXiv 2410.20092): settings, and how
an actor follows a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._gaussian import GaussianPolicy, GaussianPolicyConfig
from flywheel.algorithms.base import Relabelling, Sizes
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import UnitGaussianActor
from flywheel.networks.mlp import Activation

ActorLoss = Literal["awr", "ddpgbc"]


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
        features: Tensor = self.encoder(batch.observation, batch.goal if batch.actor_goal is None else batch.actor_goal)
        return features


def weighted_imitation(log_prob: Tensor, advantage: Tensor, inverse_temperature: float) -> Tensor:
    """The actor's loss by advantage-weighted regression, -E[min(exp(alpha A), 100) log pi(a|s, g)], both (B,)."""
    weights = ops.advantage_weights(advantage, inverse_temperature)
    return -(weights * log_prob).mean()


def ascent_with_imitation(value: Tensor, log_prob: Tensor, imitation_weight: float) -> Tensor:
    """The actor's loss by DDPG+BC, -E[Q(s, pi(s), g)] / E[|Q|] - alpha E[log pi(a|s, g)], both (B,) (Park et al. 2024, eq. 3)."""
    return -value.mean() / value.detach().abs().mean().clamp(min=1e-6) - imitation_weight * log_prob.mean()
