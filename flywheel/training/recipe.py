"""How a run's batches are made of its columns: which transitions, with which rewards and goals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from flywheel.algorithms.base import Algorithm, Relabelling
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.columns import PICTURE_POOL, Columns
from flywheel.datasets.mixture import Mixture
from flywheel.datasets.relabel import ActionableGoals, ActorGoals, Hindsight, Relabeler, TaskGoal, TaskReward, choose_task_goal
from flywheel.datasets.returns import MonteCarlo, NStep, monte_carlo_returns
from flywheel.datasets.sampler import MixedSampler, Sampler, UniformSampler, WeightedSampler
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.table import EpisodeTable, Floats
from flywheel.networks.augment import Augmentation
from flywheel.policy import LearnedPolicy
from flywheel.training.impersonation import Impersonate, TaskOutcome, rebalanced, task_numbers

Relabel = Literal["auto", "task_goal", Relabelling]


@dataclass(frozen=True)
class DataConfig:
    """What a run learns from, and how a batch is made of it."""

    batch_size: int = 256
    """Transitions per update."""
    discount: float = 0.99
    """Gamma, per step."""
    task: str = ""
    """Learn from the episodes of this task alone; empty for all of the store."""
    tasks: tuple[str, ...] = ()
    """Learn these tasks at once, with networks that are told which one it is; a reward of 1 where a task is done, else 0."""
    impersonate: Impersonate = "orig"
    """Which of `tasks` learn from an episode: its own alone, those of its skill group too, or all; their detectors judge it."""
    detector: Path | None = None
    """A success detector's run folder: its verdicts on pictures stand in the place of the recorded successes and rewards, and it
    judges for which other tasks an episode counts. `where` still asks what the store has."""
    rebalance: bool = False
    """Give each of `tasks` the same share of every batch, and its successes `success_share` of that."""
    success_share: float = 0.5
    """The share of successes within each task, with `rebalance`; a task without any, or without failures, has but the others."""
    where: str = ""
    """Learn from the episodes for which this holds alone, as in 'flywheel store query': "success and started > '2026-11-01'"."""
    relabel: Relabel = "auto"
    """Where rewards and goals come from: the store (task), the store and one goal that stands for the task (task_goal),
    hindsight, hindsight with subgoals on the way (hierarchical), what came later in the same episode alone (contrastive),
    Actionable Models' hindsight and chaining (actionable), or these with goals of the actor's own and what lies ahead
    (actionable_ahead); auto takes what the algorithm expects."""
    normalise: bool = True
    """Give the networks states less their mean and over their standard deviation; without, as they are, which shows nearby places
    of a large maze further apart: contrastive learning (crl) needs that there. A policy to start from keeps its own way."""
    reward_scale: float = 1.0
    """What the store's rewards are multiplied by."""
    reward_shift: float = 0.0
    """What is added then; -1 makes 0 and 1 a step's cost of 1 until the end. CQL and Cal-QL need values that are large beside the
    conservative term: a scale of 10 and a shift of -5."""
    n_step: int = 1
    """Transitions that a target spans until it bootstraps; fewer where the episode ends or the goal is reached. Where a
    policy got stuck, targets of one step see the value of the same place, and it hardly sinks: 10 for own episodes."""
    balance: Literal["transitions", "episodes", "tasks"] = "transitions"
    """What is drawn equally often; a task's share is split evenly among its episodes, an episode's among its transitions."""
    pictures: tuple[str, ...] = ()
    """The cameras that the networks see, by the names of their pictures in the store; none by default."""
    goal_pictures: tuple[str, ...] = ()
    """Those of them that show the goal, where there is one; all of them by default. A goal has no state then."""
    frames: int = 1
    """Pictures in a row of each camera that are seen at once, as further channels, where one does not show what moves; before an
    episode's first there is that one again. Kept once, however often they are seen."""
    language: Path | None = None
    """An npz file that says each of `tasks` in words: an array (L,) by the task's name, of any model of sentences; it is seen
    beside the task's number and kept with the policy."""
    hide: tuple[str, ...] = ()
    """Observations that the networks do not see, for example what only a simulator knows: cube_pos; the policy needs none."""
    any_colors: bool = False
    """Take episodes in which a camera seems to show blue for red as they are, where scenes differ so much by nature."""
    augment: Augmentation = field(default_factory=Augmentation)
    """What is done to pictures while learning."""
    picture_budget: int | None = None
    """Bytes of pictures per store that are kept raw; what is beyond that is decoded when it is sampled. By default half of the
    memory, or half of what is free on the disk."""
    picture_pool: int = PICTURE_POOL
    """Bytes of memory per store for decoded pictures. Where more than that is not kept raw, batches are drawn from the episodes
    that fit, which change in turn; 0 draws each sample for itself, and decodes it for itself: several times slower. A run draws
    the same again as long as this, and what is kept raw (picture_budget), stay the same."""
    also: tuple[Path, ...] = ()
    """More stores to learn from, of other robots, cameras or rates; the policy will act on the robot of `store`."""
    shares: tuple[float, ...] = ()
    """The share of each store in a batch, `store` first; empty where every transition counts the same."""
    new_fraction: float = 0.0
    """The share of each batch from episodes that the initial policy has not seen (0.5 for online finetuning, after RLPD)."""
    old: Path | None = None
    """The run whose episodes count as seen for new-fraction, where that is not the initial one."""
    hindsight: Hindsight = field(default_factory=Hindsight)
    """The mixture of the critic's goals, where relabel is hindsight or hierarchical; contrastive takes its horizon alone."""
    actor_hindsight: Hindsight = field(default_factory=lambda: Hindsight(0.0, 1.0, 0.0, horizon="uniform"))
    """The mixture of the actor's goals, where it is not the critic's; OGBench's for data that has to be stitched is half future,
    half random."""
    subgoal_steps: int = 25
    """How many transitions ahead a subgoal lies, where relabel is hierarchical or actionable_ahead; 10 for manipulation."""
    actionable: ActionableGoals = field(default_factory=ActionableGoals)
    """The two streams, where relabel is actionable or actionable_ahead."""


@dataclass(frozen=True)
class Recipe:
    """A sampler, a relabeler, and what they imply for the policy."""

    sampler: Sampler
    relabeler: Relabeler
    goal_conditioned: bool
    goal: Mapping[str, Array] | None = None
    """The goal that stands for the task, where there is one, ``state`` (D,) and pictures (H, W, C); kept with the policy."""


def make_recipe(
    data: DataConfig,
    algorithm: type[Algorithm],
    columns: Columns | Mixture,
    initial: LearnedPolicy | None = None,
    initial_run: Path | None = None,
) -> Recipe:
    """The recipe of a configuration for an algorithm; with several tasks, `columns` are those of `impersonate`."""
    is_stored = not data.tasks and _relabel(data, algorithm.relabel) in ("task", "task_goal")
    if (data.reward_scale, data.reward_shift) != (1.0, 0.0) and not is_stored:
        raise FlywheelError("reward-scale and reward-shift are for the store's rewards; several tasks and goals have their own.")
    sampler = _sampler(data, columns, initial_run)
    if data.tasks:
        recipe = _of_tasks(data, algorithm.relabel, columns.table, sampler)
    else:
        recipe = _with_goals(data, algorithm.relabel, columns, initial, sampler)
    if is_stored or (algorithm.needs_returns and not data.tasks):
        smallest = float(_rewards(columns).min(initial=data.reward_shift))
        returns = monte_carlo_returns(columns.table, columns.reward, data.discount, after=smallest)
        recipe = replace(recipe, relabeler=MonteCarlo(recipe.relabeler, returns))
    if data.n_step == 1:
        return recipe
    if algorithm.actor_sees_next:
        raise FlywheelError(f"The actor of {algorithm.name} follows one step's progress; set n-step to 1.")
    return replace(recipe, relabeler=NStep(recipe.relabeler, data.n_step, data.discount, columns.reward))


def check_tasks(data: DataConfig) -> None:
    """Raises `FlywheelError` for settings that need several tasks and have none, or do not go with them."""
    if not 0.0 <= data.success_share <= 1.0:
        raise FlywheelError(f"The share of successes (success-share) must lie in [0, 1], not {data.success_share}.")
    if not data.tasks and (data.impersonate != "orig" or data.rebalance):
        raise FlywheelError("impersonate and rebalance are for several tasks; name them (--data.tasks).")
    if data.tasks and data.task:
        raise FlywheelError("task and tasks both say what to learn; give one of them.")
    if data.language and not data.tasks:
        raise FlywheelError("language says which of several tasks it is; name them (--data.tasks).")
    if data.tasks and data.also:
        raise FlywheelError("Several tasks are learned from one store; leave --data.also out.")


def check_successes(data: DataConfig, relabel: Relabelling, columns: Columns | Mixture) -> None:
    """Raises `FlywheelError` where successes cannot be told by returns above 0, or there are none."""
    if not data.tasks and _relabel(data, relabel) not in ("task", "task_goal"):
        raise FlywheelError("Successes are told by the store's rewards; imitate them with relabel task or task_goal.")
    if data.reward_shift or data.reward_scale <= 0.0:
        raise FlywheelError("Successes are told by returns above 0; imitate them with reward-shift 0 and a reward-scale above 0.")
    if not (columns.table.success if data.tasks else _rewards(columns) > 0.0).any():
        raise FlywheelError("There is no success to imitate in this data; record some, or imitate all.")


def _rewards(columns: Columns | Mixture) -> Floats:
    """(N,) the rewards of what is learned from; the columns hold other episodes' too, and final rows that mean nothing."""
    table = columns.table
    return columns.reward.take(table.row(np.arange(table.total)))


def _relabel(data: DataConfig, expected: Relabelling) -> Relabel:
    return expected if data.relabel == "auto" else data.relabel


def _of_tasks(data: DataConfig, relabel: Relabelling, table: EpisodeTable, sampler: Sampler) -> Recipe:
    if _relabel(data, relabel) != "task":
        raise FlywheelError(
            "Several tasks have rewards of their own, not goals; leave --data.tasks out, or learn with relabel task (iql, cql)."
        )
    return Recipe(sampler, TaskOutcome(task_numbers(table, data.tasks)), goal_conditioned=False)


def _with_goals(
    data: DataConfig, relabel: Relabelling, columns: Columns | Mixture, initial: LearnedPolicy | None, sampler: Sampler
) -> Recipe:
    match _relabel(data, relabel):
        case "task_goal":
            # A policy that already aims at a goal keeps it: another one would be another problem.
            known = initial.goal if initial else None
            goal = _task_goal(columns, data) if known is None else known
            return Recipe(sampler, TaskGoal(goal), goal_conditioned=True, goal=goal)
        case "hindsight":
            return Recipe(sampler, ActorGoals(data.hindsight, data.actor_hindsight), goal_conditioned=True)
        case "hierarchical" | "actionable_ahead" as kind:
            if data.subgoal_steps < 1:
                raise FlywheelError(f"Subgoals lie at least 1 step ahead, not {data.subgoal_steps}.")
            critic = data.hindsight if kind == "hierarchical" else data.actionable
            goals = ActorGoals(critic, data.actor_hindsight, data.subgoal_steps)
            return Recipe(sampler, goals, goal_conditioned=True)
        case "contrastive":
            future = replace(data.hindsight, p_current=0.0, p_future=1.0, p_random=0.0, p_final=0.0)
            return Recipe(sampler, ActorGoals(future, data.actor_hindsight), goal_conditioned=True)
        case "actionable":
            return Recipe(sampler, data.actionable, goal_conditioned=True)
        case _:
            return Recipe(sampler, TaskReward(), goal_conditioned=False)


def _task_goal(columns: Columns | Mixture, data: DataConfig) -> dict[str, Array]:
    # A mixture's first store, whose rows come first, is that of the robot that the policy acts on.
    own = columns.sources[0].columns if isinstance(columns, Mixture) else columns
    found = columns.observations(np.array([choose_task_goal(own, data.task).row]))
    shown = {"state", *(data.goal_pictures or data.pictures)}
    values = {key: value[0] for key, value in found.items() if key in shown}
    return {key: (value.permute(1, 2, 0) if value.dim() == 3 else value).numpy().copy() for key, value in values.items()}


def _sampler(data: DataConfig, columns: Columns | Mixture, initial_run: Path | None) -> Sampler:
    wanted = {
        "new-fraction": bool(data.new_fraction),
        "balance": data.balance != "transitions",
        "shares": bool(data.shares),
        "rebalance": data.rebalance,
    }
    if sum(wanted.values()) > 1:
        names = " and ".join(name for name, is_wanted in wanted.items() if is_wanted)
        raise FlywheelError(f"{names} both say what is drawn how often; give one of them.")
    if data.shares:
        if not isinstance(columns, Mixture):
            raise FlywheelError("shares need more stores to learn from (--data.also).")
        return columns.sampler(data.shares)
    if data.rebalance:
        return rebalanced(columns.table, data.tasks, data.success_share, data.batch_size)
    if data.balance != "transitions":
        return WeightedSampler(columns.table, _episode_weights(columns.table, data.balance), of="episodes")
    if not data.new_fraction:
        return UniformSampler(columns.table)
    if (initial_run := data.old or initial_run) is None:
        raise FlywheelError("new-fraction needs an initial run (--initial), whose episodes count as the old ones.")
    snapshots = [initial_run / "snapshot.json", *sorted(initial_run.glob("snapshot-*.json"))]  # one per store of its mixture
    seen = {entry.episode_id for path in snapshots for entry in Snapshot.load(path).entries}
    is_new = np.array([episode not in seen for episode in columns.table.episode_id])
    return MixedSampler(columns.table, is_new, data.new_fraction)


def _episode_weights(table: EpisodeTable, balance: Literal["episodes", "tasks"]) -> npt.NDArray[np.float64]:
    """(E,) 1 each, or so that each task's episodes weigh 1 together."""
    if balance == "episodes":
        return np.ones(len(table))
    _, task, count = np.unique(table.task, return_inverse=True, return_counts=True)
    return 1.0 / count[task]
