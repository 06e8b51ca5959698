"""Import a file slowly, saying so after each episode. Run as a script, so that a test can kill it."""

import sys
import time
from pathlib import Path

from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source


def report(done: int, total: int) -> None:
    print(done, flush=True)
    time.sleep(0.02)


import_episodes(open_source(Path(sys.argv[1])), Path(sys.argv[2]), "imported", report)
