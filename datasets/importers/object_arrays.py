"""The numbers in an npy array of Python objects, read without running what makes them.

Such an array is a pickle, which is a program; `numpy.load(allow_pickle=True)` runs it. Here its operations are looked at one by
one, and only those that build lists, dictionaries, tuples, texts, numbers and numpy arrays of numbers are understood. Nothing is
imported and nothing is called but `numpy.frombuffer`; anything else is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array

_MARK = object()
_MOST_OPERATIONS = 5_000_000
_RECONSTRUCT = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
_NAMES = {"numpy ndarray", "numpy dtype", "_codecs encode", *_RECONSTRUCT}
_PLAIN = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Dtype:
    """A dtype in the making."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


class _Array:
    """An array in the making."""

    def __init__(self) -> None:
        self.value: Any = None

    def set(self, shape: Any, dtype: _Dtype, fortran: Any, data: Any) -> None:
        if isinstance(data, list):
            self.value = data
        elif dtype.dtype.kind in "biuf" and isinstance(data, bytes):
            self.value = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")
        else:
            raise FlywheelError("it holds an array of something else than numbers.")


def read_objects(data: bytes) -> Any:
    """The lists, dictionaries, numbers and arrays that a pickled array of objects holds; the array itself becomes a list.

    Raises `FlywheelError` for anything that would have to be run, and any exception for what is no such data.
    """
    machine = _Machine()
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if count > _MOST_OPERATIONS:
            raise FlywheelError("it holds too many objects.")
        machine.step(operation.name, argument)
    return _finished(machine.stack[-1])


class _Machine:
    """The stack and the memory that pickle's operations work on."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _PLAIN:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self._fold(_TUPLES[name])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._name(argument if name == "GLOBAL" else f"{self.stack.pop(-2)} {self.stack.pop()}")
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._change(name, argument)

    def _change(self, name: str, argument: Any) -> None:
        match name:
            case "TUPLE":
                self.stack.append(tuple(self._marked()))
            case "APPEND":
                self.stack[-2].append(self.stack.pop())
            case "APPENDS":
                items = self._marked()
                self.stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._marked() if name == "SETITEMS" else [self.stack.pop(-2), self.stack.pop()]
                self.stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memory[len(self.memory) if name == "MEMOIZE" else argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memory[argument])
            case "REDUCE":
                self._reduce()
            case "BUILD":
                self._build()
            case _:
                raise FlywheelError(f"it would run the operation {name}, which no array of numbers needs.")

    def _name(self, name: str) -> None:
        if name not in _NAMES:
            raise FlywheelError(f"it names {name.replace(' ', '.')!r}, which no array of numbers needs.")
        self.stack.append(name)

    def _fold(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        self.stack[-count:] = [items]

    def _marked(self) -> list[Any]:
        place = max(index for index, item in enumerate(self.stack) if item is _MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _reduce(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if name in _RECONSTRUCT:
            self.stack.append(_Array())
        elif name == "numpy dtype":
            self.stack.append(_Dtype(arguments[0]) if arguments[0] != "O8" else _Dtype("O"))
        elif name == "_codecs encode" and arguments[1] == "latin1":
            self.stack.append(str(arguments[0]).encode("latin1"))
        else:
            raise FlywheelError("it would call something, which no array of numbers needs.")

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Array):
            target.set(*state[1:5])
        elif isinstance(target, _Dtype):
            target.dtype = target.dtype.newbyteorder(state[1] if state[1] in ("<", ">") else "=")
        else:
            raise FlywheelError("it would change an object, which no array of numbers needs.")


def _finished(value: Any) -> Any:
    if isinstance(value, _Array):
        return _finished(value.value)
    if isinstance(value, list):
        return [_finished(item) for item in value]
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    return value


def numbers(value: Any) -> Array:
    """A found value as an array; raises `FlywheelError` if it is no number or array of numbers."""
    found = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise FlywheelError(f"it holds {found.dtype} where numbers are expected.")
    return found
