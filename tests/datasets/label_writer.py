"""Labels an episode again and again, telling each label on standard output once it is stored. Run by test_labels.py."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from flywheel.datasets.store import EpisodeStore

_CALLS = ("pwrite", "fdatasync", "fsync", "ftruncate")


def write(store: EpisodeStore, episode_id: str, count: int) -> None:
    """Label so many times; the reason tells the labels apart."""
    os.write(1, b"\n")
    for number in range(count):
        token = uuid.uuid4().hex
        store.label([episode_id], "task", f"task {number}", by="writer", reason=token)
        os.write(1, f"{token}\n".encode())


def die_before(call: int) -> None:
    """Have this process killed before its so-manieth call that writes, in the middle of it where that can be."""
    left = call
    pwrite = os.pwrite

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                if function is pwrite:
                    function(args[0], args[1][: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return wrapper

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    opened = EpisodeStore.open(Path(sys.argv[2]))
    if sys.argv[1] == "die":
        die_before(int(sys.argv[4]))
        write(opened, sys.argv[3], 3)
    else:
        write(opened, sys.argv[3], int(sys.argv[4]))
