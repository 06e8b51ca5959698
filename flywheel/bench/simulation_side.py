"""One side of the simulation benchmark: a process that simulates Lift with one set of cameras, once for each line it reads.

Arguments are `robosuite`, which is `robosuite.make` with its defaults, or `flywheel`, and the cameras' names. A line with a
number of seconds is answered with control steps per second of processor time, over about so long; a line `0` with resets per
second of processor time. All sides stay on the same core and get the same actions.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Protocol

import numpy as np

from flywheel.core.specs import Array, ArraySpec
from flywheel.robots.base import Scene
from flywheel.robots.sim import SimRobot

SIZE = 84
"""Of a picture, in pixels."""
OWN_NAMES = {"agentview": "agentview", "eye_in_hand": "robot0_eye_in_hand"}
"""The cameras by our names and by robosuite's."""
_MOST = 900
"""Control steps in a burst; robosuite's episodes end after 1,000."""


class Simulation(Protocol):
    """What is measured; a step includes an observation with the pictures."""

    def reset(self) -> object:
        """Draw an initial state."""

    def step(self, action: Array) -> object:
        """Simulate one control period."""


class Ours:
    """The simulated robot with the cube, on scenes of consecutive seeds."""

    def __init__(self, cameras: list[str]) -> None:
        objects = {"cube_pos": ArraySpec((3,), unit="m"), "cube_quat": ArraySpec((4,), unit="xyzw")}
        self.scene = Scene("Lift", objects, cameras=dict.fromkeys(cameras, (SIZE, SIZE)))
        self.robot = SimRobot(self.scene)
        self.robot.connect()

    def reset(self) -> dict[str, Array]:
        """The next seed's initial state."""
        self.scene = self.scene.with_seed(self.scene.seed + 1)
        self.robot.reset(self.scene)
        return self.robot.observe()

    def step(self, action: Array) -> dict[str, Array]:
        """Act and observe."""
        self.robot.act(action)
        return self.robot.observe()


def robosuite_defaults(cameras: list[str], **changes: Any) -> Any:
    """The environment as robosuite makes it, but for its cameras' names and their size."""
    import robosuite

    names = [OWN_NAMES[camera] for camera in cameras]
    pictures = {"camera_names": names, "camera_heights": SIZE, "camera_widths": SIZE} if names else {}
    return robosuite.make(
        "Lift", robots="Panda", use_camera_obs=bool(names), has_offscreen_renderer=bool(names), **pictures, **changes
    )


def main(side: str, cameras: list[str]) -> None:
    """Serve until standard input closes."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    simulation: Simulation = Ours(cameras) if side == "flywheel" else robosuite_defaults(cameras)
    simulation.reset()
    for line in sys.stdin:
        start = time.process_time()
        simulation.reset()
        resets = 1 / (time.process_time() - start)
        print(rate(simulation, float(line)) if float(line) else resets, flush=True)


def rate(simulation: Simulation, seconds: float) -> float:
    """Control steps per second of processor time."""
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (_MOST, 7)).astype(np.float32)
    start = time.process_time()
    done, elapsed = 0, 0.0
    while elapsed < seconds and done < _MOST:
        simulation.step(actions[done])
        done, elapsed = done + 1, time.process_time() - start
    return done / elapsed


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
