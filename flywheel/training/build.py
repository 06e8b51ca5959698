"""From a run's configuration and data to the networks that it starts with, and the header of the policy that it will end in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flywheel.algorithms.base import Algorithm
from flywheel.core import config as configs
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.columns import Columns
from flywheel.datasets.mixture import Mixture
from flywheel.datasets.stats import state_statistics
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector
from flywheel.networks.actors import UnitGaussianActor
from flywheel.policy import LearnedPolicy, MixtureHeader, PolicyHeader, build_algorithm
from flywheel.training.recipe import DataConfig, Recipe
from flywheel.training.sight import drawn_by, layout
from flywheel.training.sources import Source

if TYPE_CHECKING:  # it imports this module
    from flywheel.training.train import TrainConfig


def load_initial(path: Path, store: EpisodeStore, data: DataConfig) -> LearnedPolicy:
    """The policy to start from; raises `FlywheelError` where it sees, does or tells apart something else than the run."""
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
    if policy.header.frames != data.frames:
        raise FlywheelError(f"The policy at {path} sees {policy.header.frames} pictures at once; let it (--data.frames).")
    if policy.header.tasks != tasks:
        raise FlywheelError(
            f"The policy at {path} tells {', '.join(policy.header.tasks) or 'no tasks'} apart, not {', '.join(tasks) or 'any'}; "
            "name the same ones in the same order (--data.tasks)."
        )
    return policy


def build(
    config: TrainConfig,
    header: PolicyHeader,
    columns: Columns | Mixture,
    initial: LearnedPolicy | None,
    language: Array | None,
) -> Algorithm:
    """The networks, with statistics or weights to begin with, and what says the tasks in words.

    Raises `FlywheelError` where the weights of `initial` do not fit.
    """
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
    if language is not None:
        algorithm.set_language(language)
    return algorithm


def make_header(
    config: TrainConfig,
    sources: Sequence[Source],
    columns: Columns | Mixture,
    initial: LearnedPolicy | None,
    recipe: Recipe,
    language: Array | None,
    code: str,
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
        code_version=code,
        detector=SuccessDetector.load(data.detector).checkpoint if data.detector else "",
        mixture=_mixture(sources, columns) if isinstance(columns, Mixture) else None,
        hidden=tuple(sorted(data.hide)),
        pictures=tuple(sorted(data.pictures)),
        goal_pictures=tuple(sorted(data.goal_pictures or data.pictures)) if recipe.goal_conditioned else (),
        software=drawn_by(sources[0]) if data.pictures else (),
        frames=data.frames,
        language=0 if language is None else language.shape[1],
        picture_encoding="jpeg" if data.pictures and schema.pictures == "jpeg" else None,
    )


def _mixture(sources: Sequence[Source], columns: Mixture) -> MixtureHeader:
    others = [source.snapshot.hash for source in sources[1:]]
    return {"state_dim": len(columns.statistics[0]), "action_dim": columns.action_dim, "snapshots": others}
