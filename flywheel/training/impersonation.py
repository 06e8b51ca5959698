"""Task impersonation and rebalancing, after MT-Opt (Kalashnikov et al. 2021; arXiv 2104.08212): an episode of one task may tell
something about others.

Impersonation offers each episode to other tasks, whose success detectors decide: it becomes a success or a failure of theirs as
well. MT-Opt asks about the final image; here an episode that is offered to a task ends where that task's detector first accepts
it, as it would have ended had it been collected for that task, or is a failure of full length. Its own task keeps the episode's
own label and end.

Rebalancing gives every task the same share of each batch, and its successes the same share of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ObservationSpec
from flywheel.datasets.relabel import Relabeled
from flywheel.datasets.sampler import Indices
from flywheel.datasets.stratified import StratifiedSampler
from flywheel.datasets.table import EpisodeTable, Floats, Ints
from flywheel.tasks.base import Task, make_task

Impersonate = Literal["orig", "skill", "all"]
"""To which tasks an episode is offered: to its own alone, to those of its skill group, to all."""


Accepts = Callable[[str, str], int | None]
"""Called with an episode's id and a task: the step, counted from 0, at which a learned detector accepts it, or None."""


class _Offer(NamedTuple):
    """An episode as one of a task."""

    episode: int
    task: int
    transitions: int
    success: bool
    terminal: bool


@dataclass(frozen=True, eq=False)
class TaskOutcome:
    """Rewards of 1 where an episode ends in success, which is terminal, 0 elsewhere; and which task it is.

    The store's rewards count for nothing: they are those of the task that an episode was collected for.
    """

    number: Ints
    """(E,) the number of each episode's task."""

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """Terminal where the task was done; a failure bootstraps where it was cut off."""
        remaining = table.transitions.take(indices.episode) - indices.step
        success = table.success.take(indices.episode)
        done = success & (remaining == 1)
        ends = done | (table.terminal.take(indices.episode) & (remaining == 1))
        return Relabeled(
            discount=(~ends).astype(np.float32),
            reward=done.astype(np.float32),
            steps_to_goal=np.where(success, remaining, 0),
            task=self.number.take(indices.episode),
        )


def impersonate(
    table: EpisodeTable,
    state: Floats,
    spec: ObservationSpec,
    tasks: Sequence[str],
    mode: Impersonate,
    accepts: Accepts | None = None,
) -> EpisodeTable:
    """The episodes of some tasks, and those of others that are offered to them: rows are shared, nothing is copied.

    Args:
        table: The episodes as they were recorded.
        state: (R, D) the columns' states.
        spec: What the states' dimensions mean.
        tasks: The tasks, by name.
        mode: Who is offered what. Episodes of other tasks than `tasks` are offered too.
        accepts: A learned detector that decides in the place of the tasks' own, which look at states.

    A task that looks for objects which the observations do not show is offered nothing. Raises `FlywheelError` for a task without
    a single episode, for one that is named twice and, where episodes are offered, for one that has no file in tasks/.
    """
    if len(set(tasks)) < len(tasks):
        raise FlywheelError(f"A task is named twice in {', '.join(tasks)}; name each once.")
    owners = sorted(set(table.task.tolist()))
    keys = None if accepts else spec.state_keys
    others = {own: _others(own, tasks, keys, mode) for own in owners}
    offers = []
    for episode, own in enumerate(table.task.tolist()):
        if own in tasks:
            offers.append(_own(table, episode, tasks.index(own)))
        for number, task in others[own]:
            name = table.episode_id[episode]
            done = accepts(name, task.name) if accepts else _first_success(table, state, spec, episode, task)
            offers += _offered(table, episode, number, done)
    return _as_table(table, offers, tasks)


def task_numbers(table: EpisodeTable, tasks: Sequence[str]) -> Ints:
    """(E,) the number of each episode's task among `tasks`."""
    number = {name: index for index, name in enumerate(tasks)}
    return np.array([number[name] for name in table.task.tolist()], np.int64)


def rebalanced(table: EpisodeTable, tasks: Sequence[str], success_share: float, batch_size: int) -> StratifiedSampler:
    """Every task has the same share of each batch, and its successes `success_share` of that.

    A task that has only successes, or none, gives its whole share to what it has.
    """
    stratum = 2 * task_numbers(table, tasks) + table.success
    has = np.bincount(stratum, minlength=2 * len(tasks)).reshape(-1, 2) > 0
    shares = has * np.array([1.0 - success_share, success_share])
    shares[shares.sum(axis=1) == 0] = has[shares.sum(axis=1) == 0]
    return StratifiedSampler(table, stratum, (shares / shares.sum(axis=1, keepdims=True) / len(tasks)).reshape(-1), batch_size)


def _own(table: EpisodeTable, episode: int, number: int) -> _Offer:
    length = int(table.transitions[episode])
    return _Offer(episode, number, length, bool(table.success[episode]), bool(table.terminal[episode]))


def _others(own: str, tasks: Sequence[str], keys: Sequence[str] | None, mode: Impersonate) -> list[tuple[int, Task]]:
    """The tasks, with their numbers, that an episode of one is offered to beside its own; `keys` is what they must be told by."""
    if mode == "orig":
        return []  # no detector is asked, so that tasks of foreign data, which have none, can be learned too
    others = [(number, make_task(name)) for number, name in enumerate(tasks) if name != own]
    skill = make_task(own).skill if mode == "skill" else None
    return [(number, task) for number, task in others if skill in (None, task.skill) and (keys is None or task.judges(keys))]


def _first_success(table: EpisodeTable, state: Floats, spec: ObservationSpec, episode: int, task: Task) -> int | None:
    """The step at which a task's own detector first accepts an episode."""
    start, length = int(table.start[episode]), int(table.transitions[episode])
    rows = state[start : start + length + 1]
    return next((step for step, row in enumerate(rows) if task.success(_unpacked(row, spec))), None)


def _offered(table: EpisodeTable, episode: int, number: int, done: int | None) -> list[_Offer]:
    """The episode as one of another task, or none where that was done before anything happened."""
    if done is None:
        return [_Offer(episode, number, int(table.transitions[episode]), False, False)]
    return [_Offer(episode, number, done, True, True)] if done else []


def _unpacked(row: Floats, spec: ObservationSpec) -> dict[str, Floats]:
    return {key: row[spec.state_slice(key)].reshape(spec.arrays[key].shape) for key in spec.state_keys}


def _as_table(table: EpisodeTable, offers: Sequence[_Offer], tasks: Sequence[str]) -> EpisodeTable:
    without = [name for number, name in enumerate(tasks) if not any(offer.task == number for offer in offers)]
    if without:
        raise FlywheelError(f"There is no episode of {' or '.join(without)}; collect some, or leave it out.")
    episode = np.array([offer.episode for offer in offers], np.int64)
    return EpisodeTable(
        episode_id=tuple(table.episode_id[offer.episode] for offer in offers),
        start=table.start[episode],
        transitions=np.array([offer.transitions for offer in offers], np.int64),
        success=np.array([offer.success for offer in offers], np.bool_),
        terminal=np.array([offer.terminal for offer in offers], np.bool_),
        episode_return=table.episode_return[episode],
        task=np.array([tasks[offer.task] for offer in offers], np.str_),
    )
