"""Training of a success detector: labelled episodes of one or several stores in, a calibrated classifier out.

A run folder holds:

    config.yaml           what was asked for
    snapshot.json …       the episodes of each store, fixed at the start, with their labels
    last.ckpt             weights, optimizer, update counter: an interrupted run goes on from it, bit-identically
    detector.safetensors  the result
    measured.json         how it does on held-out episodes
    reliability.png       the same to look at

Whole episodes are held out, by their ids. Their logits are calibrated as fits one half of them and measured on the other, and the
other way round; the detector itself keeps the calibration that fits both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flywheel.core import config as configs
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import code_version
from flywheel.core.precision import choose_matmul_precision
from flywheel.datasets.index import IndexRow
from flywheel.datasets.moments import check_cameras
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.table import Ints
from flywheel.detector import DETECTOR_FILE, DetectorHeader, SuccessDetector, build_classifier
from flywheel.networks.augment import Augmentation
from flywheel.networks.detector import SuccessClassifier
from flywheel.networks.pictures import PictureConfig, Shape, as_batch
from flywheel.training.callbacks import AtomicCheckpointIO
from flywheel.training.fit import CHECKPOINT, load_checkpoint
from flywheel.training.folder import locked
from flywheel.training.held_out import finish
from flywheel.training.moments import MomentConfig, Moments, Progress, look, read_moments, weights
from flywheel.training.sources import snapshot_file

_CONFIG = "config.yaml"
_LARGEST_SEED = 2**40
"""Times the updates of a run it must fit into a generator's seed."""


@dataclass(frozen=True)
class DetectorConfig:
    """One training run of a success detector."""

    store: tuple[Path, ...]
    """The episode stores to learn from; all have the same cameras, and may hold different tasks."""
    output: Path
    """The run folder; an unfinished run in it is resumed."""
    tasks: tuple[str, ...] = ()
    """The tasks to tell success of; all that the stores hold, where none is named."""
    cameras: tuple[str, ...] = ()
    """What the detector sees; all cameras that the stores have in common, where none is named."""
    where: str = ""
    """Learn from the episodes for which this holds alone, as in 'flywheel store query'."""
    held_out: float = 0.3
    """The share of the episodes that is not learned from, but calibrated and measured on."""
    moments: MomentConfig = field(default_factory=MomentConfig)
    """Which moments of an episode are shown."""
    pictures: PictureConfig = field(default_factory=PictureConfig)
    """The encoder of each camera."""
    hidden: tuple[int, ...] = (256,)
    """The widths of the layers behind the encoders."""
    augment: Augmentation = field(default_factory=Augmentation)
    """What is done to pictures while learning."""
    any_colors: bool = False
    """Take episodes in which a camera seems to show blue for red as they are, where scenes differ so much by nature."""
    updates: int = 3_000
    """Gradient updates."""
    batch_size: int = 64
    """Moments per update: every task has the same share, and successes half of that."""
    learning_rate: float = 3e-4
    """AdamW's, which falls to zero along a cosine."""
    weight_decay: float = 1e-2
    seed: int = 0
    """Everything random follows from it."""
    initial: Path | None = None
    """A detector of the same tasks and cameras to start from."""
    save_every: int = 500
    """Updates between checkpoints."""
    threads: int = 1
    """CPU threads."""


def load_config(path: Path) -> DetectorConfig:
    """The configuration of an earlier run, from its config.yaml; raises `FlywheelError` if it is not one."""
    return configs.from_dict(DetectorConfig, configs.load_dict(path))


def _ignore(done: int, total: int) -> None:
    """Nobody watches."""


def train_detector(config: DetectorConfig, on_progress: Progress = _ignore, on_reading: Progress = _ignore) -> SuccessDetector:
    """Train, or resume, or return what is finished already; `on_progress` counts updates, `on_reading` episodes before them.

    Raises `FlywheelError` for a folder that holds another run, for cameras or tasks that the stores lack, and for a task that has
    only successes or only failures.
    """
    _check(config)
    with locked(config.output):
        _check_held(config)
        if not (config.output / DETECTOR_FILE).exists():
            _run(config, on_progress, on_reading)
    return SuccessDetector.load(config.output)


@dataclass(frozen=True, eq=False)
class _Source:
    store: EpisodeStore
    snapshot: Snapshot
    rows: list[IndexRow]


def _run(config: DetectorConfig, on_progress: Progress, on_reading: Progress) -> None:
    torch.set_num_threads(config.threads)
    choose_matmul_precision()
    sources = [_open(path, config, number) for number, path in enumerate(config.store)]
    initial = SuccessDetector.load(config.initial) if config.initial else None
    header = _header(config, sources, initial)
    for source in sources:
        check_cameras(source.store, header.cameras)
    network = _build(config, header, initial)
    episodes = [(source.store, source.rows) for source in sources]
    moments = read_moments(episodes, header.tasks, tuple(header.cameras), config.moments, config.held_out, on_reading)
    _check_outcomes(moments, header.tasks)
    usual = {} if config.any_colors else look(moments)
    _claim(config, sources)
    _fit(config, moments, network, on_progress)
    finish(config.output, header, moments, network, usual)


def _open(path: Path, config: DetectorConfig, number: int) -> _Source:
    store, pinned = EpisodeStore.open(path), config.output / snapshot_file(number)
    if pinned.exists():
        snapshot = Snapshot.load(pinned)
        return _Source(store, snapshot, store.resolve(snapshot))
    rows = store.query(config.where) if config.where else store.rows()
    rows = [row for row in rows if not row.invalid and row.task and (not config.tasks or row.task in config.tasks)]
    snapshot = Snapshot.of_rows(rows)
    return _Source(store, snapshot, store.resolve(snapshot))


def _header(config: DetectorConfig, sources: Sequence[_Source], initial: SuccessDetector | None) -> DetectorHeader:
    held = {row.task for source in sources for row in source.rows}
    tasks = config.tasks or tuple(sorted(held))
    if missing := sorted(set(tasks) - held) or ([] if tasks else ["any task"]):
        raise FlywheelError(f"The stores hold no episode of {' or '.join(missing)}; collect some first (flywheel collect).")
    header = DetectorHeader(
        tasks=tasks,
        cameras=_cameras(config, sources),
        pictures=configs.to_dict(config.pictures),
        hidden=config.hidden,
        scale=1.0,
        offsets=(0.0,) * len(tasks),
        snapshots=tuple(source.snapshot.hash for source in sources),
        parent=initial.checkpoint if initial else "",
        updates=config.updates,
        seed=config.seed,
        code_version=code_version(),
    )
    if initial:
        old = initial.header
        if (old.tasks, old.cameras, old.pictures, old.hidden) != (header.tasks, header.cameras, header.pictures, header.hidden):
            raise FlywheelError(
                f"{config.initial} has other tasks, cameras or networks ({', '.join(old.tasks)}; {', '.join(old.cameras)}); "
                "ask for the same, or start from nothing."
            )
    return header


def _cameras(config: DetectorConfig, sources: Sequence[_Source]) -> dict[str, Shape]:
    first = sources[0].store
    common = set.intersection(*(set(source.store.schema.picture_keys) for source in sources))
    if not common:
        raise FlywheelError("The stores have no camera in common; a detector sees pictures (flywheel collect --cameras).")
    names = sorted(config.cameras or common)
    check_cameras(first, {name: first.schema.observation.arrays[name].shape for name in names if name in common})
    for name in names:
        if name not in common:
            raise FlywheelError(registry.unknown("camera", name, tuple(sorted(common))))
    shapes = {name: first.schema.observation.arrays[name].shape for name in names}
    return {name: (shape[0], shape[1], shape[2]) for name, shape in shapes.items()}


def _check_outcomes(moments: Moments, tasks: Sequence[str]) -> None:
    for number, task in enumerate(tasks):
        for part, what in ((moments.part == "learned", "learn from"), (moments.part != "learned", "hold out")):
            own = moments.is_outcome & (moments.task == number) & part
            for outcome, name in ((True, "success"), (False, "failure")):
                if not (moments.success[own] == outcome).any():
                    raise FlywheelError(f"There is no {name} of {task} to {what}; collect or label more of it.")


def _build(config: DetectorConfig, header: DetectorHeader, initial: SuccessDetector | None) -> SuccessClassifier:
    torch.manual_seed(config.seed)
    network = build_classifier(header)
    if initial:
        network.load_state_dict(initial.network.state_dict())
    return network


def _fit(config: DetectorConfig, moments: Moments, network: SuccessClassifier, on_progress: Progress) -> None:
    """Bring the network to so many updates; each is a function of (seed, update), so that a resumed run is the same run."""
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    path, begun = config.output / CHECKPOINT, 0
    if path.exists():
        held = load_checkpoint(path)
        network.load_state_dict(held["state_dict"])
        optimizer.load_state_dict(held["optimizer"])
        begun = held["update"]
    rows = np.flatnonzero(moments.part == "learned")
    chance = weights(moments, rows)
    network.train()
    for update in range(begun, config.updates):
        optimizer.param_groups[0]["lr"] = 0.5 * config.learning_rate * (1 + math.cos(math.pi * update / config.updates))
        drawn = np.random.default_rng((config.seed, update)).choice(rows, config.batch_size, p=chance)
        loss = _loss(config, moments, network, drawn, update)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (update + 1) % config.save_every == 0 or update + 1 == config.updates:
            if not math.isfinite(reached := float(loss.detach())):
                raise FlywheelError(f"The loss became {reached} by update {update + 1}; train with a lower --learning-rate.")
            state = {"update": update + 1, "state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
            AtomicCheckpointIO().save_checkpoint(state, path)
        on_progress(update + 1, config.updates)


def _loss(config: DetectorConfig, moments: Moments, network: SuccessClassifier, rows: Ints, update: int) -> Tensor:
    seed = config.seed * 1_000_003 + update
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of crops, a bottleneck's noise and dropout within the networks
    seen = {camera: config.augment.pictures(as_batch(pictures[rows]), generator) for camera, pictures in moments.pictures.items()}
    logits = network(seen, torch.from_numpy(moments.task[rows]))
    target = torch.from_numpy(moments.success[rows]).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    return loss + config.pictures.bottleneck * network.divergence if config.pictures.bottleneck else loss


def _check(config: DetectorConfig) -> None:
    if min(config.updates, config.batch_size, config.save_every, config.threads, config.moments.final, config.moments.near) < 1:
        raise FlywheelError("updates, batch-size, save-every, threads, moments.final and moments.near must be at least 1.")
    if not 0.0 < config.held_out < 1.0:
        raise FlywheelError(
            f"The share that is held out must lie between 0 and 1, not at {config.held_out}: it is what calibrates."
        )
    if not config.store or not 0 <= config.seed <= _LARGEST_SEED:
        raise FlywheelError(f"Name at least one store, and give a seed from 0 to {_LARGEST_SEED}.")
    paths = [path.resolve() for path in config.store]
    if len(set(paths)) < len(paths):
        raise FlywheelError("A store is named twice; name each once.")
    if not config.hidden or min(config.hidden) < 1:
        raise FlywheelError(f"hidden must name at least one width, each at least 1, not {config.hidden}.")
    if not 0.0 < config.learning_rate < math.inf or not 0.0 <= config.weight_decay < math.inf:
        raise FlywheelError("The learning rate must be above 0 and the weight decay at least 0, and both finite.")
    if len(set(config.tasks)) < len(config.tasks):
        raise FlywheelError(f"A task is named twice in {', '.join(config.tasks)}; name each once.")


def _check_held(config: DetectorConfig) -> None:
    path = config.output / _CONFIG
    if not path.exists():
        return
    held, asked = configs.load_dict(path), configs.to_dict(config)
    if different := sorted(key for key in asked if key != "output" and asked[key] != held.get(key)):
        raise FlywheelError(
            f"{config.output} holds a run with other settings ({', '.join(different)}); give another --output to start a new one."
        )


def _claim(config: DetectorConfig, sources: Sequence[_Source]) -> None:
    """Make the folder this run's, once everything fits."""
    for number, source in enumerate(sources):
        path = config.output / snapshot_file(number)
        if not path.exists():
            source.snapshot.save(path)
    if not (config.output / _CONFIG).exists():
        configs.save(config, config.output / _CONFIG)
