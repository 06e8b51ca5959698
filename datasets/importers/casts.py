"""How a source's values become ours: scaled, cast and checked, with a sentence for what cannot be stored.

Bools and integers stay as they are; floating-point numbers become float32 (a mapping may ask for float64 observations),
which is said of the episode where it rounds. Nothing that is not finite, and nothing that does not fit, is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.mapping import Field


def storable(value: Array, dtype: str, name: str) -> tuple[Array, bool]:
    """`value` in the dtype that it is stored in, and whether a number was rounded; see the top of this file.

    Raises `FlywheelError` for what is no number, not finite or does not fit.
    """
    if value.dtype.kind not in "biuf":
        raise FlywheelError(f"{name} holds {value.dtype}, and only numbers and bools can be stored; leave it out in a mapping.")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        step = int(np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(axis=1))[0])
        raise FlywheelError(f"{name} holds a NaN or an infinity at step {step}.")
    wanted = np.dtype(dtype or ("float32" if value.dtype.kind == "f" else value.dtype.newbyteorder("=")))
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(wanted, copy=False)
    exact = bool((cast == value).all())
    if not exact and (wanted.kind != "f" or not np.isfinite(cast).all()):
        raise FlywheelError(f"{name} holds numbers that {wanted.name} cannot; choose another dtype in a mapping.")
    return cast, not exact


def mapped(parts: list[Array], item: Field, name: str) -> Array:
    """The source's arrays concatenated, scaled and moved."""
    value = parts[0]
    if len(parts) > 1:
        flat = [part.reshape(len(part), -1) for part in parts]
        if len({len(part) for part in flat}) > 1:
            raise FlywheelError(f"{name} is made of arrays of different lengths {[len(part) for part in flat]}.")
        value = np.concatenate(flat, axis=1)
    if not item.scale and not item.offset:
        return value
    if value.dtype.kind not in "biuf":
        raise FlywheelError(f"{name} holds {value.dtype}, which cannot be scaled.")
    width = value.shape[-1] if value.ndim > 1 else 1
    for numbers in (item.scale, item.offset):
        if len(numbers) not in (0, 1, width):
            raise FlywheelError(f"{name} has {width} elements, and the mapping scales or moves {len(numbers)}.")
    scale, offset = np.asarray(item.scale or (1.0,)), np.asarray(item.offset or (0.0,))
    return np.asarray(value.astype(np.float64) * scale + offset)


def column(value: Array, name: str) -> tuple[Array, bool]:
    """(T,) float32 of (T,) or (T, 1), and whether a number was rounded."""
    flat = value.reshape(-1) if value.ndim == 2 and value.shape[1] == 1 else value
    if flat.ndim != 1:
        raise FlywheelError(f"{name} has shape {value.shape}, where one number belongs to a step.")
    return storable(flat, "float32", name)


def plain(value: Any, default: Any, name: str) -> str | int | bool:
    """A metadata value in the type of its field; of a sequence it is the last element, when the outcome is known."""
    while isinstance(value, np.ndarray | list | tuple) and len(np.shape(value)):
        if not len(value):
            return type(default)()  # type: ignore[no-any-return]
        value = value[-1]
    if isinstance(value, np.ndarray | np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(default, str):
        return str(value)
    try:
        return bool(value) if isinstance(default, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        raise FlywheelError(f"{name} is {value!r}, which is no {type(default).__name__}.") from None
