"""Conservative Q-learning, CQL(H) (Kumar, Zhou, Tucker, Levine 2020; arXiv 2006.04779), on soft actor-critic.

    L_Q     = (Q_k(s, a) - y)^2 + w (log sum_i exp(Q_k(s, a_i) - log mu(a_i)) - Q_k(s, a))   (eq. 4, appendix F)
    y       = r + gamma min_k Qbar_k(s', a'),  a' ~ pi(.|s')  (deterministic backup; or the best of N such actions)
    L_pi    = alpha log pi(a~|s) - min_k Q_k(s, a~),  a~ ~ pi(.|s)  (during the warm-up log pi(a|s) stands for min_k Q_k(s, a~))
    L_alpha = -alpha (log pi(a~|s) - A)                                                       (target entropy -A)

The a_i are N uniform actions, N of pi(.|s) and N of pi(.|s'); the latter are evaluated at s with their density at s', as in the
reference. CQL(rho) leaves the densities out. No gradient reaches the actor through these actions. The Lagrange
form, which is on by default in the reference's command line but off in its recommendations, is off unless
`lagrange_threshold` is given.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms._conservative import sum_of_logsumexp
from flywheel.algorithms._turn import Turn
from flywheel.algorithms.base import Algorithm, AlgorithmConfig, Sizes, frozen, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.actors import TanhGaussianActor
from flywheel.networks.critics import Critic

_LARGEST_LOG_MULTIPLIER = math.log(1e6)
Policy = tuple[Tensor, Tensor]
"""Mean and log-std before the tanh, each (B, A)."""


@dataclass(frozen=True)
class CQLConfig(AlgorithmConfig):
    """Settings of conservative Q-learning."""

    conservative_weight: float = 5.0
    """w: how strongly values of actions outside the data are pushed down."""
    n_actions: int = 10
    """N: uniform actions, actions of pi(.|s) and of pi(.|s'), each so many per state."""
    actor_learning_rate: float = 1e-4
    """Adam's step size for the actor and the entropy temperature."""
    critic_learning_rate: float = 3e-4
    """Adam's step size for the critics (and the Lagrange multiplier, where there is one)."""
    target_rate: float = 0.005
    """How far the target critics move towards the critics at each update."""
    importance_sampling: bool = True
    """CQL(H): subtract the actions' log densities in the log-sum-exp; without it is CQL(rho)."""
    max_target_backup: bool = False
    """Bootstrap from the best of N actions of pi(.|s') instead of from one."""
    warm_up: int = 0
    """Updates for which the actor clones the data; the official code takes 40,000. A policy that leaves the data before values
    are known bootstraps from actions that are pushed down, and all values sink."""
    lagrange_threshold: float | None = None
    """Tune w's multiplier by dual ascent until the conservative term is this large; off by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_actions < 1 or self.warm_up < 0:
            raise FlywheelError("n-actions must be at least 1 and warm-up at least 0.")


class CQL(Algorithm):
    """Conservative Q-learning with an importance-sampled log-sum-exp and a tuned entropy temperature."""

    name = "cql"
    Config = CQLConfig

    def __init__(self, config: CQLConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        self.config = config
        self.actor = TanhGaussianActor(self.encoder.feature_dim, sizes.action, config.actor_layers)
        self.critic = Critic(self.encoder.feature_dim, sizes.action, config.critic_layers)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        if config.warm_up:
            self.ascent = Turn(first=config.warm_up)
        if config.lagrange_threshold is not None:
            self.log_multiplier = nn.Parameter(torch.zeros(()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations."""
        features, next_features = self.features(batch)
        policy: Policy = self.actor(self.actor_features(batch.observation, batch.goal, features))
        with torch.no_grad():
            next_policy: Policy = self.actor(self.actor_features(batch.next_observation, batch.goal, next_features))
            next_value = self._next_value(next_features, next_policy)
            actions, log_density = self._proposals(policy, next_policy)
        q = self.critic(features, batch.action)
        pushed_down = sum_of_logsumexp(self.critic, features, actions, log_density, self._floor(batch))
        gap = pushed_down / len(features) - q.mean(dim=1).sum()
        td_loss = ops.squared_td_loss(q, ops.td_target(batch.reward, batch.discount, next_value))
        self._metrics = {"q": q.detach().mean(), "conservative_gap": gap.detach() / self.critic.members}
        gap = self.config.conservative_weight * gap
        return self._critic_losses(td_loss, gap) | self._actor_losses(features, policy, batch.action)

    def _floor(self, batch: Batch) -> Tensor | None:
        """Below which an action's value is not pushed down, (B, 3 N); none here (`cal_ql` has one)."""
        return None

    def _next_value(self, next_features: Tensor, next_policy: Policy) -> Tensor:
        """min_k Qbar_k(s', a') of one action of the policy, or of the best of N: (B,)."""
        count = self.config.n_actions if self.config.max_target_backup else 1
        actions = ops.sample_tanh_gaussian(*next_policy, count)[0]
        return self.target_critic.many(next_features, actions).amin(dim=0).amax(dim=1)

    def _critic_losses(self, td_loss: Tensor, conservative: Tensor) -> dict[str, Tensor]:
        threshold = self.config.lagrange_threshold
        if threshold is None:
            return {"critic": td_loss + conservative}
        multiplier = self.log_multiplier.exp()
        excess = conservative - threshold * self.critic.members
        return {"critic": td_loss + multiplier.detach() * excess, "multiplier": -multiplier * excess.detach()}

    def _actor_losses(self, features: Tensor, policy: Policy, data: Tensor) -> dict[str, Tensor]:
        action, log_prob = (sample.squeeze(1) for sample in ops.sample_tanh_gaussian(*policy, 1))
        if self.config.warm_up and not self.ascent.is_on:
            gain = ops.tanh_gaussian_log_density(*policy, data)
        else:
            with frozen(self.critic):
                gain = self.critic(features.detach(), action).amin(dim=0)
        temperature = self.log_temperature.exp()
        entropy_error = (log_prob.detach() - self.action_dim).mean()
        self._metrics |= {"entropy": -log_prob.detach().mean(), "temperature": temperature.detach()}
        return {
            "actor": (temperature.detach() * log_prob - gain).mean(),
            "temperature": -temperature * entropy_error,
        }

    def _proposals(self, policy: Policy, next_policy: Policy) -> tuple[Tensor, Tensor]:
        """The 3 N actions per state, (B, 3 N, A), and their log densities, (B, 3 N)."""
        rows, count = policy[0].shape[0], self.config.n_actions
        uniform = ops.uniform_actions(rows, count, self.action_dim, policy[0].device)
        current, log_current = ops.sample_tanh_gaussian(*policy, count)
        following, log_following = ops.sample_tanh_gaussian(*next_policy, count)
        log_uniform = torch.full_like(log_current, ops.uniform_log_density(self.action_dim))
        log_density = torch.cat([log_uniform, log_current, log_following], 1)
        return torch.cat([uniform, current, following], 1), log_density * self.config.importance_sampling

    def after_step(self) -> None:
        """Move the target critics, come closer to the end of the warm-up, and keep the multiplier in its range.

        Clamped in the loss, as in the reference, it could never come back.
        """
        if self.config.lagrange_threshold is not None:
            with torch.no_grad():
                self.log_multiplier.clamp_(max=_LARGEST_LOG_MULTIPLIER)
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)
        if self.config.warm_up:
            self.ascent.advance()

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The mean through tanh, or a sample."""
        mean, log_std = self.actor(self.actor_features(observation, goal))
        return torch.tanh(mean) if deterministic else ops.sample_tanh_gaussian(mean, log_std, 1)[0].squeeze(1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The actor's and the critics', with the temperature and the multiplier beside the network whose loss they scale."""
        multiplier = [] if self.config.lagrange_threshold is None else [self.log_multiplier]
        return [
            group(self.config.actor_learning_rate, self.actor_encoder, self.actor, self.log_temperature),
            group(self.config.critic_learning_rate, self.encoder, self.representation, self.critic, *multiplier),
        ]

    def synchronise_targets(self) -> None:
        """Set the target critics to the critics."""
        self.target_critic.load_state_dict(self.critic.state_dict())
