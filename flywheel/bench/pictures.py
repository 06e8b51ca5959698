"""python -m flywheel.bench.pictures: updates per second of learning from two 84 x 84 cameras, beside robomimic and LeRobot.

Imitation from the same frames, in each one's own format, through each one's own pipeline: a ResNet-18 per camera, 32 spatial
keypoints, 64 features, two layers of 256; of all pixels, and of random 76 x 76 of them. Each side is a process of its own that
learns when told to, in turn with the others, on one thread and the same core; seconds are those of the process on that core.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from flywheel.algorithms.base import Sizes
from flywheel.algorithms.bc import BC, BCConfig
from flywheel.bench.cameras import CAMERAS, picture_episodes, picture_schema
from flywheel.bench.loaders import write_frames
from flywheel.bench.machine import describe
from flywheel.bench.peers import Side, _stay_on_one_core
from flywheel.core.errors import FlywheelError
from flywheel.core.memory import keep_freed_memory
from flywheel.core.precision import choose_matmul_precision
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import TaskReward
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.store import EpisodeStore
from flywheel.networks.augment import Augmentation
from flywheel.networks.pictures import PictureConfig
from flywheel.training.adam import FusedAdam
from flywheel.training.data import ChunkSource

_EPISODES = 10
_RESNET = PictureConfig("resnet18", pooling="spatial_softmax")
_CROP = 76
_OURS = {"resnet18": _RESNET, "resnet18-crop": replace(_RESNET, crop=_CROP), "nature-shift": PictureConfig("nature")}
_PEERS = {
    "robomimic": ".venv-peers/robomimic/bin/python",
    "robomimic-crop": ".venv-peers/robomimic/bin/python",
    "lerobot": ".venv-interop/lerobot/bin/python",
    "lerobot-crop": ".venv-interop/lerobot/bin/python",
}


@dataclass(frozen=True)
class PicturesConfig:
    """Measure learning from pictures beside robomimic and LeRobot."""

    bursts: int = 5
    """Bursts per side; their median and range are printed."""
    seconds: float = 15.0
    """The length of a burst, in seconds of processor time."""
    batch_size: int = 16
    """Transitions per update."""
    folder: Path = Path()
    """Where the peers' environments are (make bench-peers, make test-interop)."""


def serve(folder: Path, name: str, batch_size: int) -> None:
    """Our side: from the store's columns to the optimizer's step."""
    torch.set_num_threads(1)
    choose_matmul_precision()
    keep_freed_memory()
    store = EpisodeStore.open(folder / "store" / "pictures")
    columns = Columns.open(store, store.snapshot(), arrays=CAMERAS)
    spec = store.schema.observation
    torch.manual_seed(0)
    shapes = {key: (height, width, depth) for key in CAMERAS for height, width, depth in [spec.arrays[key].shape]}
    sizes = Sizes(spec.state_dim, store.schema.action.dim, pictures=shapes)
    learner = BC(BCConfig(encoder=_OURS[name]), sizes)
    optimizer = FusedAdam(learner.parameter_groups())
    sampler = UniformSampler(columns.table)
    source = ChunkSource(columns, sampler, TaskReward(), batch_size=batch_size, discount=0.99, seed=0)
    chunks = source.updates(0, sys.maxsize)
    batches = (chunk[at : at + batch_size] for chunk in chunks for at in range(0, len(chunk), batch_size))
    augment = Augmentation() if name.endswith("shift") else Augmentation(shift=0)
    for line in sys.stdin:
        start, count = time.process_time(), 0
        while (elapsed := time.process_time() - start) < float(line):
            optimizer.zero_grad(set_to_none=True)
            losses = learner.losses(augment(next(batches)))
            torch.autograd.backward(list(losses.values()))
            optimizer.step()
            learner.after_step()
            count += 1
        print(count / elapsed, flush=True)


def main(config: PicturesConfig) -> None:
    """Print a Markdown table; raises `FlywheelError` if a side dies."""
    print("\n".join(f"{key}: {value}" for key, value in describe().items()), flush=True)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-pictures-") as name:
        folder = Path(name)
        store = EpisodeStore.create(folder / "store", "pictures", picture_schema("png"))
        with store.writer() as writer:
            for _, episode in zip(range(_EPISODES), picture_episodes(), strict=False):
                writer.append(episode)
        write_frames(store, folder / "frames")
        _stay_on_one_core()
        rates = _measure(config, folder)
    print(f"\nupdates per second of processor time, one thread, batch {config.batch_size}, median (range)\n")
    print("| side | updates/s |\n|---|---|")
    for side, found in rates.items():
        print(f"| {side} | {statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f}) |")
    _print_ratios(rates)


def _measure(config: PicturesConfig, folder: Path) -> dict[str, list[float]]:
    """The rates of every side that is installed, in turns, after one burst each that is thrown away."""
    ours = {f"flywheel {name}": [sys.executable, "-m", "flywheel.bench.pictures", "serve", str(folder), name] for name in _OURS}
    script = str(Path(__file__).with_name("peer_pictures.py"))
    theirs = {}
    for name, python in _PEERS.items():
        if (path := config.folder / python).exists():
            theirs[name] = [str(path), script, str(folder), name]
        else:
            print(f"{name} is left out: there is no {path}.")
    with ExitStack() as stack:
        commands = {**ours, **theirs}.items()
        sides = {name: stack.enter_context(Side([*command, str(config.batch_size)])) for name, command in commands}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(config.bursts + 1):
            for name, side in sides.items():
                rate = side.burst(config.seconds if number else 1.0)
                if number:
                    rates[name].append(rate)
    return rates


def _print_ratios(rates: dict[str, list[float]]) -> None:
    for name in (name for name in rates if name in _PEERS):
        ours = rates["flywheel resnet18-crop" if name.endswith("crop") else "flywheel resnet18"]
        ratios = [one / other for one, other in zip(ours, rates[name], strict=True)]
        print(f"\nours / {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["serve"]:
            serve(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        else:
            main(tyro.cli(PicturesConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")
