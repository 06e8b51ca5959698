"""flywheel collect TASK: run a policy or an expert, in parallel, and append every episode to a store."""

from __future__ import annotations

from flywheel.cli.console import parse_config, progress, say
from flywheel.rollout.collect import CollectConfig, collect


def run(arguments: list[str]) -> None:
    """Collect with a progress bar, then say what the store gained."""
    config = parse_config(CollectConfig, arguments, "flywheel collect", __doc__)
    with progress(f"Collecting {config.task}", "episodes") as report:
        result = collect(config, report)
    skipped = f" ({result.skipped} were there already)" if result.skipped else ""
    say(f"Stored {result.stored} episodes{skipped}, {result.successes} successes, {result.steps:,} steps, in {result.dataset}")
