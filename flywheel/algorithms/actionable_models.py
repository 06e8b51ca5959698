"""Actionable Models (Chebotar et al. 2021; arXiv 2104.07749): reach any goal of the data, learned without rewards.

    y      = 1 where s' is the goal;  gamma max_a' Qbar(s', a', g) before;  Qbar(s, a, g) at the end of a chained sub-trajectory
    L_Q    = BCE(Q_k(s, a, g), y) + BCE(Q_k(s, a-, g), 0),   a- drawn from N uniform actions by softmax(Q)
    L_pi   = -E[ w log pi(a|s, g) ],   w = min(Qbar(s, a, g) / 0.05, 1), scaled to mean 1

Q = sigmoid(logit) in [0, 1] is the discounted probability of reaching g. The batches come relabelled: hindsight goals of the
same episode, and goals of other episodes (chaining), where only the last step of the sub-trajectory takes its own value as
its target.

As in the paper it is with `maximise = "cem"` and without `lower_bound`: no actor, the maximum of the target and the action are
searched by the cross-entropy method (CEM) from all over the range. By default it departs from the paper, by trials on Lift:

* An actor proposes the candidates of the maximum and acts, so that the search stays inside the data's support, where the
  critic knows what it says; and finetuning starts from it. CEM moves to where the critic extrapolates.
* The actor imitates the rows whose goal is reachable. A row whose goal is another episode's counts as far as the critic has
  found a way there, so stitched goals are imitated and unreachable ones are not. The weight saturates: Q itself would
  prefer the last steps before a goal to the first, and exp(beta A) follows an advantage that is noise at first; in trials
  on 200 Lift episodes both reached fewer goals.
* A target is at least the return that the data itself went on to collect, gamma^(steps from s' to the goal): a lower bound on
  the best action's value that is known at once, where bootstrapping takes thousands of updates to carry it back over an
  episode.

And in both forms:

* Negatives are uniform. Negatives from the actor would lie where the data lies, and pull a positive with target y to about
  y / 2 at every backup.
* `reward_scale = "steps"` switches from rewards {0, 1} to {-1, 0}, which did better on some tasks (Zhang and Stadie,
  "Understanding Hindsight Goal Relabeling"). With values in units of 1 / (1 - gamma) every target is the one above less 1, so
  what differs is the parametrisation: a linear output 1 + f with squared errors for a sigmoid with cross entropy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flywheel.algorithms import ops
from flywheel.algorithms._cem import Found, cross_entropy_method, fixed_noise
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
    maximise: Literal["actor", "cem"] = "actor"
    """Who finds the best action: an actor that is learned beside the critic, or the cross-entropy method, as in the paper."""
    lower_bound: bool = True
    """Let no target be less than the return that the data itself went on to collect."""
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
    cem_iterations: int = 2
    """Rounds of the cross-entropy method, while learning and acting."""
    cem_samples: int = 64
    """Candidates per round."""
    cem_elites: int = 6
    """The best candidates, to which the Gaussian is fitted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.cem_elites <= self.cem_samples:
            raise FlywheelError(f"cem-elites must lie between 2 and cem-samples ({self.cem_samples}), not be {self.cem_elites}.")
        if min(self.n_proposals, self.n_negatives, self.cem_iterations) < 1:
            raise FlywheelError("n-proposals, n-negatives and cem-iterations must be at least 1.")
        if self.maximise == "cem" and (self.actor_dropout or self.average_rate):
            raise FlywheelError("actor-dropout and average-rate are for an actor, and with maximise 'cem' there is none.")


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
        if config.maximise == "cem":
            self.actor = self.average_actor = nn.Identity()
        self.critic = Critic(self.encoder.feature_dim, sizes.action, config.critic_layers)
        self._begin_low()
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        noise = fixed_noise(config.cem_iterations, config.cem_samples, sizes.action)
        self.register_buffer("_cem_noise", noise, persistent=False)

    def load_pretrained(self, state: Mapping[str, Tensor]) -> list[str]:
        """As any algorithm does, but values begin as low as without."""
        taken = super().load_pretrained(state)
        if taken:
            self._begin_low()
            self.synchronise_targets()
        return taken

    def _begin_low(self) -> None:
        nn.init.constant_(self.critic.output.bias, _INITIAL_OUTPUT[self.config.reward_scale])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the module's equations; raises `FlywheelError` for a batch without `is_chained`."""
        if batch.is_chained is None:
            raise FlywheelError("Actionable Models need chained goals marked in the batch; use the relabelling 'actionable'.")
        features, next_features = self.features(batch)
        with torch.no_grad():
            own = self._value(self.target_critic(features, batch.action))
            target = ops.goal_target(batch.reward, batch.discount, self._best_value(batch, next_features), own, batch.is_chained)
            if self.config.lower_bound and batch.mc_return is not None:
                target = torch.maximum(target, batch.mc_return)
            negative = self._negative(features)
        positives = self._regression(self.critic(features, batch.action), target)
        negatives = self._regression(self.critic(features, negative), torch.zeros_like(target))
        self._record(own, target, batch)
        losses = {"critic": positives + self.config.negative_weight * negatives}
        if self.config.maximise == "actor":
            seen = self.actor_features(batch.observation, batch.goal, features)
            losses["actor"] = self._imitation(seen, batch.action, own)
        return losses

    def _imitation(self, features: Tensor, action: Tensor, value: Tensor) -> Tensor:
        weights = (value / _REACHABLE).clamp(max=1.0)
        mean, log_std = self.actor(features)
        log_prob = ops.gaussian_log_prob(mean, log_std, action)
        return -(weights / weights.mean().clamp(min=1e-6) * log_prob).mean()

    def after_step(self) -> None:
        """Move the target critics and the average actor."""
        super().after_step()
        ops.soft_update(self.target_critic.parameters(), self.critic.parameters(), self.config.target_rate)

    def act(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None, deterministic: bool) -> Tensor:
        """The actor's mean, or a sample. With CEM its best candidate, of the same ones each time, or a sample of its Gaussian."""
        if self.config.maximise == "actor":
            return super().act(observation, goal, deterministic)
        features = self.encoder(observation, goal)
        found = self._search(self.critic, features, self._cem_noise if deterministic else self._random_rounds(len(features)))
        if deterministic:
            return found.best
        return ops.gaussian_action(found.mean, found.std.clamp(min=1e-6).log(), deterministic=False)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All networks at one rate."""
        return [group(self.config.learning_rate, *self.encoders, self.actor, self.critic)]

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

    def _best_value(self, batch: Batch, features: Tensor) -> Tensor:
        """The target value of the best action in s', (B,): of CEM's, or of the actor's mean and samples."""
        if self.config.maximise == "cem":
            action = self._search(self.target_critic, features, self._random_rounds(len(features))).best
            return self._value(self.target_critic(features, action))
        mean, log_std = self.actor(self.actor_features(batch.next_observation, batch.goal, features))
        samples = ops.sample_gaussian(mean, log_std, self.config.n_proposals - 1)
        proposals = torch.cat([mean.unsqueeze(1), samples], dim=1)
        return self._value(self.target_critic.many(features, proposals)).amax(dim=1)

    def _search(self, critic: Critic, features: Tensor, rounds: Iterator[Tensor] | Tensor) -> Found:
        start = features.new_zeros(len(features), self.action_dim)
        return cross_entropy_method(
            lambda candidates: critic.many(features, candidates).amin(dim=0),  # its order, where values end at 0 or 1
            start,
            torch.ones_like(start),
            rounds,
            self.config.cem_elites,
        )

    def _random_rounds(self, rows: int) -> Iterator[Tensor]:
        shape = (rows, self.config.cem_samples, self.action_dim)
        return (torch.randn(shape, device=self._cem_noise.device) for _ in range(self.config.cem_iterations))

    def _negative(self, features: Tensor) -> Tensor:
        """One action per state that the critic is to value at 0, (B, A): uniform ones, by softmax of their values."""
        candidates = ops.uniform_actions(features.shape[0], self.config.n_negatives, self.action_dim, features.device)
        return ops.draw_by_softmax(candidates, self._value(self.critic.many(features, candidates)))

    def _record(self, value: Tensor, target: Tensor, batch: Batch) -> None:
        assert batch.is_chained is not None
        ends = batch.is_chained.sum()
        self._metrics = {
            "value": value.mean(),
            "target": target.mean(),
            "reached": (batch.discount == 0).float().mean(),
            "chained_ends": ends / len(value),
            "chained_targets_found": (batch.is_chained & (target > _REACHABLE)).sum() / ends.clamp(min=1),
        }
        if batch.mc_return is not None:  # it is 0 where the goal is another episode's
            chained = batch.mc_return == 0
            self._metrics |= {
                "chained": chained.float().mean(),
                "target_chained": (target * chained).sum() / chained.sum().clamp(min=1),
                "target_hindsight": (target * ~chained).sum() / (~chained).sum().clamp(min=1),
            }
