"""flywheel finetune: IQL on one task's rewards, from a pretrained policy.

flywheel finetune online: the policy collects, is finetuned on the store that holds its episodes, and collects again.
"""

from __future__ import annotations

import tyro

from flywheel import online
from flywheel.cli.console import parse_config, progress, say
from flywheel.cli.train import parse, start
from flywheel.core.errors import FlywheelError
from flywheel.training import presets


def run(arguments: list[str]) -> None:
    """Train IQL towards the task's own goal, starting from --initial; with `online` first, go on with it in rounds."""
    if arguments[:1] == ["online"]:
        _improve(parse_config(online.OnlineConfig, arguments[1:], "flywheel finetune online", online.__doc__))
        return
    config = parse(presets.finetune(tyro.MISSING, tyro.MISSING, "", None), arguments, "flywheel finetune", __doc__)
    if config.initial is None:
        raise FlywheelError(
            "finetune needs --initial RUN, a pretrained run folder; to start from nothing use flywheel train iql."
        )
    if not config.data.task:
        raise FlywheelError("finetune needs --data.task NAME, the task whose rewards to learn from.")
    start(config)


def _improve(config: online.OnlineConfig) -> None:
    curve = online.improve(config, lambda title, unit: progress(title, unit, after=2.0))
    for point in curve.points:
        low, high = point.evaluation.ci95
        found = f"{point.evaluation.successes} of {len(point.evaluation.results)}"
        say(f"after {point.episodes:4d} episodes, {point.updates:,} updates: {found} ({100 * low:.0f} to {100 * high:.0f} %)")
    say(f"The success fell by {100 * curve.dip:.0f} points at worst. The curve is {config.output / 'curve.svg'}.")
    say(f"The policy is in {curve.policy}.")
