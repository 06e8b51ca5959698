"""Goal-conditioned behaviour cloning (Lynch et al. 2019; Ghosh et al. 2019, GCSL), with OGBench's settings.

L_pi = -E_D[ log pi(a|s, g) ],  g an observation that comes later in the same episode
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flywheel.algorithms import ops
from flywheel.algorithms._goal import GoalAgent, GoalConfig
from flywheel.algorithms.base import Sizes, group
from flywheel.core.batch import Batch


@dataclass(frozen=True)
class GCBCConfig(GoalConfig):
    """Settings of goal-conditioned behaviour cloning."""


class GCBC(GoalAgent):
    """Maximum likelihood of the actions that led to a goal."""

    name = "gcbc"
    Config = GCBCConfig
    values = False

    def __init__(self, config: GCBCConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean negative log likelihood of the data's actions."""
        mean, log_std = self.actor(self.actor_features(batch.observation, batch.goal_of_actor))
        self._metrics = {"squared_error": (mean - batch.action).detach().square().mean()}
        return {"actor": -ops.gaussian_log_prob(mean, log_std, batch.action).mean()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The actor."""
        return [group(self.config.learning_rate, *self.encoders, self.actor)]
