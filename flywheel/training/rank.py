"""python -m flywheel.training.rank RUN UPDATES RANK WORLD PORT: a further process of a run, started by `team.lead`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from flywheel.training.data import Part
from flywheel.training.team import Team, end_with_rank_0
from flywheel.training.train import follow, load_config


def main() -> None:
    """Follow the run in the folder, whose configuration and snapshots rank 0 has written."""
    end_with_rank_0()
    run = Path(sys.argv[1])
    updates, rank, world, port = map(int, sys.argv[2:])
    # A longer run writes its own number of updates when it is done.
    config = dataclasses.replace(load_config(run / "config.yaml"), output=run, updates=updates)
    follow(config, Team(Part(rank, world), port))


if __name__ == "__main__":
    main()
