"""Whose turn it is in an update: an actor that learns at every second one, a warm-up, a copy now and then."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Turn(nn.Module):
    """On in the updates number `first`, `first + interval`, `first + 2 interval` and so on, counted from 0.

    The count is a Python integer that is saved with the weights: a float32 would stop counting at 2^24, and a tensor on a GPU
    would be waited for in every update. Losses are to read `is_on` alone: it has two values, so compiled losses have two forms.
    """

    def __init__(self, first: int = 0, interval: int = 1) -> None:
        super().__init__()
        self._first, self._interval = first, interval
        self._count_from(0)

    def advance(self) -> None:
        """One more update was taken."""
        self._count_from(self._taken + 1)

    def _count_from(self, taken: int) -> None:
        self._taken = taken
        self.is_on = taken >= self._first and (taken - self._first) % self._interval == 0

    def get_extra_state(self) -> Tensor:
        """How many updates were taken, an int64 scalar."""
        return torch.tensor(self._taken)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from there."""
        self._count_from(int(state))
