"""Settings that go together, chosen on development seeds of Lift with a store of 400 episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flywheel.algorithms.actionable_models import ActionableModelsConfig
from flywheel.algorithms.bc import BCConfig
from flywheel.algorithms.iql import IQLConfig
from flywheel.datasets.relabel import ActionableGoals
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig

_ACTOR: dict[str, Any] = {"actor_dropout": 0.1, "average_rate": 0.002}
"""Hundreds of episodes are few: without these a policy's success depends on when its training stops."""


def pretrain(store: Path, output: Path, updates: int = 3_000, **settings: Any) -> TrainConfig:
    """Actionable Models: reach any goal of the store, without rewards."""
    algorithm = ActionableModelsConfig(learning_rate=5e-4, **_ACTOR)
    data = DataConfig(relabel="actionable", actionable=ActionableGoals(p_chained=0.2))
    return TrainConfig("actionable_models", algorithm, store, output, updates, data=data, **settings)


def clone_goals(store: Path, output: Path, updates: int = 5_000, **settings: Any) -> TrainConfig:
    """Goal-conditioned behaviour cloning, the baseline: any later observation of the same episode is a goal."""
    return TrainConfig("bc", BCConfig(**_ACTOR), store, output, updates, data=DataConfig(relabel="hindsight"), **settings)


def finetune(
    store: Path, output: Path, task: str, initial: Path | None, updates: int = 5_000, new_fraction: float = 0.0, **settings: Any
) -> TrainConfig:
    """IQL on one task's rewards, from a pretrained policy or, with a share of new episodes, online from its own result."""
    algorithm = IQLConfig(inverse_temperature=10.0, **_ACTOR)
    data = DataConfig(task=task, relabel="task_goal", new_fraction=new_fraction)
    return TrainConfig("iql", algorithm, store, output, updates, data=data, initial=initial, **settings)
