"""What the paper reports, and the settings that it reports it for."""

from __future__ import annotations

from typing import Any

from flywheel.core.errors import FlywheelError
from flywheel.networks.augment import Augmentation

ALGORITHMS = ("gcbc", "gcivl", "gciql", "crl", "hiql")

PUBLISHED: dict[str, tuple[tuple[int, int], ...]] = {
    "pointmaze-medium-navigate": ((9, 6), (63, 6), (53, 8), (29, 7), (79, 5)),
    "pointmaze-large-navigate": ((29, 6), (45, 5), (34, 3), (39, 7), (58, 5)),
    "pointmaze-giant-navigate": ((1, 2), (0, 0), (0, 0), (27, 10), (46, 9)),
    "cube-single-play": ((6, 2), (53, 4), (68, 6), (19, 2), (15, 3)),
    "cube-double-play": ((1, 1), (36, 3), (40, 5), (10, 2), (6, 2)),
    "scene-play": ((5, 1), (42, 4), (51, 4), (19, 2), (38, 3)),
    "puzzle-3x3-play": ((2, 0), (6, 1), (95, 1), (3, 1), (12, 2)),
    "visual-cube-single-play": ((5, 1), (60, 5), (30, 5), (31, 15), (89, 0)),
}
"""Success in percent, mean and standard deviation over 8 seeds, of each of `ALGORITHMS`: one million updates of batch 1024, three
hidden layers of 512, the mean of the last three evaluations (arXiv 2410.20092, table 2). Of pictures: 500,000 of
batch 256."""

_NETWORKS = {"activation": "gelu", "layer_norm": True}
_ACTIONABLE: dict[str, dict[str, Any]] = {
    "actionable_models": {**_NETWORKS, "maximise": "cem", "lower_bound": False, "cem_samples": 16},
    "implicit_actionable_models": {"p_chained": 0.3, "horizon": "geometric", "subgoal_steps": 1, "average_rate": 0.002},
}
"""Ours: the paper's form, with a search that a CPU can afford, and our variant (docs/actionable_models.md)."""
# OGBench's agents see states as they are; where it was seen to matter most, ours do too.
_MAZE: dict[str, dict[str, Any]] = {
    **_ACTIONABLE,
    "gcivl": {"alpha": 10.0},
    "gciql": {"alpha": 0.003},
    "crl": {"alpha": 0.03, "normalise": False},
    "hiql": {"high_alpha": 3.0, "low_alpha": 3.0, "subgoal_steps": 25},
}
_ARM: dict[str, dict[str, Any]] = {
    **_ACTIONABLE,
    "implicit_actionable_models": {**_ACTIONABLE["implicit_actionable_models"], "actor_loss": "ddpgbc", "alpha": 1.0},
    "gcivl": {"alpha": 10.0},
    "gciql": {"alpha": 1.0},
    "crl": {"alpha": 3.0},
    "hiql": {"high_alpha": 3.0, "low_alpha": 3.0, "subgoal_steps": 10},
}


AUGMENT = Augmentation(shift=3, probability=0.5)
"""What OGBench's agents do to pictures of 64 x 64 while they learn (p_aug 0.5, crops of a picture padded by 3)."""
FEATURES = 512
"""What their small impala gives of a picture."""
DATA_SETTINGS = ("subgoal_steps", "normalise")
"""The settings that are the data's, not the agent's."""


def settings(dataset: str, algorithm: str, code: str = "flywheel") -> dict[str, Any]:
    """What differs from an agent's defaults on a data set (impls/hyperparameters.sh); nothing for agents that the paper lacks."""
    own = dict((_MAZE if dataset.startswith("pointmaze") else _ARM).get(algorithm, {}))
    return own if code == "flywheel" else {name: value for name, value in own.items() if name != "normalise"}


def published(dataset: str, algorithm: str) -> str:
    """The published mean and deviation, as ``51 ± 4``; a dash where there is none."""
    if dataset not in PUBLISHED or algorithm not in ALGORITHMS:
        return "-"
    mean, deviation = PUBLISHED[dataset][ALGORITHMS.index(algorithm)]
    return f"{mean} ± {deviation}"


def check_peer(dataset: str, algorithm: str) -> None:
    """Raises `FlywheelError` for an agent that OGBench's code lacks, and for pictures, which our call of it does not give."""
    if dataset.startswith("visual-"):
        raise FlywheelError("OGBench's own agents learn from states here; leave --code jax out for a visual data set.")
    if algorithm not in ALGORITHMS:
        raise FlywheelError(f"OGBench's code has no agent '{algorithm}'; it has {', '.join(ALGORITHMS)}.")
