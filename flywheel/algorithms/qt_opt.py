"""QT-Opt (Kalashnikov et al. 2018; arXiv 1806.10293): Q-learning without an actor, for rewards of 0 and 1.

    y   = r + gamma min(Qbar_1, Qbar_2)(s', a*),  a* = argmax_CEM Qbar_1(s', .)
    L_Q = BCE(Q(s, a), y)

Q = sigmoid(logit) is the discounted probability of success. Qbar_1 is an exponential average of Q, Qbar_2 an older copy of that.
Differences from the published system: Adam instead of momentum, and no distributed collection.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms._cem import Found, cross_entropy_method, fixed_noise
from flywheel.algorithms._turn import Turn
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Critic

_INITIAL_LOGIT = -2.0
"""A probability of 0.12: nothing succeeds until the data says so."""


@dataclass(frozen=True)
class QTOptConfig(AlgorithmConfig):
    """Settings of QT-Opt."""

    cem_iterations: int = 2
    """Rounds of the cross-entropy method, while learning and acting."""
    cem_samples: int = 64
    """Candidates per round."""
    cem_elites: int = 6
    """The best candidates, to which the Gaussian is fitted."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    target_rate: float = 0.005
    """How far Qbar_1 moves towards Q at each update (the paper's 1e-4 is for 15 million updates)."""
    lag: int = 1_000
    """Updates after which Qbar_2 becomes Qbar_1 as it is then, and a batch's rewards are looked at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.cem_elites <= self.cem_samples:
            raise FlywheelError(f"cem-elites must lie between 2 and cem-samples ({self.cem_samples}), not be {self.cem_elites}.")
        if min(self.cem_iterations, self.lag) < 1:
            raise FlywheelError("cem-iterations and lag must be at least 1.")


class QTOpt(Algorithm):
    """One critic, searched by the cross-entropy method."""

    name = "qt_opt"
    Config = QTOptConfig
    _cem_noise: Tensor

    def __init__(self, config: QTOptConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.critic = Critic(self.encoder.feature_dim, sizes.action, config.critic_layers, members=1)
        nn.init.constant_(self.critic.output.bias, _INITIAL_LOGIT)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.lagged_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.renewal = Turn(interval=config.lag)
        noise = fixed_noise(config.cem_iterations, config.cem_samples, sizes.action)
        self.register_buffer("_cem_noise", noise, persistent=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross entropy of the module's equations; raises `FlywheelError` for rewards outside [0, 1].

        It looks for these now and then, from the first update on: on a GPU each look is waited for.
        """
        if self.renewal.is_on:
            _refuse_other_rewards(batch.reward)
        features, next_features = self.features(batch)
        with torch.no_grad():
            action = self._search(self.target_critic, next_features, self._random_rounds(len(batch))).best
            both = torch.cat([critic(next_features, action) for critic in (self.target_critic, self.lagged_critic)])
            target = ops.td_target(batch.reward, batch.discount, torch.sigmoid(both.amin(dim=0))).clamp(0.0, 1.0)
        logit = self.critic(features, batch.action).squeeze(0)
        self._metrics = {"q": torch.sigmoid(logit.detach()).mean(), "target": target.mean()}
        return {"critic": nn.functional.binary_cross_entropy_with_logits(logit, target)}

    def _search(self, critic: Critic, features: Tensor, rounds: Iterator[Tensor] | Tensor) -> Found:
        mean = features.new_zeros(len(features), self.action_dim)
        return cross_entropy_method(
            lambda candidates: critic.many(features, candidates).squeeze(0),
            mean,
            torch.ones_like(mean),
            rounds,
            self.config.cem_elites,
        )

    def _random_rounds(self, rows: int) -> Iterator[Tensor]:
        shape = (rows, self.config.cem_samples, self.action_dim)
        return (torch.randn(shape, device=self._cem_noise.device) for _ in range(self.config.cem_iterations))

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The best candidate of the last round, with the same candidates each time; or a sample of the last Gaussian."""
        features = self.encoder(observation, goal)
        found = self._search(self.critic, features, self._cem_noise if deterministic else self._random_rounds(len(features)))
        if deterministic:
            return found.best
        return ops.gaussian_action(found.mean, found.std.clamp(min=1e-6).log(), deterministic=False)

    def after_step(self) -> None:
        """Move Qbar_1, and now and then Qbar_2."""
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)
        if self.renewal.is_on:
            self.lagged_critic.load_state_dict(self.target_critic.state_dict())
        self.renewal.advance()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The critic."""
        return [group(self.config.learning_rate, *self.encoders, self.critic)]

    def synchronise_targets(self) -> None:
        """Set Qbar_1 and Qbar_2 to Q."""
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.lagged_critic.load_state_dict(self.critic.state_dict())


def _refuse_other_rewards(reward: Tensor) -> None:
    if float(reward.min()) < 0.0 or float(reward.max()) > 1.0:
        raise FlywheelError("QT-Opt learns probabilities of success and needs rewards in [0, 1]; use another algorithm.")
