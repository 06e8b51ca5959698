"""flywheel deploy TASK: run a policy on a robot behind the safety layer; every episode lands in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flywheel.cli.console import parse_config, progress, say
from flywheel.datasets.store import EpisodeStore
from flywheel.rollout.collect import CollectConfig, collect, dataset_name
from flywheel.rollout.rollout import TaskName

_EXPERIMENT = "deploy"


@dataclass(frozen=True)
class DeployConfig:
    """Run a policy on a robot behind the safety layer; every episode lands in the store."""

    task: TaskName
    """The task, by name."""
    policy: str
    """The run folder of a trained policy."""
    store: Path
    """The folder of datasets that the episodes are appended to."""
    robot: str = "sim"
    """The robot, by name."""
    episodes: int = 1
    """How many episodes."""


def run(arguments: list[str]) -> None:
    """Deploy, then say how it went."""
    config = parse_config(DeployConfig, arguments, "flywheel deploy", __doc__)
    collection = CollectConfig(
        task=config.task,
        policy=config.policy,
        store=config.store,
        robot=config.robot,
        episodes=config.episodes,
        first_seed=_next_seed(config),
        experiment=_EXPERIMENT,
        processes=1,
        safe=True,
    )
    with progress(f"Deploying on {config.robot}", "episodes") as report:
        result = collect(collection, report)
    say(f"{result.successes} of {result.stored} episodes succeeded; they are in {result.dataset}")


def _next_seed(config: DeployConfig) -> int:
    """One past the seeds that earlier deployments used, so that each deployment starts somewhere new."""
    folder = config.store / dataset_name(config.robot, config.task)
    if not folder.exists():
        return 0
    rows = EpisodeStore.open(folder).rows(deleted=True)
    used = [row.seed for row in rows if row.experiment_id == _EXPERIMENT and row.task == config.task]
    return max(used, default=-1) + 1
