"""flywheel pretrain: learn to reach every goal that a store has seen, without rewards (Actionable Models)."""

from __future__ import annotations

from flywheel.cli.train import defaults, parse, start


def run(arguments: list[str]) -> None:
    """Train Actionable Models on all of a store."""
    start(parse(defaults("actionable_models"), arguments, "flywheel pretrain"))
