"""flywheel finetune: IQL on one task's rewards, from a pretrained policy.

Given again from its own result, after that policy has collected, it improves online (--data.new-fraction 0.5).
"""

from __future__ import annotations

import tyro

from flywheel.cli.train import parse, start
from flywheel.core.errors import FlywheelError
from flywheel.training import presets


def run(arguments: list[str]) -> None:
    """Train IQL towards the task's own goal, starting from --initial."""
    config = parse(presets.finetune(tyro.MISSING, tyro.MISSING, "", None), arguments, "flywheel finetune", __doc__)
    if config.initial is None:
        raise FlywheelError(
            "finetune needs --initial RUN, a pretrained run folder; to start from nothing use flywheel train iql."
        )
    if not config.data.task:
        raise FlywheelError("finetune needs --data.task NAME, the task whose rewards to learn from.")
    start(config)
