"""OGBench's own JAX agents on our data, in an environment of their own: the same updates, the same evaluation, one core.

    .venv-peers/ogbench/bin/python reproductions/ogbench/peer.py --npz scene-play.npz --dataset scene-play --algorithm gciql

`make .venv-peers/ogbench/.ready` makes that environment, with OGBench's impls/ folder in it. This file imports nothing of ours.
What their main.py does is done here without its logging to a web service: sample, update, and `evaluate` at the end.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
IMPLS = Path(sys.prefix) / "impls"


def parse() -> argparse.Namespace:
    """The options of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npz", required=True, help="the data set, as reproductions.ogbench.data exports it")
    parser.add_argument("--dataset", required=True, help="its name, for example scene-play")
    parser.add_argument("--algorithm", required=True, help="gcbc, gcivl, gciql, crl or hiql")
    parser.add_argument("--settings", default="{}", help="JSON of settings that differ from the agent's get_config()")
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--hidden", type=int, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=50, help="per goal")
    parser.add_argument("--output", required=True, help="the JSON file of the result")
    return parser.parse_args()


def configure(options: argparse.Namespace) -> Any:
    """The agent's own configuration with the run's budget and settings."""
    config = importlib.import_module(f"agents.{options.algorithm}").get_config()
    given = {"batch_size": options.batch_size, "actor_hidden_dims": tuple(options.hidden), **json.loads(options.settings)}
    if "value_hidden_dims" in config:
        given["value_hidden_dims"] = tuple(options.hidden)
    config.update(given)
    return config


def train(options: argparse.Namespace, config: Any) -> tuple[Any, float]:
    """The trained agent, and the seconds that its updates took, compilation left out."""
    import numpy as np
    import ogbench.utils
    from agents import agents
    from utils import datasets

    np.random.seed(options.seed)  # noqa: NPY002 (their sampling draws from it)
    data = datasets.Dataset.create(**ogbench.utils.load_dataset(options.npz, compact_dataset=True))
    source = getattr(datasets, config["dataset_class"])(data, config)
    example = source.sample(1)
    agent = agents[config["agent_name"]].create(options.seed, example["observations"], example["actions"], config)
    agent, _ = agent.update(source.sample(config["batch_size"]))
    began = time.perf_counter()
    for done in range(2, options.updates + 1):
        agent, info = agent.update(source.sample(config["batch_size"]))
        if done % 1000 == 0:
            losses = {key: round(float(value), 4) for key, value in info.items() if key.endswith("loss")}
            print(f"{done} updates in {time.perf_counter() - began:.0f} s: {losses}", flush=True)
    import jax

    jax.block_until_ready(agent)
    return agent, time.perf_counter() - began


def evaluate(options: argparse.Namespace, config: Any, agent: Any) -> list[float]:
    """The success rate of each of the five goals."""
    import gymnasium
    from utils.evaluation import evaluate as evaluate_goal

    environment = options.dataset.rpartition("-")[0]
    env = gymnasium.make(f"{environment}-v0")
    rates = []
    for goal in range(1, 6):
        stats, _, _ = evaluate_goal(agent, env, goal, config, num_eval_episodes=options.episodes)
        rates.append(float(stats["success"]))
        print(f"goal {goal}: {rates[-1]:.2f}", flush=True)
    return rates


def main() -> None:
    """Train, evaluate and write the result."""
    options = parse()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})  # JAX keeps to no limit on threads
    os.environ.update({"XLA_FLAGS": ONE_CORE, "JAX_PLATFORMS": "cpu", "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")})
    sys.path.insert(0, str(IMPLS))
    config = configure(options)
    agent, training = train(options, config)
    began = time.perf_counter()
    rates = evaluate(options, config, agent)
    result = {
        "code": "ogbench-impls",
        "dataset": options.dataset,
        "algorithm": options.algorithm,
        "seed": options.seed,
        "updates": options.updates,
        "batch_size": options.batch_size,
        "hidden": options.hidden,
        "settings": json.loads(options.settings),
        "successes": [round(rate * options.episodes) for rate in rates],
        "episodes_per_goal": options.episodes,
        "training_seconds": training,
        "updates_per_second": options.updates / training,
        "evaluation_seconds": time.perf_counter() - began,
        "command": " ".join(["python", *sys.argv]),
        "versions": {name: importlib.metadata.version(name) for name in ("ogbench", "jax", "flax", "mujoco", "numpy")},
    }
    Path(options.output).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
