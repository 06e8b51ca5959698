"""One training run: a store's snapshot and a configuration in, a policy out. Killed at any moment, it resumes bit-identically.

A run folder holds:

    config.yaml          what was asked for; a run that is made longer says so when it is done
    snapshot.json        the episodes it learns from, fixed at the start however the store grows; damaged ones are not in it
    code.txt             the version of the code that began it
    detector.txt         the hash of the success detector whose verdicts it learns from, where it does
    last.ckpt            weights, optimizer, update counter
    metrics.csv          losses and diagnostics
    policy.safetensors   the result, written when the last update is done
    rank-1.log …         what the further processes said, where there are several
    non_finite.safetensors  the update that became non-finite, where one did (`faults.Fault`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro

from flywheel.algorithms.base import Algorithm, AlgorithmConfig
from flywheel.core import config as configs
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import code_version
from flywheel.core.memory import keep_freed_memory
from flywheel.core.precision import choose_matmul_precision
from flywheel.core.specs import Array
from flywheel.datasets.columns import Columns
from flywheel.datasets.mixture import Mixture
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import POLICY_FILE, LearnedPolicy, PolicyHeader, save_policy
from flywheel.training.build import build, load_initial, make_header
from flywheel.training.callbacks import AtomicCheckpointIO, Progress
from flywheel.training.checks import check
from flywheel.training.data import ChunkSource
from flywheel.training.fit import CHECKPOINT, fit, load_checkpoint
from flywheel.training.folder import locked
from flywheel.training.impersonation import impersonate
from flywheel.training.lineage import remember_policy, remember_snapshot
from flywheel.training.module import AlgorithmModule, Precision
from flywheel.training.recipe import DataConfig, Recipe, check_successes, make_recipe
from flywheel.training.sight import check_sight, look, read_language
from flywheel.training.sources import Source, join, open_sources, snapshot_file
from flywheel.training.team import ALONE, Team, lead
from flywheel.training.threads import choose_threads
from flywheel.training.verdicts import Acceptance

_CONFIG = "config.yaml"
_DETECTOR = "detector.txt"


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    name: tyro.conf.Suppress[str]
    """The algorithm's name (on the command line it is a word of its own)."""
    algorithm: AlgorithmConfig
    """Its settings."""
    store: Path
    """The episode store to learn from."""
    output: Path
    """The run folder; an unfinished run in it is resumed."""
    updates: int = 10_000
    """Gradient updates in all."""
    seed: int = 0
    """Everything random follows from it."""
    data: DataConfig = field(default_factory=DataConfig)
    initial: Path | None = None
    """A run folder whose policy to start from: the same algorithm goes on from all its weights, another takes what fits."""
    go_on: bool = False
    """Go on with the initial run's optimizer and count of updates too: of `updates` those come first that it has had."""
    save_every: int = 1_000
    """Updates between checkpoints."""
    threads: int = 1
    """CPU threads for torch in each process; one is fastest for small networks on a shared machine. 0 measures whether one or all
    are faster, once: the run keeps to it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train; networks this small are faster on a CPU."""
    devices: int = 1
    """Processes that train together, each on a GPU of its own or with its own threads of the CPU; each takes an equal part of
    every batch, and the gradients are averaged. A loss that compares a batch's rows (CRL) compares those of a part."""
    precision: Precision = "float32"
    """What matrix products are computed in; bfloat16 is for GPUs that have it. Weights and optimizer are float32 always."""
    compile: bool = False
    """Compile the losses first (torch.compile), which needs a C++ compiler and about half a minute: for long runs."""


def load_config(path: Path) -> TrainConfig:
    """The configuration of an earlier run, from its config.yaml; raises `FlywheelError` if it is not one."""
    data = configs.load_dict(path)
    if "name" not in data or "algorithm" not in data:
        raise FlywheelError(f"{path} is not the configuration of a training run; give the config.yaml of a run folder.")
    settings = configs.from_dict(algorithm_class(data["name"]).Config, data.pop("algorithm"))
    return dataclasses.replace(configs.from_dict(TrainConfig, {**data, "algorithm": {}}), algorithm=settings)


def algorithm_class(name: str) -> type[Algorithm]:
    """The algorithm of a name; raises `FlywheelError` with the nearest name."""
    return registry.load("algorithms", name, Algorithm)  # type: ignore[type-abstract]


def _ignore(done: int, total: int) -> None:
    """Nobody watches."""


def train(
    config: TrainConfig,
    on_progress: Progress = _ignore,
    on_reading: Progress = _ignore,
) -> LearnedPolicy:
    """Train, or resume, or return what is finished already.

    `on_progress` counts updates, and before them `on_reading` the episodes that no run has read yet.
    Raises `FlywheelError` for a run folder that holds another configuration, an empty store, a policy to start from that
    does not fit, or losses that become non-finite.
    """
    check(config)
    with locked(config.output):
        config = _check_held(config)
        if not _finished(config):
            _run(config, on_progress, on_reading)
        policy = LearnedPolicy.load(config.output)
        remember_policy(config.store, config.output, policy)  # also after a kill between the file and this
    return policy


def follow(config: TrainConfig, team: Team) -> None:
    """Be a further process of a run that rank 0 has prepared: compute its part, and write nothing."""
    torch.set_num_threads(config.threads)
    _fit(config, _prepare(config, _ignore), team, _ignore)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What a run starts its updates with; `columns` with the table that is sampled from."""

    sources: list[Source]
    columns: Columns | Mixture
    recipe: Recipe
    header: PolicyHeader
    algorithm: Algorithm
    usual: dict[str, Array]
    """What the cameras usually show (`datasets.colors`)."""


def _run(config: TrainConfig, on_progress: Progress, on_reading: Progress) -> None:
    torch.set_num_threads(max(config.threads, 1))
    run = _prepare(config, on_reading)
    if not config.threads:
        batch = next(_source(config, run, ALONE).updates(0, 1))[: config.data.batch_size // config.devices]
        config = dataclasses.replace(config, threads=choose_threads(run.algorithm, batch, config.devices))
    _claim(config, run.sources, run.header.detector)
    for source in run.sources:
        remember_snapshot(source.store, source.snapshot)
    if config.go_on:
        _take_over(config, run.algorithm)
    with lead(config.output, config.updates, config.devices) as team:
        _fit(config, run, team, on_progress)
    configs.save(config, config.output / _CONFIG)  # with more updates than before, now that they are done
    save_policy(config.output / POLICY_FILE, run.header, run.algorithm, run.recipe.goal, run.usual)


def _prepare(config: TrainConfig, on_reading: Progress) -> _Prepared:
    choose_matmul_precision()
    keep_freed_memory()
    check_sight(config.data, EpisodeStore.open(config.store).schema, algorithm_class(config.name))
    language = read_language(config.data)
    sources = open_sources(config.store, config.data, config.output, on_reading)
    recorded, store = join(sources), sources[0].store
    initial = load_initial(config.initial, store, config.data) if config.initial else None
    columns = _offered(config.data, recorded, sources[0])
    recipe = make_recipe(config.data, algorithm_class(config.name), columns, initial, config.initial)
    if config.algorithm.tells_successes:
        check_successes(config.data, algorithm_class(config.name).relabel, columns)
    header = make_header(config, sources, columns, initial, recipe, language, _code(config))
    algorithm = build(config, header, recorded, initial, language)
    return _Prepared(sources, columns, recipe, header, algorithm, look(config.data, sources))


def _offered(data: DataConfig, columns: Columns | Mixture, source: Source) -> Columns | Mixture:
    """The columns with a table of the episodes that each of several tasks learns from."""
    if not data.tasks or isinstance(columns, Mixture):
        return columns
    store, mode = source.store, data.impersonate
    accepts = Acceptance.of(data.detector, store, source.snapshot, data.tasks) if data.detector and mode != "orig" else None
    table = impersonate(columns.table, columns.state, store.schema.observation, data.tasks, mode, accepts)
    return dataclasses.replace(columns, table=table)


def _fit(config: TrainConfig, run: _Prepared, team: Team, on_progress: Progress) -> None:
    module = AlgorithmModule(
        run.algorithm,
        batch_size=config.data.batch_size,
        seed=config.seed,
        part=team.part,
        augment=config.data.augment,
        compiled=config.compile,
        precision=config.precision,
    )
    batches = _source(config, run, team)
    fit(module, batches, config.output, config.updates, config.save_every, config.device, on_progress, team)


def _take_over(config: TrainConfig, algorithm: Algorithm) -> None:
    """Begin with the initial run's optimizer and count of updates, once; weights and learning rates are those of `algorithm`."""
    own = config.output / CHECKPOINT
    if config.initial and not own.exists():
        held = load_checkpoint(config.initial / CHECKPOINT)
        held["state_dict"] = {f"algorithm.{name}": tensor for name, tensor in algorithm.state_dict().items()}
        for group, asked in zip(held["optimizer_states"][0]["param_groups"], algorithm.parameter_groups(), strict=True):
            group["lr"] = asked["lr"]
        AtomicCheckpointIO().save_checkpoint(held, own)


def _source(config: TrainConfig, run: _Prepared, team: Team) -> ChunkSource:
    return ChunkSource(
        run.columns,
        run.recipe.sampler,
        run.recipe.relabeler,
        batch_size=config.data.batch_size,
        discount=config.data.discount,
        seed=config.seed,
        frames=config.data.frames,
        part=team.part,
    )


def _check_held(config: TrainConfig) -> TrainConfig:
    """The configuration, with as many threads as the folder's run has measured.

    Refuses a folder that holds a run of other settings; more updates than before may be asked for.
    """
    path = config.output / _CONFIG
    if path.exists():
        earlier = load_config(path)  # with the defaults of what is newer than the run
        config = config if config.threads else dataclasses.replace(config, threads=earlier.threads)
        held, asked = configs.to_dict(earlier), configs.to_dict(config)
        different = sorted(key for key in asked if key not in ("output", "updates") and asked[key] != held.get(key))
        if different or asked["updates"] < held.get("updates", 0):
            names = ", ".join(different or ["updates"])
            raise FlywheelError(
                f"{config.output} holds a run with other settings ({names}); give another --output to start a new one."
            )
    elif orphan := next((name for name in (POLICY_FILE, CHECKPOINT) if (config.output / name).exists()), None):
        raise FlywheelError(f"{config.output} holds {orphan} without the {_CONFIG} of its run; give another --output.")
    return config


def _claim(config: TrainConfig, sources: Sequence[Source], detector: str) -> None:
    """Make the folder this run's, once everything fits: what was refused before leaves it free for another try.

    Refuses to go on with another success detector's verdicts than the run began with.
    """
    pinned = config.output / _DETECTOR
    if pinned.exists() and pinned.read_text() != detector:
        raise FlywheelError(
            f"{config.data.detector} is not the detector any more that {config.output} began to learn from; bring that one back, "
            "or give another --output."
        )
    if detector and not pinned.exists():
        write_atomically(pinned, detector.encode())
    if not (config.output / _CONFIG).exists():
        configs.save(config, config.output / _CONFIG)
    for number, source in enumerate(sources):
        path = config.output / snapshot_file(number)
        if not path.exists():
            source.snapshot.save(path)
    if not (config.output / "code.txt").exists():
        write_atomically(config.output / "code.txt", code_version().encode())


def _code(config: TrainConfig) -> str:
    """The version of the code that began the run: a resumed one is the same run."""
    path = config.output / "code.txt"
    return path.read_text(errors="replace") if path.exists() else code_version()


def _finished(config: TrainConfig) -> bool:
    try:
        return LearnedPolicy.load(config.output).header.updates >= config.updates
    except FlywheelError:
        return False  # there is none, or it is damaged and made again from the last checkpoint
