"""Calibrated Q-learning (Nakamoto et al. 2023; arXiv 2303.05479): CQL that is ready to go on online.

CQL's losses, with one change: where an action of pi(.|s) or pi(.|s') is valued below the return R that the data went on to
collect from s, R stands for its value, and nothing pushes it down. Values then lie on the scale of returns, and the first good
experience online does not look worse than everything that is known. Uniform actions are not calibrated, as in the official code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flywheel.algorithms.cql import CQL, CQLConfig
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError


@dataclass(frozen=True)
class CalQLConfig(CQLConfig):
    """Settings of calibrated Q-learning."""

    max_target_backup: bool = True
    """Bootstrap from the best of N actions of pi(.|s') instead of from one."""


class CalQL(CQL):
    """CQL whose push down ends at the data's returns."""

    name = "cal_ql"
    Config = CalQLConfig
    needs_returns = True

    def _floor(self, batch: Batch) -> Tensor:
        """Below which nothing is pushed down, (B, 3 N): nothing for uniform actions, the data's return for the policy's."""
        if batch.mc_return is None:
            raise FlywheelError("Cal-QL needs the data's returns in the batch; use the relabelling 'task' or 'task_goal'.")
        count = self.config.n_actions
        nothing = torch.full((len(batch), count), -torch.inf, device=batch.mc_return.device)
        return torch.cat([nothing, batch.mc_return.unsqueeze(1).expand(-1, 2 * count)], dim=1)
