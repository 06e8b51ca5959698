"""A point in a T-shaped corridor: along y = 0 to the junction at x = 1, from there up or down. No episode does both."""

from __future__ import annotations

import numpy as np
import torch

from flywheel.algorithms.base import Algorithm
from flywheel.core.batch import Batch

STEP, WIDTH, DISCOUNT = 0.2, 0.1, 0.95
Legs = list[np.ndarray]


def move(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """One step of (..., 2) inside the walls: off the junction's column only x moves."""
    x = np.clip(position[..., 0] + STEP * action[..., 0], 0, 1)
    x = np.where(np.abs(position[..., 1]) > WIDTH, position[..., 0], x)
    y = np.clip(position[..., 1] + STEP * action[..., 1], -1, 1)
    y = np.where(x > 1 - WIDTH, y, np.clip(y, -WIDTH / 2, WIDTH / 2))
    return np.stack([x, y], axis=-1)


def episodes(seed: int, count: int = 120) -> list[tuple[np.ndarray, np.ndarray]]:
    """(positions (T + 1, 2), actions (T, 2)) of walks from the foot to the junction, and from the junction up or down."""
    rng = np.random.default_rng(seed)
    legs = [((0.0, 0.0), (1.0, 0.0)), ((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (0.0, -1.0))]
    result = []
    for number in range(count):
        start, direction = legs[number % 3]
        positions, actions = [np.array(start)], []
        for _ in range(8):
            action = np.clip(np.array(direction) * 0.8 + rng.normal(0, 0.4, 2), -1, 1)
            if rng.random() < 0.2:
                action = rng.uniform(-1, 1, 2)
            after = move(positions[-1], action)
            if number % 3 and after[0] < 1 - WIDTH:  # the upper and lower legs never enter the foot's corridor
                after = positions[-1]
            actions.append(action)
            positions.append(after)
            if number % 3 == 0 and after[0] > 1 - WIDTH / 2:
                break
        result.append((np.array(positions), np.array(actions)))
    return result


def actionable_batch(
    data: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator, size: int, p_chained: float = 0.5, ahead: int = 0
) -> Batch:
    """Hindsight and chained sub-trajectories, as `flywheel.datasets.relabel.ActionableGoals` defines them.

    With `ahead` there are the actor's own goals and what lies so many steps on the way to them, as `ActorGoals` has them.
    """
    rows, on_the_way = [], []
    for _ in range(size):
        positions, actions = data[rng.integers(len(data))]
        t = rng.integers(len(actions))
        i = rng.integers(t, len(actions))
        chained = rng.random() < p_chained
        other = data[rng.integers(len(data))][0]
        goal = other[rng.integers(1, len(other))] if chained else positions[i + 1]
        reached = t == i and not chained
        rows.append((positions[t], actions[t], positions[t + 1], goal, float(reached), t == i and chained))
        if ahead:
            end = rng.integers(t, len(actions)) + 1
            on_the_way.append((positions[end], positions[min(t + ahead, end)]))
    observation, action, following, goal, reached, is_chained = (
        torch.tensor(np.array(column)) for column in zip(*rows, strict=True)
    )
    reward = reached.float()
    return Batch(
        observation={"state": observation.float()},
        action=action.float(),
        reward=reward,
        discount=DISCOUNT * (1 - reward),
        next_observation={"state": following.float()},
        goal={"state": goal.float()},
        is_chained=is_chained,
        **_ahead(on_the_way),
    )


def _ahead(on_the_way: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, torch.Tensor]]:
    if not on_the_way:
        return {}
    goal, later = (torch.tensor(np.array(column)).float() for column in zip(*on_the_way, strict=True))
    return {"actor_goal": {"state": goal}, "high_actor_target": {"state": later}}


def hindsight_batch(
    data: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator, size: int, *, contrastive: bool = False
) -> Batch:
    """OGBench's goals, and HIQL's subgoals three steps ahead, as `flywheel.datasets.relabel.ActorGoals` defines them."""
    rows = []
    for _ in range(size):
        positions, actions = data[rng.integers(len(data))]
        t, end = rng.integers(len(actions)), len(actions)
        other = data[rng.integers(len(data))][0]
        anywhere = other[rng.integers(1, len(other))]
        future, actors_future = (positions[rng.integers(t, end) + 1] for _ in range(2))
        kind = rng.random()
        goal = future if contrastive or kind < 0.5 else positions[t + 1] if kind < 0.7 else anywhere
        actor_goal = actors_future if rng.random() < 0.5 else anywhere
        reached = float((positions[t + 1] == goal).all())
        rows.append((positions[t], actions[t], positions[t + 1], goal, actor_goal, positions[min(t + 3, end)], reached))
    state, action, following, goal, actor_goal, ahead, reached = (
        torch.tensor(np.array(column)).float() for column in zip(*rows, strict=True)
    )
    return Batch(
        observation={"state": state},
        action=action,
        reward=reached - 1,
        discount=DISCOUNT * (1 - reached),
        next_observation={"state": following},
        goal={"state": goal},
        actor_goal={"state": actor_goal},
        low_actor_goal={"state": ahead},
        high_actor_target={"state": ahead},
    )


def distance_to_goal(algorithm: Algorithm, start: tuple[float, float], goal: tuple[float, float], steps: int = 25) -> float:
    """The smallest distance to the goal on the way of the deterministic policy."""
    position, best = np.array(start), np.inf
    for _ in range(steps):
        state = {"state": torch.tensor(position, dtype=torch.float32)[None]}
        with torch.inference_mode():
            action = algorithm.act(state, {"state": torch.tensor([goal])}, deterministic=True)[0].numpy()
        position = move(position, action)
        best = min(best, float(np.linalg.norm(position - goal)))
    return best
