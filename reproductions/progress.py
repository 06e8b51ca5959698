"""How far a reproduction has come, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable


def progress(what: str) -> Callable[[int, int], None]:
    """A callback that takes (done, total): a line that counts on a terminal, a line for every tenth of the way elsewhere."""
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        tenth = 10 * done // max(total, 1)
        if sys.stderr.isatty():
            print(f"\r{done} of {total} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif tenth != shown:
            print(f"{done} of {total} {what}", file=sys.stderr, flush=True)
        shown = tenth

    return show
