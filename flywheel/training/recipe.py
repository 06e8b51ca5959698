"""How a run's batches are made of its columns: which transitions, with which rewards and goals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import FlywheelError
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import ActionableGoals, Hindsight, Relabeler, TaskGoal, TaskReward, choose_task_goal
from flywheel.datasets.sampler import MixedSampler, Sampler, UniformSampler
from flywheel.datasets.snapshot import Snapshot
from flywheel.policy import LearnedPolicy

Relabel = Literal["auto", "task", "task_goal", "hindsight", "actionable"]


@dataclass(frozen=True)
class DataConfig:
    """What a run learns from, and how a batch is made of it."""

    batch_size: int = 256
    """Transitions per update."""
    discount: float = 0.99
    """Gamma, per step."""
    task: str = ""
    """Learn from the episodes of this task alone; empty for all of the store."""
    where: str = ""
    """Learn from the episodes for which this holds alone, as in 'flywheel store query': "success and started > '2026-11-01'"."""
    relabel: Relabel = "auto"
    """Where rewards and goals come from: the store (task), the store and one goal that stands for the task (task_goal),
    hindsight, or Actionable Models' hindsight and chaining (actionable); auto takes what the algorithm expects."""
    new_fraction: float = 0.0
    """The share of each batch from episodes that the initial policy has not seen (0.5 for online finetuning, after RLPD)."""
    hindsight: Hindsight = field(default_factory=Hindsight)
    """The mixture of goals, where relabel is hindsight."""
    actionable: ActionableGoals = field(default_factory=ActionableGoals)
    """The two streams, where relabel is actionable."""


@dataclass(frozen=True)
class Recipe:
    """A sampler, a relabeler, and what they imply for the policy."""

    sampler: Sampler
    relabeler: Relabeler
    goal_conditioned: bool
    goal_state: npt.NDArray[np.float32] | None = None
    """(D,) the goal that stands for the task, where there is one; it is kept with the policy."""


def make_recipe(
    data: DataConfig, relabel: Relabel, columns: Columns, initial: LearnedPolicy | None, initial_run: Path | None
) -> Recipe:
    """The recipe of a configuration; `relabel` is what auto stands for."""
    sampler = _sampler(data, columns, initial_run)
    match relabel if data.relabel == "auto" else data.relabel:
        case "task_goal":
            # A policy that already aims at a goal keeps it: another one would be another problem.
            known = initial.goal_state if initial else None
            goal = choose_task_goal(columns, data.task).state if known is None else known
            return Recipe(sampler, TaskGoal(goal), goal_conditioned=True, goal_state=goal)
        case "hindsight":
            return Recipe(sampler, data.hindsight, goal_conditioned=True)
        case "actionable":
            return Recipe(sampler, data.actionable, goal_conditioned=True)
        case _:
            return Recipe(sampler, TaskReward(), goal_conditioned=False)


def _sampler(data: DataConfig, columns: Columns, initial_run: Path | None) -> Sampler:
    if not data.new_fraction:
        return UniformSampler(columns.table)
    if initial_run is None:
        raise FlywheelError("new-fraction needs an initial run (--initial), whose episodes count as the old ones.")
    seen = {entry.episode_id for entry in Snapshot.load(initial_run / "snapshot.json").entries}
    is_new = np.array([episode not in seen for episode in columns.table.episode_id])
    return MixedSampler(columns.table, is_new, data.new_fraction)
