"""OGBench's goal-reaching tasks (Park, Frans, Eysenbach, Levine 2024; arXiv 2410.20092): ``ogbench:scene`` and others.

``ogbench:visual-scene`` and the like show the same by one picture and nothing else, and their goals too.

An episode of seed n reaches for goal n mod 5 + 1, so that 250 seeds in a row are OGBench's evaluation: 5 goals, 50 episodes each.
`reproductions.ogbench` makes the data that the benchmark is learned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np

from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec
from flywheel.robots._meshes import simplify_visual_meshes
from flywheel.tasks._foreign import ForeignTask, GymEnv, import_benchmark

_SHADOWS, _TRIANGLES = 512, 2_000
"""Pixels of a shadow map's side, and triangles of a mesh at most."""
GOALS = 5
"""Goals per environment."""


@dataclass(frozen=True)
class World:
    """What is known of an environment before it is built."""

    instruction: str
    state_dim: int
    """0 where it shows a picture instead."""
    horizon: int
    """Steps, from the registration in OGBench 1.2.2."""

    @property
    def observation(self) -> ObservationSpec:
        """What it shows: the state, or a picture where there is none."""
        return ObservationSpec({"state": ArraySpec((self.state_dim,))} if self.state_dim else {"pixels": _PICTURE})


_PICTURE = ArraySpec((64, 64, 3), "uint8")
_STATES = {
    "pointmaze-medium": World("go to the marked place of the medium maze", 2, 1000),
    "pointmaze-large": World("go to the marked place of the large maze", 2, 1000),
    "pointmaze-giant": World("go to the marked place of the giant maze", 2, 1000),
    "pointmaze-teleport": World("go to the marked place of the maze with teleporters", 2, 1000),
    "cube-single": World("put the cube where it is shown", 28, 200),
    "cube-double": World("put two cubes where they are shown", 37, 500),
    "cube-triple": World("put three cubes where they are shown", 46, 1000),
    "cube-quadruple": World("put four cubes where they are shown", 55, 1000),
    "scene": World("bring cube, buttons, drawer and window to the state that is shown", 40, 750),
    "puzzle-3x3": World("press buttons until all nine lights are as shown", 55, 500),
    "puzzle-4x4": World("press buttons until all sixteen lights are as shown", 83, 500),
    "puzzle-4x5": World("press buttons until all twenty lights are as shown", 99, 1000),
    "puzzle-4x6": World("press buttons until all twenty-four lights are as shown", 115, 1000),
}
_VISUAL = {f"visual-{name}": replace(world, state_dim=0) for name, world in _STATES.items() if not name.startswith("pointmaze")}
WORLDS = _STATES | _VISUAL
_POINT = ActionSpec((-1.0,) * 2, (1.0,) * 2, "point", "delta", "world", (0.2, 0.2), 10.0)
_ARM = ActionSpec((-1.0,) * 5, (1.0,) * 5, "ik_pose_yaw", "delta", "base", (0.05, 0.05, 0.05, 0.3, 1.0), 20.0)
"""Metres, radians and the share of the gripper's way, relative to where they are."""


class OGBench(ForeignTask):
    """Reach the goal that the environment sets; success is what OGBench says it is."""

    variants = tuple(WORLDS)
    world = ""
    objects: Mapping[str, ArraySpec] = {}
    sets_goals = True
    packages = ("ogbench",)
    success_detector = "ogbench-info-success"

    def __init__(self, environment: str) -> None:
        """Choose the environment, one of `WORLDS`."""
        known = WORLDS[environment]
        self.environment = environment
        self.name = f"ogbench:{environment}"
        self.instruction, self.horizon = known.instruction, known.horizon
        self.observation = known.observation
        is_maze = environment.startswith("pointmaze")
        self.action = _POINT if is_maze else _ARM
        self.skill = "navigate" if is_maze else "arrange"
        super().__init__()

    def build(self) -> GymEnv:
        """The environment as it is registered, without the limit on steps, which is ours to keep."""
        return make_simulation(self.environment)

    def begin(self, simulation: GymEnv, seed: int) -> tuple[Array, Mapping[str, Any]]:
        """The initial state and the goal of a seed."""
        return reset(simulation, seed, {"task_id": seed % GOALS + 1})

    def unpack(self, raw: Any) -> dict[str, Array]:
        """The state, or the picture."""
        return {key: np.asarray(raw, spec.dtype) for key, spec in self.observation.arrays.items()}


def make_simulation(environment: str, **settings: Any) -> GymEnv:
    """An environment of `WORLDS` whose every random draw can be seeded; raises `FlywheelError` without the ogbench package."""
    import_benchmark("ogbench", "ogbench")
    env = gymnasium.make(f"{environment}-v0", disable_env_checker=True, **settings).unwrapped
    # The arm makes a new action space, with a random state of its own, whenever it is asked for one, and draws from it at resets.
    kind = type(env)
    drawn = {"_initialize_renderer": _begin_to_draw} if environment in _VISUAL else {}
    env.__class__ = type(kind.__name__, (kind,), {"action_space": env.action_space, **drawn})
    return env


def _begin_to_draw(env: GymEnv) -> None:
    """Draw five times as fast as OGBench does: its shadows are 4096 pixels wide, which 64 pixels cannot show.

    A picture differs by 0.6 of 255 in the mean. The physics stays the same to the bit.
    """
    model = env._model
    model.vis.quality.shadowsize, model.vis.quality.offsamples = _SHADOWS, 0
    simplify_visual_meshes(model, _TRIANGLES)
    super(type(env), env)._initialize_renderer()


def reset(simulation: GymEnv, seed: int, options: dict[str, Any] | None = None) -> tuple[Array, Mapping[str, Any]]:
    """Reset bit-identically: OGBench draws from the environment's generator, its action space's and numpy's global one."""
    simulation.action_space.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    observation, info = simulation.reset(seed=seed, options=options)
    return observation, info
