"""How far our simulation is from robosuite's: prints one line of JSON; each question in a process, and GL context, of its own.

`motion` asks for the greatest difference of a joint after random actions, `draw FILE` saves our pictures of some states, and
`compare FILE` asks how robosuite's default pictures of the same states differ from them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.bench.simulation_side import OWN_NAMES, Ours, robosuite_defaults
from flywheel.core.specs import Array

_STATES, _BETWEEN, _STEPS, _SEEDS = 20, 10, 80, 5
"""States that are drawn, control steps between them; control steps of a motion, and motions."""
_VISIBLE = 16
"""A pixel's channel that differs by more counts as changed."""


def motion() -> dict[str, float]:
    """The greatest difference of a joint, in rad, between our control step and robosuite's from the same initial states."""
    ours = Ours([])
    env = ours.robot._env
    differences = []
    for seed in range(_SEEDS):
        actions = np.random.default_rng(seed).uniform(-1.0, 1.0, (_STEPS, 7)).astype(np.float32)
        places = []
        for step in (ours.robot.act, env.step):
            ours.robot.reset(ours.scene.with_seed(seed))
            for action in actions:
                step(action)
                env.sim.forward()
            places.append(env.sim.data.qpos[:7].copy())
        differences.append(np.abs(places[0] - places[1]).max())
    return {"joints": float(max(differences))}


def draw(path: Path) -> dict[str, float]:
    """Save states and our pictures of them."""
    ours = Ours(list(OWN_NAMES))
    ours.reset()
    states, pictures = [], []
    for action in np.random.default_rng(0).uniform(-1.0, 1.0, (_STATES, 7)).astype(np.float32):
        for _ in range(_BETWEEN):
            seen = ours.step(action)
        states.append(ours.robot._env.sim.data.qpos.copy())
        pictures.append([seen[camera] for camera in OWN_NAMES])
    np.savez(path, states=np.stack(states), pictures=np.stack(pictures))
    return {"pictures": len(pictures)}


def compare(path: Path) -> dict[str, list[float]]:
    """By camera, the mean difference of all channels, and the share of pixels that visibly differ."""
    saved = np.load(path)
    env = robosuite_defaults(list(OWN_NAMES), seed=0)  # as large a cube as in our model
    env.visualize(dict.fromkeys(env._visualizations, False))
    theirs = np.stack([_pictures(env, state) for state in saved["states"]])
    away = np.abs(theirs.astype(int) - saved["pictures"])
    return {
        camera: [float(away[:, k].mean()), float((away[:, k].max(axis=-1) > _VISIBLE).mean())]
        for k, camera in enumerate(OWN_NAMES)
    }


def _pictures(env: Any, state: Array) -> Array:
    env.sim.data.qpos[:] = state
    env.sim.forward()
    seen = env._get_observations(force_update=True)
    return np.stack([seen[f"{name}_image"][::-1] for name in OWN_NAMES.values()])  # it stands on its head


if __name__ == "__main__":
    found = motion() if sys.argv[1] == "motion" else {"draw": draw, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps(found))
