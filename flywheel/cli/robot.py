"""flywheel robot: whether a robot keeps the promises that the framework relies on."""

from __future__ import annotations

import tyro
from rich.markup import escape

from flywheel.cli.console import console
from flywheel.robots.base import make_robot
from flywheel.robots.conformance import check as run_checks


def check(name: tyro.conf.Positional[str]) -> None:
    """Run the conformance checks against a robot: specifications, observations, actions, the safety layer, stopping.

    The robot moves. Clear its surroundings and keep the emergency stop in reach.

    Args:
        name: The robot, by name, for example sim or fake.
    """
    failed = 0
    for result in run_checks(make_robot(name)):
        failed += not result.passed
        mark = "[green]pass[/green]" if result.passed else "[bold red]FAIL[/bold red]"
        console.print(f"{mark}  {escape(result.name)}" + (f": {escape(result.detail)}" if result.detail else ""))
    if failed:
        raise SystemExit(1)


SUBCOMMANDS = {"check": check}
