"""The scripts that make OGBench's data: noisy walks through a maze, and a robot at play.

What they do is what OGBench's data_gen_scripts/generate_locomaze.py (navigate) and generate_manipspace.py (play) do, with the
settings of its commands.sh. Those cannot be repeated, as their seed is never used; here an episode follows from its seed alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from flywheel.core.specs import Array
from flywheel.tasks.ogbench import make_simulation, reset

STEPS = 1000
"""Transitions per episode."""
MAZE_NOISE = 0.5
"""The standard deviation of what is added to every action in a maze."""
PLAY_NOISE, PLAY_SMOOTHING = 0.1, 0.5
"""The noise of the arm's plans and how far it is smoothed in time."""
_RETRY = 100_000
"""Between the seeds of two attempts at one episode; more than the episodes of any data set."""

Script = Callable[[int], tuple[list[Array], list[Array]]]
"""From a seed to an episode's STEPS + 1 observations, float32 states or uint8 pictures, and STEPS actions, float32."""


def navigate(environment: str) -> Script:
    """Walk to one random corner of the maze after another, over the shortest way, with noise."""
    sim = make_simulation(environment, terminate_at_goal=False)
    free = [(int(i), int(j)) for i, j in np.argwhere(sim.maze_map == 0)]
    corners = [cell for cell in free if not _is_hallway(sim.maze_map, *cell)]

    @cache
    def next_cell(start: tuple[int, int], goal: tuple[int, int]) -> Array:
        subgoal, _ = sim.get_oracle_subgoal(sim.ij_to_xy(start), sim.ij_to_xy(goal))
        return np.asarray(subgoal)

    def run(seed: int) -> tuple[list[Array], list[Array]]:
        rng = np.random.default_rng(seed)
        start, goal = free[rng.integers(len(free))], corners[rng.integers(len(corners))]
        observation, _ = reset(sim, seed, {"task_info": {"init_ij": start, "goal_ij": goal}})
        observations, actions = [_kept(observation)], []
        for _ in range(STEPS):
            place = sim.get_xy()
            way = next_cell(sim.xy_to_ij(place), sim.xy_to_ij(sim.cur_goal_xy)) - place
            action = way / (np.linalg.norm(way) + 1e-6) + rng.normal(0.0, MAZE_NOISE, 2)
            actions.append(np.clip(action, -1, 1).astype(np.float32))
            observation, _, _, _, info = sim.step(actions[-1])
            observations.append(_kept(observation))
            if info["success"]:
                sim.set_goal(goal_xy=sim.add_noise(sim.ij_to_xy(corners[rng.integers(len(corners))])))
        return observations, actions

    return run


def play(environment: str) -> Script:
    """Do one random thing with the objects after another, each along a noisy plan."""
    sim = make_simulation(environment, terminate_at_goal=False, mode="data_collection")
    oracles = _oracles(sim, environment)

    def attempt(seed: int) -> tuple[list[Array], list[Array], list[Array]]:
        observation, info = reset(sim, seed)
        oracle = _begin(oracles, observation, info)
        observations, actions, positions = [_kept(observation)], [], []
        for _ in range(STEPS):
            actions.append(np.clip(oracle.select_action(observation, info), -1, 1).astype(np.float32))
            observation, _, _, _, info = sim.step(actions[-1])
            observations.append(_kept(observation))
            positions.append(info["prev_qpos"])
            if oracle.done:
                oracle = _begin(oracles, *sim.set_new_target(p_stack=_stacking(environment, seed)))
        return observations, actions, positions

    def run(seed: int) -> tuple[list[Array], list[Array]]:
        while True:
            observations, actions, positions = attempt(seed)
            if not environment.endswith("scene") or _cube_is_in_sight(np.asarray(positions)):
                return observations, actions
            seed += _RETRY

    return run


def _kept(observation: Array) -> Array:
    """An observation as it is stored: a picture as it is, a state in single precision."""
    return np.asarray(observation) if observation.dtype == np.uint8 else np.asarray(observation, np.float32)


def _begin(oracles: Mapping[str, Any], observation: Array, info: Mapping[str, Any]) -> Any:
    """The oracle of what is to be done next, told where things are."""
    oracle = oracles[info["privileged/target_task"]]
    oracle.reset(observation, info)
    return oracle


def _oracles(sim: Any, environment: str) -> dict[str, Any]:
    """OGBench's own scripts for each kind of object."""
    family = environment.removeprefix("visual-").split("-")[0]
    kinds = {"cube": ("cube",), "scene": ("cube", "button", "drawer", "window"), "puzzle": ("button",)}[family]
    closed = {"gripper_always_closed": True} if family == "puzzle" else {}
    found = {}
    for kind in kinds:
        module = importlib.import_module(f"ogbench.manipspace.oracles.plan.{kind}_plan")
        oracle = getattr(module, f"{kind.capitalize()}PlanOracle")
        found[kind] = oracle(env=sim, noise=PLAY_NOISE, noise_smoothing=PLAY_SMOOTHING, **closed)
    return found


def _stacking(environment: str, seed: int) -> float:
    """How often a cube is put on another in this episode."""
    ranges = {"single": (0.0, 0.0), "double": (0.0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5)}
    low, high = ranges.get(environment.split("-")[-1], (0.5, 0.5))
    return float(np.random.default_rng([seed, 1]).uniform(low, high))


def _cube_is_in_sight(positions: Array) -> bool:
    """Whether the scene's cube, in columns 14 to 16 of (T, Q) positions, stays on the table or in the drawer.

    A goal picture could not show it elsewhere, so OGBench drops such an episode and plays another.
    """
    y, z = positions[:, 15], positions[:, 16]
    too_far_right, beside_the_drawer = y >= 0.29, (y <= -0.3) & ((z < 0.06) | (z > 0.08))
    return not bool((too_far_right | beside_the_drawer).any())


def _is_hallway(maze: Array, i: int, j: int) -> bool:
    vertical, horizontal = (maze[i - 1, j], maze[i + 1, j]), (maze[i, j - 1], maze[i, j + 1])
    return (vertical, horizontal) in (((0, 0), (1, 1)), ((1, 1), (0, 0)))
