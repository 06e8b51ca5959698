"""flywheel collect TASK: run a policy or an expert, in parallel, and append every episode to a store.

flywheel collect --tasks A B C --dataset NAME chooses each turn's task by what the store holds.
"""

from __future__ import annotations

from flywheel.cli.console import parse_config, progress, say
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.schedule import ScheduleConfig, collect_tasks


def run(arguments: list[str]) -> None:
    """Collect with a progress bar, then say what the store gained."""
    if "--tasks" in arguments:
        _several(parse_config(ScheduleConfig, arguments, "flywheel collect", __doc__))
        return
    config = parse_config(CollectConfig, arguments, "flywheel collect", __doc__)
    with progress(f"Collecting {config.task}", "episodes") as report:
        result = collect(config, report)
    skipped = f" ({result.skipped} were there already)" if result.skipped else ""
    say(f"Stored {result.stored} episodes{skipped}, {result.successes} successes, {result.steps:,} steps, in {result.dataset}")


def _several(config: ScheduleConfig) -> None:
    with progress("Collecting", "episodes") as report:
        result = collect_tasks(config, lambda turn: say(f"{turn.task}: {turn.reason}"), report)
    for task in config.tasks:
        own = [found for turn, found in zip(result.turns, result.collections, strict=True) if turn.task == task]
        successes = sum(found.successes for found in own)
        say(f"Stored {sum(found.stored for found in own)} episodes of {task}, {successes} successes, in {len(own)} turns")
    say(f"They are in {result.collections[-1].dataset}")
