"""Actionable Models (Chebotar et al. 2021; arXiv 2104.07749): reach any goal of the data, learned without rewards.

    y      = 1 where s' is the goal;  gamma max_a' Qbar(s', a', g) before;  Qbar(s, a, g) at the end of a chained sub-trajectory
    L_Q    = BCE(Q_k(s, a, g), y) + BCE(Q_k(s, a-, g), 0),   a- drawn from N uniform actions by softmax(Q)
    L_pi   = -E[ w log pi(a|s, g) ],   w = min(Qbar(s, a, g) / 0.05, 1), scaled to mean 1

Q = sigmoid(logit) in [0, 1] is the discounted probability of reaching g. The batches come relabelled: hindsight goals of the
same episode, and goals of other episodes (chaining), where only the last step of the sub-trajectory takes its own value as
its target.

Departures from the paper:

* The paper has no actor. Here one proposes the candidates of the maximum and of the cross-entropy method (CEM), so that the
  search starts inside the data's support, where the critic knows what it says; and finetuning starts from it.
* The actor imitates the rows whose goal is reachable. A row whose goal is another episode's counts as far as the critic has
  found a way there, so stitched goals are imitated and unreachable ones are not. The weight saturates: Q itself would
  prefer the last steps before a goal to the first, and exp(beta A) follows an advantage that is noise at first; in trials
  on 200 Lift episodes both reached fewer goals.
* Acting uses the actor's mean by default. CEM moves to where the critic extrapolates: on Lift, and in a corridor where two
  episodes had to be stitched, it reached fewer goals.
* A target is at least the return that the data itself went on to collect, gamma^(steps to the goal): a lower bound on the best
  action's value that is known at once, where bootstrapping takes thousands of updates to carry it back over an episode.
* Negatives are uniform. Negatives from the actor would lie where the data lies, and pull a positive with target y to about
  y / 2 at every backup.
* `reward_scale = "steps"` switches from rewards {0, 1} to {-1, 0}, which did better on some tasks (Zhang and Stadie,
  "Understanding Hindsight Goal Relabeling"). With values in units of 1 / (1 - gamma) every target is the one above less 1, so
  what differs is the parametrisation: a linear output 1 + f with squared errors for a sigmoid with cross entropy.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms._cem import cross_entropy_method, fixed_noise
from flywheel.algorithms._gaussian import GaussianPolicy, GaussianPolicyConfig
from flywheel.algorithms.base import Sizes, group
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.critics import Critic

_REACHABLE = 0.05
"""A value above this (of 0 to 1) counts as a way to the goal."""
_INITIAL_OUTPUT = {"probability": -2.0, "steps": -0.88}
"""Both are a value of 0.12: goals are unlikely to be reached until the data says otherwise. No target says so of an unreachable
goal (a chained end keeps its own value), so an optimistic start would last."""


@dataclass(frozen=True)
class ActionableModelsConfig(GaussianPolicyConfig):
    """Settings of Actionable Models."""

    reward_scale: Literal["probability", "steps"] = "probability"
    """Rewards 0 and 1 (the value is a probability) or -1 and 0 (it counts steps)."""
    n_proposals: int = 4
    """Actions of the actor per state, its mean among them, for the maximum in the target."""
    n_negatives: int = 8
    """Uniform actions per state, of which one becomes the negative."""
    negative_weight: float = 1.0
    """Weight of the negatives in the critic's loss."""
    learning_rate: float = 1e-3
    """Adam's step size, for both networks."""
    target_rate: float = 0.005
    """How far the target critic moves towards the critic at each update."""
    cem_iterations: int = 0
    """Rounds of the cross-entropy method when acting; 0 acts with the actor alone, more trust the critic further."""
    cem_samples: int = 64
    """Candidates per round."""
    cem_elites: int = 32
    """The best candidates, to which the Gaussian is fitted; fewer trust the critic further away from the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.cem_elites <= self.cem_samples:
            raise FlywheelError(f"cem-elites must lie between 2 and cem-samples ({self.cem_samples}), not be {self.cem_elites}.")
        if min(self.n_proposals, self.n_negatives) < 1:
            raise FlywheelError("n-proposals and n-negatives must be at least 1.")


class ActionableModels(GaussianPolicy):
    """Goal-conditioned Q-learning with hindsight, artificial negatives and goal chaining."""

    name = "actionable_models"
    Config = ActionableModelsConfig
    relabel = "actionable"
    _cem_noise: Tensor

    def __init__(self, config: ActionableModelsConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        if not sizes.goal_conditioned:
            raise FlywheelError("Actionable Models learn to reach goals; use the relabelling 'actionable'.")
        self.config = config
        self.critic = Critic(self.encoder.feature_dim, sizes.action, config.critic_layers)
        torch.nn.init.constant_(self.critic.output.bias, _INITIAL_OUTPUT[config.reward_scale])
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        noise = fixed_noise(config.cem_iterations, config.cem_samples, sizes.action)
        self.register_buffer("_cem_noise", noise, persistent=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations; raises `FlywheelError` for a batch without `is_chained`."""
        if batch.is_chained is None:
            raise FlywheelError("Actionable Models need chained goals marked in the batch; use the relabelling 'actionable'.")
        features, next_features = self.features(batch)
        mean, log_std = self.actor(features)
        with torch.no_grad():
            own = self._value(self.target_critic(features, batch.action))
            following = self._proposal_values(next_features, self.actor(next_features)).amax(dim=1)
            target = ops.goal_target(batch.reward, batch.discount, following, own, batch.is_chained)
            if batch.mc_return is not None:
                target = torch.maximum(target, batch.mc_return)
            weights = (own / _REACHABLE).clamp(max=1.0)
            negative = self._negative(features)
        log_prob = ops.gaussian_log_prob(mean, log_std, batch.action)
        positives = self._regression(self.critic(features, batch.action), target)
        negatives = self._regression(self.critic(features, negative), torch.zeros_like(target))
        self._record(own, target, batch.is_chained)
        return {
            "critic": positives + self.config.negative_weight * negatives,
            "actor": -(weights / weights.mean().clamp(min=1e-6) * log_prob).mean(),
        }

    def after_step(self) -> None:
        """Move the target critics and the average actor."""
        super().after_step()
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """CEM from the actor's Gaussian: the mean that it ends with, or a sample of the Gaussian that it ends with."""
        features = self.encoder(observation, goal)
        mean, log_std = self.acting(features)
        rounds = self._cem_noise if deterministic else map(torch.randn_like, self._cem_noise)
        found = cross_entropy_method(
            lambda candidates: self._value(self.critic.many(features, candidates)),
            mean,
            log_std.exp(),
            rounds,
            self.config.cem_elites,
        )
        return ops.gaussian_action(found.mean, found.std.clamp(min=1e-6).log(), deterministic)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Both networks at one rate."""
        return [group(self.config.learning_rate, self.actor, self.critic)]

    def synchronise_targets(self) -> None:
        """Set the target critics to the critics, the average actor to the actor."""
        super().synchronise_targets()
        self.target_critic.load_state_dict(self.critic.state_dict())

    def _value(self, output: Tensor) -> Tensor:
        """From the critics' outputs (K, ...) to the smallest member's value in [0, 1], (...)."""
        is_probability = self.config.reward_scale == "probability"
        return (torch.sigmoid(output) if is_probability else (1.0 + output).clamp(0.0, 1.0)).amin(dim=0)

    def _regression(self, output: Tensor, target: Tensor) -> Tensor:
        """Each member's distance from a target (B,) in [0, 1], averaged over the batch and summed over members."""
        targets = target.expand_as(output)
        if self.config.reward_scale == "probability":
            return nn.functional.binary_cross_entropy_with_logits(output, targets, reduction="none").mean(dim=1).sum()
        return ops.squared_td_loss(1.0 + output, target)

    def _proposal_values(self, features: Tensor, policy: tuple[Tensor, Tensor]) -> Tensor:
        """The target values of the actor's proposals, (B, N): its mean, and samples."""
        samples = ops.sample_gaussian(*policy, self.config.n_proposals - 1)
        return self._value(self.target_critic.many(features, torch.cat([policy[0].unsqueeze(1), samples], dim=1)))

    def _negative(self, features: Tensor) -> Tensor:
        """One action per state that the critic is to value at 0, (B, A): uniform ones, by softmax of their values."""
        candidates = ops.uniform_actions(features.shape[0], self.config.n_negatives, self.action_dim, features.device)
        return ops.draw_by_softmax(candidates, self._value(self.critic.many(features, candidates)))

    def _record(self, value: Tensor, target: Tensor, is_chained: Tensor) -> None:
        found = (is_chained & (target > _REACHABLE)).sum() / is_chained.sum().clamp(min=1)
        self._metrics = {"value": value.mean(), "target": target.mean(), "chained_targets_found": found}
