"""Things by name: the name is the file's name, the import is lazy, a near miss gets a suggestion.

An outside package adds to a kind with an entry point in the group ``flywheel.<kind>`` (for example ``flywheel.algorithms``).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from flywheel.core.errors import FlywheelError

T = TypeVar("T")

# Modules of a kind's folder that are shared machinery and not a thing to choose.
_SHARED = {
    "algorithms": {"base", "ops"},
    "tasks": {"base", "env"},
    "robots": {"base", "safety", "conformance"},
}


@cache
def names(kind: str) -> tuple[str, ...]:
    """Every name of a kind (``algorithms``, ``tasks``, ``robots``), sorted, without importing any."""
    package = importlib.import_module(f"flywheel.{kind}")
    found = {module.name for module in pkgutil.iter_modules(package.__path__)} - _SHARED[kind]
    found |= {point.name for point in entry_points(group=f"flywheel.{kind}")}
    return tuple(sorted(name for name in found if not name.startswith("_")))


def module(kind: str, name: str) -> ModuleType:
    """Import the module of one name; raises `FlywheelError` with the nearest names when there is none."""
    if name not in names(kind):
        raise FlywheelError(unknown(kind.removesuffix("s"), name, names(kind)))
    outside = {point.name: point for point in entry_points(group=f"flywheel.{kind}")}
    target = outside[name].module if name in outside else f"flywheel.{kind}.{name}"
    return importlib.import_module(target)


def load(kind: str, name: str, base: type[T]) -> type[T]:
    """The one concrete subclass of `base` that the module called `name` defines."""
    source = module(kind, name)
    own = [item for item in vars(source).values() if inspect.isclass(item) and item.__module__ == source.__name__]
    found = [item for item in own if issubclass(item, base) and not inspect.isabstract(item)]
    if len(found) != 1:
        raise FlywheelError(f"{source.__name__} must define exactly one {base.__name__}, and it defines {len(found)}.")
    return found[0]


def unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    """The sentence for a name that does not exist."""
    return f"There is no {what} '{name}';{nearest(name, known)} known: {', '.join(known) or 'none'}."


def nearest(name: str, known: tuple[str, ...]) -> str:
    """The question whether a name like it was meant, with a space before it; empty if none is like it."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" did you mean '{near[0]}'?" if near else ""
