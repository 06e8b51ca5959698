"""CORL's side of `make bench-peers`: run by the Python of `.venv-peers`, on CORL's scripts as they are.

Speaks as `peer_d3rlpy.py` does. A script's own `train` runs with its settings but for the sizes of our side; what it imports for
D4RL, environments and a web service stands in here, and its call that would log an update to that service counts it instead.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

OBSERVATION_DIM, ACTION_DIM, HORIZON = 60, 7, 200
SCRIPTS = {"bc": "any_percent_bc", "iql": "iql", "cql": "cql", "awac": "awac", "td3_bc": "td3_bc"}
SETTINGS: dict[str, dict[str, Any]] = {
    "bc": {"frac": 1.0},
    "cql": {"q_n_hidden_layers": 2, "cql_alpha": 5.0},
}
_FOREVER = 10**9


class Bursts:
    """Counts updates, and pauses between bursts until the next line of standard input."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the script prints; answers go alone
        self._count, self._ends, self._began = 0, 0.0, 0.0

    def count(self, *_: Any, **__: Any) -> None:
        """One more update, after which a burst may end."""
        self._count += 1
        now = time.process_time()
        if now < self._ends:
            return
        if self._ends:
            print(self._count / (now - self._began), file=self._answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        self._count, self._began = 0, time.process_time()
        self._ends = self._began + float(line)


def dataset(transitions: int) -> dict[str, Any]:
    """Random episodes of 200 steps as D4RL gives them."""
    rng = np.random.default_rng(0)
    terminals = np.zeros(transitions, np.float32)
    terminals[HORIZON - 1 :: HORIZON] = 1.0
    return {
        "observations": rng.standard_normal((transitions, OBSERVATION_DIM), np.float32),
        "next_observations": rng.standard_normal((transitions, OBSERVATION_DIM), np.float32),
        "actions": rng.uniform(-1, 1, (transitions, ACTION_DIM)).astype(np.float32),
        "rewards": rng.standard_normal(transitions, np.float32),
        "terminals": terminals,
    }


def stand_in(transitions: int, bursts: Bursts) -> None:
    """Put the modules in place that the scripts import and that nothing is measured of."""
    high = np.ones(ACTION_DIM, np.float32)
    env = SimpleNamespace(
        observation_space=SimpleNamespace(shape=(OBSERVATION_DIM,)),
        action_space=SimpleNamespace(shape=(ACTION_DIM,), high=high, seed=lambda seed: None),
        seed=lambda seed: None,
    )
    wrappers = SimpleNamespace(TransformObservation=lambda env, change: env, TransformReward=lambda env, change: env)
    contents: dict[str, dict[str, Any]] = {
        "gym": {"make": lambda name: env, "wrappers": wrappers, "Env": object},
        "d4rl": {"qlearning_dataset": lambda env: dataset(transitions)},
        "pyrallis": {"wrap": lambda: lambda function: function},
        "wandb": {"init": lambda **settings: None, "run": SimpleNamespace(save=lambda: None), "log": bursts.count},
    }
    for name, attributes in contents.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        sys.modules[name] = module


def without_third_layer(actor: Any) -> Any:
    """CQL's actor with two hidden layers; their number is no setting there."""

    class Actor(actor):  # type: ignore[misc]
        base_network: torch.nn.Sequential

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            layers = list(self.base_network.children())
            self.base_network = torch.nn.Sequential(*layers[:4], layers[-1])

    return Actor


def main(algorithm: str, transitions: int) -> None:
    """Serve bursts of one algorithm until standard input closes."""
    torch.set_num_threads(1)
    stand_in(transitions, Bursts())
    path = Path(sys.prefix) / "corl" / "algorithms" / "offline" / f"{SCRIPTS[algorithm]}.py"
    spec = importlib.util.spec_from_file_location(SCRIPTS[algorithm], path)
    assert spec
    assert spec.loader
    script: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # its dataclass looks itself up
    spec.loader.exec_module(script)
    if algorithm == "cql":
        script.TanhGaussianPolicy = without_third_layer(script.TanhGaussianPolicy)
    sizes = {"buffer_size": transitions, "device": "cpu", **SETTINGS.get(algorithm, {})}
    # One of the scripts has other words for the same.
    steps = {"num_train_ops": _FOREVER, "eval_frequency": _FOREVER} if algorithm == "awac" else {"max_timesteps": _FOREVER}
    script.train(script.TrainConfig(**sizes, **steps, **({} if algorithm == "awac" else {"eval_freq": _FOREVER})))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
