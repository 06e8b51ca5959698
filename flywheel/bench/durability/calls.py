"""Stepping between a program and the operating system: to be killed before its Nth call, or to write all calls down."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CHANGING = (
    *("open", "write", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate", "truncate"),
    *("link", "unlink", "rename", "replace", "mkdir", "rmdir"),
)
"""The functions of `os` by which a store changes anything on the disk (SQLite's index, which is derived, aside)."""
_WRITES = ("write", "pwrite", "pwritev")


@contextmanager
def stepping(before: Callable[[str, Callable[..., Any], tuple[Any, ...]], None]) -> Iterator[None]:
    """Call `before` with name, function and arguments ahead of every changing call."""
    originals = {name: getattr(os, name) for name in CHANGING}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before(name, originals[name], args)
            return originals[name](*args, **kwargs)

        return call

    try:
        for name in CHANGING:
            setattr(os, name, wrapped(name))
        yield
    finally:
        for name, function in originals.items():
            setattr(os, name, function)


def killed_before(call: int, action: Callable[[Callable[[str], None]], None]) -> tuple[bool, list[str]]:
    """Run `action` in a child that is killed before its Nth call, a write in its middle.

    `action` is given a function to acknowledge with. Returns whether it was killed, and what it had acknowledged.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        tell = os.write
        left = call

        def before(name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
            nonlocal left
            left -= 1
            if not left:
                if name in _WRITES:
                    data = b"".join(args[1]) if name == "pwritev" else bytes(args[1])
                    half = data[: len(data) // 2]
                    function(args[0], [half] if name == "pwritev" else half, *args[2:])
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with stepping(before):
                action(lambda name: void(tell(writing, f"{name}\n".encode())))
        except BaseException:
            os._exit(3)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read().split()
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"the child failed with {status}"
    return status != 0, told


def void(_: object) -> None:
    """Nothing, for a function whose value is of no use."""
