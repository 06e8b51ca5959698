"""Gymnasium's spaces as Minari writes them into JSON: which arrays an observation or an action consists of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError

_DEEPEST = 8


@dataclass(frozen=True)
class Leaf:
    """One array of a nested space."""

    name: str
    """Its path, with '/' between keys of a Dict and places in a Tuple."""
    path: tuple[str | int, ...]
    """The same in pieces; an integer is a place in a Tuple."""
    type: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    low: tuple[float, ...] = ()
    """Flattened; empty where it is not bounded."""
    high: tuple[float, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether it can be stored."""
        return self.type != "Text"


def leaves(space: Any, name: str) -> list[Leaf]:
    """The arrays of a space that `json.loads` gave; raises `FlywheelError` for anything that is none."""
    try:
        return list(_walk(space, name, (name,), 0))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise FlywheelError(f"the space of its {name} cannot be read; it is damaged or of a newer version.") from None


def _walk(space: Mapping[str, Any], name: str, path: tuple[str | int, ...], depth: int) -> Iterator[Leaf]:
    if depth > _DEEPEST:
        raise ValueError(name)
    if space["type"] == "Dict":
        for key, inner in space["subspaces"].items():
            yield from _walk(inner, f"{name}/{key}", (*path, key), depth + 1)
    elif space["type"] == "Tuple":
        for place, inner in enumerate(space["subspaces"]):
            yield from _walk(inner, f"{name}/{place}", (*path, place), depth + 1)
    else:
        yield _leaf(space, name, path)


def _leaf(space: Mapping[str, Any], name: str, path: tuple[str | int, ...]) -> Leaf:
    match space["type"]:
        case "Box":
            leaf = Leaf(name, path, "Box", tuple(map(int, space["shape"])), np.dtype(space["dtype"]).name)
            return _bounded(leaf, space["low"], space["high"])
        case "Discrete":
            start = int(space.get("start", 0))
            return _bounded(Leaf(name, path, "Discrete", (), "int64"), start, start + int(space["n"]) - 1)
        case "MultiDiscrete":
            count = np.asarray(space["nvec"])
            low = np.zeros_like(count) + np.asarray(space.get("start", 0))
            leaf = Leaf(name, path, "MultiDiscrete", count.shape, np.dtype(space["dtype"]).name)
            return _bounded(leaf, low, low + count - 1)
        case "MultiBinary":
            shape = tuple(map(int, space["n"])) if isinstance(space["n"], list) else (int(space["n"]),)
            return _bounded(Leaf(name, path, "MultiBinary", shape, "int8"), np.zeros(shape), np.ones(shape))
        case "Text":
            return Leaf(name, path, "Text")
        case other:
            raise FlywheelError(f"its {name} is a {other} space, which is not read.")


def _bounded(leaf: Leaf, low: Any, high: Any) -> Leaf:
    """The leaf with its bounds, if they are bounds."""
    lows, highs = np.asarray(low, np.float64).reshape(-1), np.asarray(high, np.float64).reshape(-1)
    if lows.shape != highs.shape or not (np.isfinite(lows).all() and np.isfinite(highs).all() and (lows < highs).all()):
        return leaf
    return replace(leaf, low=tuple(lows.tolist()), high=tuple(highs.tolist()))
