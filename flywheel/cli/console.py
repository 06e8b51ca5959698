"""How the command line talks: one console, one form of error, one progress bar."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from flywheel.datasets.tfrecord import DamageWarning

T = TypeVar("T")
Report = Callable[[int, int], None]
"""Called with (done, total)."""

console = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)

_PLAIN_SECONDS = 15.0
"""How often a line is printed where there is no terminal for a bar."""


def parse_config(cls: type[T], arguments: list[str], prog: str, description: str | None) -> T:
    """Read a configuration's options; tyro prints the help or what is wrong, and exits."""
    return tyro.cli(cls, args=arguments, prog=prog, description=description)


def say(text: str) -> None:
    """One line as it is: a path or a name in it is no markup."""
    console.print(text, markup=False, soft_wrap=True)


def print_error(sentence: str) -> None:
    """One line on standard error."""
    _errors.print(f"[bold red]error:[/bold red] {escape(sentence)}", soft_wrap=True)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Within, a warning of damage is one line on standard error, without the place in our code that Python adds."""
    python_shows = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DamageWarning):
            _errors.print(f"[yellow]warning:[/yellow] {escape(str(message))}", soft_wrap=True)
        else:
            python_shows(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = python_shows


class _Rate(ProgressColumn):
    """Things per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The rate over the last moments."""
        return Text(f"{task.speed:,.1f} {self.unit}/s" if task.speed else "")


@contextmanager
def progress(title: str, unit: str, *, after: float = 0.0) -> Iterator[Report]:
    """A bar with rate and time left, from the first report until all is done; yields the callback that takes (done, total).

    Where standard output is no terminal, a plain line is printed now and then instead. What takes less than `after` seconds
    is not shown at all.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    bar = Progress(*columns, console=console)
    show = _bar(bar, title) if console.is_terminal else _plain(title, unit)
    begun = None

    def report(done: int, total: int) -> None:
        nonlocal begun
        begun = begun or time.monotonic()
        if time.monotonic() - begun >= after:
            show(done, total)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


def _bar(bar: Progress, title: str) -> Report:
    task = bar.add_task(title, total=None)

    def report(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)
        if done >= total:
            bar.stop()

    return report


def _plain(title: str, unit: str) -> Report:
    started = printed = time.monotonic()
    first: int | None = None

    def report(done: int, total: int) -> None:
        nonlocal started, printed, first
        now = time.monotonic()
        if first is None or done == first:  # what is started up before the first one is no part of the rate
            first, started = done, now
        if done < total and now - printed < _PLAIN_SECONDS:
            return
        printed = now
        rate = (done - first) / (now - started) if now > started else 0.0
        left = f", {rate:,.1f} {unit}/s, {(total - done) / rate:,.0f} s left" if rate > 0 and done < total else ""
        console.print(f"{title}: {done:,} of {total:,} {unit}{left}", soft_wrap=True)

    return report
