"""What an algorithm learns from. The only file of core that imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B transitions. `discount` is gamma * (1 - terminal), so that no algorithm ever sees a `done`."""

    observation: dict[str, Tensor]
    """Each (B, ...); ``state`` is the packed state vector (B, D), a picture is uint8 (B, C, H, W), channels last in memory,
    ``task``, where there are several, the task's number (B,) int64. With a history of h observations each has a second axis, the
    oldest first: (B, h, ...)."""
    action: Tensor
    """(B, A), in [-1, 1]; (B, k, A) where k actions in a row are asked for."""
    reward: Tensor
    """(B,)"""
    discount: Tensor
    """(B,), gamma * (1 - terminal)."""
    next_observation: dict[str, Tensor]
    goal: dict[str, Tensor] | None = None
    """An observation to reach, for goal-conditioned learning; never a history."""
    actor_goal: dict[str, Tensor] | None = None
    """The observation that the actor is to reach, where that is another than the critic's `goal`."""
    low_actor_goal: dict[str, Tensor] | None = None
    """The observation some steps ahead that a lower actor is to reach (HIQL)."""
    high_actor_target: dict[str, Tensor] | None = None
    """The observation some steps ahead, on the way to `actor_goal`, that a higher actor is to propose (HIQL)."""
    is_chained: Tensor | None = None
    """(B,) bool: the last step of a chained sub-trajectory, whose target is the value itself (Actionable Models)."""
    mc_return: Tensor | None = None
    """(B,) the discounted return that the data itself went on to collect, where that is known; else 0."""
    is_pad: Tensor | None = None
    """(B, k) bool: actions beyond the end of the episode, which repeat its last one; with action chunks only, which no
    algorithm of ours learns yet."""
    is_pad_history: Tensor | None = None
    """(B, h) bool: observations before the beginning of the episode, which repeat its first one; with a history only, of which
    algorithms of ours see pictures alone, as channels."""
    mask: dict[str, Tensor] | None = None
    """What a sample's own source has, where several are mixed: ``state`` (B, D) and ``action`` (B, A) bool per element, a
    picture's key (B,). What it has not is zero once it is normalised, and may be ignored or not; no algorithm of ours
    reads it yet."""

    def __len__(self) -> int:
        """The number of transitions B."""
        return self.action.shape[0]

    @property
    def goal_of_actor(self) -> dict[str, Tensor] | None:
        """The observation that the actor is to reach, whoever it shares it with."""
        return self.goal if self.actor_goal is None else self.actor_goal

    def __getitem__(self, rows: slice) -> Batch:
        """A view of some rows."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        def apply(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: function(tensor) for key, tensor in value.items()}
            return None if value is None else function(value)

        return Batch(**{item.name: apply(getattr(self, item.name)) for item in fields(self)})
