"""flywheel pretrain: learn to reach every goal that a store has seen, without rewards (Actionable Models)."""

from __future__ import annotations

import tyro

from flywheel.cli.train import parse, start
from flywheel.training import presets


def run(arguments: list[str]) -> None:
    """Train Actionable Models on all of a store."""
    start(parse(presets.pretrain(tyro.MISSING, tyro.MISSING), arguments, "flywheel pretrain"))
