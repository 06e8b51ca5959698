"""The arithmetic of the algorithms: pure functions of tensors, each with its source and a test with numbers worked by hand.

Shapes are checked, because a silent broadcast of (B, 1) against (B,) is the commonest bug of this trade.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

LOG_2 = math.log(2.0)
_FROM_BOUND = 1e-3
_SMALL = 1e-6
"""Keeps the square root's gradient finite where two sets are the same."""
LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """The target r + gamma (1 - terminal) V(s'), each (B,); `discount` carries gamma and the mask. No gradient."""
    _same_shape(reward, discount, next_value)
    return (reward + discount * next_value).detach()


def squared_td_loss(q: Tensor, target: Tensor) -> Tensor:
    """The mean over the batch, summed over critics: q (K, B), target (B,)."""
    _same_shape(q[0], target)
    return (q - target).square().mean(dim=1).sum()


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """|tau - 1(u < 0)| u^2, averaged (IQL, eq. 5), with u = Q - V.

    The sign matters: with u = Q - V and tau > 0.5, a V below Q costs more, so V rises towards the best Q in the data. The
    lecture writes the same loss with u = V - Q and the cases exchanged.
    """
    weight = torch.where(difference < 0, 1.0 - expectile, expectile)
    return (weight * difference.square()).mean()


def advantage_weights(advantage: Tensor, inverse_temperature: float, clip: float = 100.0) -> Tensor:
    """min(exp(beta A), clip) (IQL, eq. 7; the clip of 100 is the official code's). No gradient."""
    return torch.exp(inverse_temperature * advantage.detach()).clamp(max=clip)


def gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log density of a diagonal Gaussian, summed over the last axis: (..., A) each -> (...,)."""
    _same_shape(mean, log_std, action)
    standardised = (action - mean) * torch.exp(-log_std)
    return (-0.5 * standardised.square() - log_std - LOG_SQRT_2PI).sum(dim=-1)


def sample_gaussian(mean: Tensor, log_std: Tensor, count: int) -> Tensor:
    """`count` samples each, clipped to the action range [-1, 1]: (B, A) each -> (B, count, A)."""
    noise = torch.randn(mean.shape[0], count, mean.shape[1], device=mean.device)
    return (mean.unsqueeze(1) + noise * log_std.exp().unsqueeze(1)).clamp(-1.0, 1.0)


def gaussian_action(mean: Tensor, log_std: Tensor, deterministic: bool) -> Tensor:
    """The mean, or one sample, clipped to [-1, 1]: (B, A) each -> (B, A)."""
    return mean.clamp(-1.0, 1.0) if deterministic else sample_gaussian(mean, log_std, 1).squeeze(1)


def sample_tanh_gaussian(mean: Tensor, log_std: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` reparameterised samples of tanh(N(mean, std)) with their log density: (B, A) -> (B, count, A), (B, count)."""
    noise = torch.randn(mean.shape[0], count, mean.shape[1], device=mean.device)
    before = mean.unsqueeze(1) + noise * log_std.exp().unsqueeze(1)
    return torch.tanh(before), tanh_gaussian_log_prob(noise, log_std.unsqueeze(1), before)


def sample_before_tanh(mean: Tensor, log_std: Tensor, count: int) -> Tensor:
    """`count` reparameterised samples of N(mean, std), whose tanh is an action: (B, A) -> (B, count, A)."""
    noise = torch.randn(mean.shape[0], count, mean.shape[1], device=mean.device)
    return mean.unsqueeze(1) + noise * log_std.exp().unsqueeze(1)


def tanh_gaussian_log_density(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Log density of given actions under tanh(N(mean, std)): (..., A) each -> (...,).

    It grows without limit at the bounds of the action, which therefore is taken to stay 1e-3 away from them (BRAC's CLIP_EPS).
    """
    _same_shape(mean, log_std, action)
    before = torch.atanh(action.clamp(-1.0 + _FROM_BOUND, 1.0 - _FROM_BOUND))
    return tanh_gaussian_log_prob((before - mean) * torch.exp(-log_std), log_std, before)


def squared_mmd(one: Tensor, other: Tensor, width: float) -> Tensor:
    """The squared maximum mean discrepancy of two sets of samples per state: (B, N, A), (B, M, A) -> (B,).

    With the Laplacian kernel exp(-|x - y|_1 / width). It is the biased estimate, where each sample is compared with itself too,
    as in the official codes of BEAR and BRAC.
    """

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        distance = (left.unsqueeze(2) - right.unsqueeze(1)).abs().sum(dim=-1)
        return torch.exp(-distance / width).mean(dim=(1, 2))

    return kernel(one, one) + kernel(other, other) - 2.0 * kernel(one, other)


def mmd(one: Tensor, other: Tensor, sigma: float) -> Tensor:
    """BEAR's maximum mean discrepancy (eq. 5), the root of `squared_mmd` of width 2 sigma: (B, N, A), (B, M, A) -> (B,)."""
    return (squared_mmd(one, other, 2.0 * sigma) + _SMALL).sqrt()


def tanh_gaussian_log_prob(noise: Tensor, log_std: Tensor, before: Tensor) -> Tensor:
    """Log density of the squashed action tanh(u), u = mean + std noise: log N(u) - sum log(1 - tanh(u)^2), (..., A) -> (...,).

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which stays finite where tanh(u) rounds to 1 (SAC, appendix C).
    """
    log_gaussian = -0.5 * noise.square() - log_std - LOG_SQRT_2PI
    return (log_gaussian - 2.0 * (LOG_2 - before - nn.functional.softplus(-2.0 * before))).sum(dim=-1)


def uniform_actions(rows: int, count: int, action_dim: int, device: torch.device) -> Tensor:
    """Uniform in [-1, 1]^A: (rows, count, A). Their log density is `uniform_log_density`."""
    return torch.empty(rows, count, action_dim, device=device).uniform_(-1.0, 1.0)


def uniform_log_density(action_dim: int) -> float:
    """The log density, log 0.5^A, of the uniform distribution on [-1, 1]^A and on no other range."""
    return -action_dim * LOG_2


def conservative_logsumexp(q: Tensor, log_density: Tensor) -> Tensor:
    """The log of the importance-sampled sum of exp Q over N sampled actions (CQL, appendix F): (K, B, N), (B, N) -> (K, B).

    The constant -log N is left out, as in the reference: it has no gradient.
    """
    _same_shape(q[0], log_density)
    return torch.logsumexp(q - log_density, dim=-1)


def goal_target(reward: Tensor, discount: Tensor, next_value: Tensor, own_value: Tensor, is_chained: Tensor) -> Tensor:
    """The target of a goal-conditioned value in [0, 1], each (B,) (Actionable Models). No gradient.

    1 where the goal is reached, gamma max_a' Q(s', a', g) before; at the end of a chained sub-trajectory the value
    Q(s, a, g) itself, without reward and without bootstrap, so that nothing is counted twice.
    """
    _same_shape(reward, discount, next_value, own_value, is_chained)
    return torch.where(is_chained, own_value, reward + discount * next_value).detach()


def draw_by_softmax(actions: Tensor, values: Tensor) -> Tensor:
    """One of N candidates per row, drawn with probability softmax(values): (B, N, A), (B, N) -> (B, A). No gradient.

    Where values are not finite it is any of them: torch would raise, on a GPU for good, before the losses can tell.
    """
    _same_shape(actions[..., 0], values)
    drawn = torch.multinomial(torch.softmax(values.detach(), dim=1).nan_to_num(nan=1.0), 1)
    return actions.gather(1, drawn.unsqueeze(-1).expand(-1, -1, actions.shape[-1])).squeeze(1)


@torch.no_grad()
def soft_update(target: Iterable[Tensor], online: Iterable[Tensor], rate: float) -> None:
    """Set target <- (1 - rate) target + rate online, in place, in one kernel launch."""
    torch._foreach_lerp_(list(target), list(online), rate)


def _same_shape(*tensors: Tensor) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise ValueError(f"Expected equal shapes, got {[tuple(tensor.shape) for tensor in tensors]}.")
