"""Conservative Q-learning for discrete actions (Kumar, Zhou, Tucker, Levine 2020; arXiv 2006.04779) on double Q-learning.

    y   = r + gamma min_k Qbar_k(s', argmax_a min_k Q_k(s', a))
    L_Q = (Q_k(s, a) - y)^2 + w (log sum_a exp Q_k(s, a) - Q_k(s, a))

One of A actions is written as a vector (A,), the largest entry of which says which one it is; it acts with 1 there, 0 elsewhere.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes, group
from flywheel.core.batch import Batch
from flywheel.networks.critics import Ensemble


@dataclass(frozen=True)
class DiscreteCQLConfig(AlgorithmConfig):
    """Settings of discrete conservative Q-learning."""

    conservative_weight: float = 1.0
    """w: how strongly values of actions outside the data are pushed down."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    target_rate: float = 0.005
    """How far the target critics move towards the critics at each update."""


class DiscreteCQL(Algorithm):
    """Twin critics of all actions at once; the log-sum-exp is exact."""

    name = "discrete_cql"
    Config = DiscreteCQLConfig

    def __init__(self, config: DiscreteCQLConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.critic = Ensemble(self.encoder.feature_dim, config.critic_layers, sizes.action)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        features, next_features = self.features(batch)
        with torch.no_grad():
            best = self.critic(next_features).amin(dim=0).argmax(dim=1)
            next_value = _of(self.target_critic(next_features), best).amin(dim=0)
        values = self.critic(features)
        q = _of(values, batch.action.argmax(dim=1))
        gap = (values.logsumexp(dim=-1) - q).mean(dim=1).sum()
        self._metrics = {"q": q.detach().mean(), "conservative_gap": gap.detach() / self.critic.members}
        td_loss = ops.squared_td_loss(q, ops.td_target(batch.reward, batch.discount, next_value))
        return {"critic": td_loss + self.config.conservative_weight * gap}

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The best action, or one drawn by softmax of the values, as one-hot (B, A)."""
        values = self.critic(self.encoder(observation, goal)).amin(dim=0)
        chosen = values.argmax(dim=1) if deterministic else torch.multinomial(values.softmax(dim=1), 1).squeeze(1)
        return nn.functional.one_hot(chosen, self.action_dim).to(values.dtype)

    def after_step(self) -> None:
        """Move the target critics."""
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The critics."""
        return [group(self.config.learning_rate, *self.encoders, self.critic)]

    def synchronise_targets(self) -> None:
        """Set the target critics to the critics."""
        self.target_critic.load_state_dict(self.critic.state_dict())


def _of(values: Tensor, action: Tensor) -> Tensor:
    """The values (K, B, A) of one action per row (B,): (K, B)."""
    index = action.view(1, -1, 1).expand(len(values), -1, 1)
    return values.gather(2, index).squeeze(2)
