"""One training run: a store's snapshot and a configuration in, a policy out. Killed at any moment, it resumes bit-identically.

A run folder holds:

    config.yaml          what was asked for; a run that is made longer says so when it is done
    snapshot.json        the episodes it learns from, fixed at the start however the store grows; damaged ones are not in it
    code.txt             the version of the code that began it
    last.ckpt            weights, optimizer, update counter
    metrics.csv          losses and diagnostics
    policy.safetensors   the result, written when the last update is done
    rank-1.log …         what the further processes said, where there are several
    non_finite.safetensors  the update that became non-finite, where one did (`faults.Fault`)
"""

from __future__ import annotations

import dataclasses
import fcntl
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from flywheel.datasets.stats import state_statistics
from flywheel.datasets.store import EpisodeStore
from flywheel.networks.actors import UnitGaussianActor
from flywheel.policy import POLICY_FILE, LearnedPolicy, MixtureHeader, PolicyHeader, build_algorithm, save_policy
from flywheel.training.callbacks import AtomicCheckpointIO, Progress
from flywheel.training.data import ChunkSource
from flywheel.training.fit import CHECKPOINT, fit, load_checkpoint
from flywheel.training.impersonation import impersonate
from flywheel.training.lineage import remember_policy, remember_snapshot
from flywheel.training.module import AlgorithmModule, Precision
from flywheel.training.recipe import DataConfig, Recipe, check_successes, check_tasks, make_recipe
from flywheel.training.sight import check_sight, drawn_by, layout, look
from flywheel.training.sources import Source, join, open_sources, snapshot_file
from flywheel.training.team import ALONE, Team, lead
from flywheel.training.threads import choose_threads
from flywheel.training.verdicts import Acceptance

_CONFIG = "config.yaml"
_LARGEST_SEED = 2**63 - 1
"""Torch's generators take no larger one."""
_LARGEST_BATCH = 2**20
"""Fifty times as many indices are drawn at once."""


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
    _check(config)
    with _locked(config.output):
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
        batch = _source(config, run, ALONE).draw(0)[: config.data.batch_size // config.devices]
        config = dataclasses.replace(config, threads=choose_threads(run.algorithm, batch, config.devices))
    _claim(config, run.sources)
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
    check_sight(config.data, EpisodeStore.open(config.store).schema, config.name)
    sources = open_sources(config.store, config.data, config.output, on_reading)
    recorded, store = join(sources), sources[0].store
    initial = _load_initial(config.initial, store, config.data) if config.initial else None
    columns = _offered(config.data, recorded, sources[0])
    recipe = make_recipe(config.data, algorithm_class(config.name), columns, initial, config.initial)
    if config.algorithm.tells_successes:
        check_successes(config.data, algorithm_class(config.name).relabel, columns)
    header = _header(config, sources, columns, initial, recipe)
    algorithm = _build(config, header, recorded, initial)
    return _Prepared(sources, columns, recipe, header, algorithm, look(config.data, sources[0].columns))


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
        part=team.part,
    )


def _load_initial(path: Path, store: EpisodeStore, data: DataConfig) -> LearnedPolicy:
    policy, tasks = LearnedPolicy.load(path), data.tasks
    if (policy.layout, policy.action_spec) != (layout(data, store.schema), store.schema.action):
        raise FlywheelError(
            f"The policy at {path} was trained on other observations or actions than {store.path} holds; start from one that "
            "was trained on this store, or from nothing."
        )
    if policy.header.hidden != tuple(sorted(data.hide)):
        raise FlywheelError(
            f"The policy at {path} does not see {', '.join(policy.header.hidden) or 'all'}; hide the same (--data.hide)."
        )
    if policy.header.tasks != tasks:
        raise FlywheelError(
            f"The policy at {path} tells {', '.join(policy.header.tasks) or 'no tasks'} apart, not {', '.join(tasks) or 'any'}; "
            "name the same ones in the same order (--data.tasks)."
        )
    return policy


def _build(config: TrainConfig, header: PolicyHeader, columns: Columns | Mixture, initial: LearnedPolicy | None) -> Algorithm:
    torch.manual_seed(config.seed)
    algorithm = build_algorithm(header)
    if initial is not None and (had := initial.header.config.get("activation")) != config.algorithm.activation:
        raise FlywheelError(f"{config.initial} was trained with {had}; its weights need --algorithm.activation {had} here, too.")
    if initial is None:
        if config.data.normalise:
            algorithm.set_statistics(*(columns.statistics if isinstance(columns, Mixture) else state_statistics(columns)))
    elif initial.header.algorithm == config.name and initial.header.goal_conditioned == header.goal_conditioned:
        try:
            algorithm.go_on_from(initial.algorithm)
        except RuntimeError:
            raise FlywheelError(
                f"{config.initial} has other networks; train it with the same hidden sizes, and the same {config.name} settings "
                "where they add something (an actor, a multiplier, a warm-up)."
            ) from None
    elif not algorithm.load_pretrained(initial.algorithm.acting_state()):
        raise FlywheelError(
            f"The actor of {config.initial} does not fit {config.name}, or one of them has none, as with CEM; train it with the "
            "same hidden sizes and goal conditioning."
        )
    elif isinstance(initial.algorithm.actor, UnitGaussianActor) and not isinstance(algorithm.actor, UnitGaussianActor):
        warnings.warn(
            f"{initial.header.algorithm}'s actor has no tanh on its mean and {config.name}'s has one, so it starts with smaller "
            "actions (0.76 where they were 1) until it has learned them again; gciql or implicit_actionable_models keep them.",
            stacklevel=2,
        )
    return algorithm


def _header(
    config: TrainConfig,
    sources: Sequence[Source],
    columns: Columns | Mixture,
    initial: LearnedPolicy | None,
    recipe: Recipe,
) -> PolicyHeader:
    """The policy acts on the first store's robot, whatever else it learned from."""
    schema, data = sources[0].store.schema, config.data
    return PolicyHeader(
        algorithm=config.name,
        config=configs.to_dict(config.algorithm),
        observation=layout(data, schema).to_json(),
        action=schema.action.to_json(),
        goal_conditioned=recipe.goal_conditioned,
        snapshot=sources[0].snapshot.hash,
        parent=initial.checkpoint if initial else "",
        task=config.data.task,
        tasks=config.data.tasks,
        updates=config.updates,
        seed=config.seed,
        code_version=_code(config),
        mixture=_mixture(sources, columns) if isinstance(columns, Mixture) else None,
        hidden=tuple(sorted(data.hide)),
        pictures=tuple(sorted(data.pictures)),
        goal_pictures=tuple(sorted(data.goal_pictures or data.pictures)) if recipe.goal_conditioned else (),
        software=drawn_by(sources[0]) if data.pictures else (),
        picture_encoding="jpeg" if data.pictures and schema.pictures == "jpeg" else None,
    )


def _mixture(sources: Sequence[Source], columns: Mixture) -> MixtureHeader:
    others = [source.snapshot.hash for source in sources[1:]]
    return {"state_dim": len(columns.statistics[0]), "action_dim": columns.action_dim, "snapshots": others}


def _check(config: TrainConfig) -> None:
    if min(config.updates, config.save_every, config.data.batch_size, config.devices) < 1:
        raise FlywheelError("updates, save-every, batch-size and devices must be at least 1.")
    if config.data.batch_size % config.devices:
        raise FlywheelError(f"A batch of {config.data.batch_size} cannot be shared evenly by {config.devices} devices.")
    if config.seed < 0 or config.threads < 0:
        raise FlywheelError(f"The seed and the threads must be at least 0, not {min(config.seed, config.threads)}.")
    if config.seed > _LARGEST_SEED:
        raise FlywheelError(f"The seed must be at most {_LARGEST_SEED}, not {config.seed}.")
    _check_data(config.data)
    if config.go_on:
        _check_goes_on(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise FlywheelError("This machine has no CUDA device that torch can use; train with --device cpu.")
    if config.device == "cuda" and torch.cuda.device_count() < config.devices:
        raise FlywheelError(f"This machine has {torch.cuda.device_count()} CUDA devices, not {config.devices}; name fewer.")


def _check_data(data: DataConfig) -> None:
    if data.batch_size > _LARGEST_BATCH:
        raise FlywheelError(f"batch-size must be at most {_LARGEST_BATCH}, not {data.batch_size}.")
    if (data.picture_budget or 0) < 0 or data.picture_pool < 0:
        raise FlywheelError("picture-budget and picture-pool are bytes, and must be at least 0.")
    if not 0.0 <= data.discount < 1.0 or not 0.0 <= data.new_fraction <= 1.0:
        raise FlywheelError("The discount must lie in [0, 1) and new-fraction in [0, 1].")
    if not math.isfinite(data.reward_scale) or not math.isfinite(data.reward_shift):
        raise FlywheelError("reward-scale and reward-shift must be finite numbers.")
    if data.also and not data.normalise:
        raise FlywheelError(
            "Several stores have a scale each, and can only be learned from together normalised; leave normalise on."
        )
    check_tasks(data)


def finished_updates(run: Path) -> int:
    """How many updates a run has had, whose optimizer another can go on with.

    Raises `FlywheelError` where the checkpoint is gone, or is not of the policy's moment, as in a run that is being made longer.
    """
    if not (run / CHECKPOINT).exists():
        raise FlywheelError(f"{run} has no checkpoint any more to go on from; train a new run from its policy (--initial {run}).")
    held, policy = load_checkpoint(run / CHECKPOINT)["update"], LearnedPolicy.load(run).header.updates
    if held != policy:
        raise FlywheelError(f"{run} has a policy of {policy} updates and a checkpoint of {held}; let it finish first.")
    return policy


def _check_goes_on(config: TrainConfig) -> None:
    if config.initial is None:
        raise FlywheelError("go-on needs --initial, the run folder to go on from.")
    if (config.output / CHECKPOINT).exists():
        return  # it went on already, whatever became of the other run since
    if (had := finished_updates(config.initial)) > config.updates:
        raise FlywheelError(f"{config.initial} has had {had} updates, which count with go-on; ask for at least as many.")
    if LearnedPolicy.load(config.initial).header.algorithm != config.name:
        raise FlywheelError(f"{config.initial} is of another algorithm than {config.name}, so its optimizer cannot go on.")


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


def _claim(config: TrainConfig, sources: Sequence[Source]) -> None:
    """Make the folder this run's, once everything fits: what was refused before leaves it free for another try."""
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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if (folder / "features.json").exists():
        raise FlywheelError(f"{folder} is a store of episodes; give the run a folder of its own (--output).")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FlywheelError(f"Another process is training in {folder}; wait for it, or give another --output.") from None
        yield
