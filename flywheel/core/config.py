"""Configurations are frozen dataclasses; a run folder keeps one as YAML, from which the run can be repeated."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain YAML values: paths become strings, tuples lists."""
    return {item.name: _plain(getattr(config, item.name)) for item in dataclasses.fields(config)}


def from_dict(cls: type[T], data: dict[str, Any]) -> T:
    """The dataclass that `to_dict` described; raises `FlywheelError` for an unknown or missing key or a value of another type."""
    if not isinstance(data, dict):
        raise FlywheelError(f"The configuration of {cls.__name__} must be a mapping of its settings, not {data!r}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(map(str, data.keys() - hints.keys()))
    if unknown:
        raise FlywheelError(f"The configuration has unknown keys {unknown}; {cls.__name__} has {sorted(hints)}.")
    missing = sorted(_required(cls) - data.keys())
    if missing:
        raise FlywheelError(f"The configuration of {cls.__name__} lacks {missing}; give them a value.")
    return cls(**{key: _typed(hints[key], value, key) for key, value in data.items()})


def save(config: Any, path: Path) -> None:
    """Write a dataclass as YAML, whole or not at all."""
    write_atomically(path, yaml.safe_dump(to_dict(config), sort_keys=False).encode())


def load_dict(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises `FlywheelError` when the file is missing or is something else."""
    try:
        data = yaml.safe_load(path.read_text())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FlywheelError(f"There is no configuration at {path}; give the config.yaml of a run folder.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlywheelError(f"{path} is not readable as YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(data, dict):
        raise FlywheelError(f"{path} holds no configuration; give the config.yaml of a run folder.")
    return data


def _required(cls: Any) -> set[str]:
    none = dataclasses.MISSING
    return {item.name for item in dataclasses.fields(cls) if item.default is none and item.default_factory is none}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _typed(hint: Any, value: Any, key: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type[Any], hint), value)
    origin = typing.get_origin(hint)
    plain: dict[Any, Any] = {tuple: list, Path: str, float: (int, float)}
    allowed = plain.get(origin or hint, hint)
    fits = value in typing.get_args(hint) if origin is typing.Literal else isinstance(value, allowed)
    if not fits or (isinstance(value, bool) and hint is not bool):
        raise FlywheelError(f"The configuration's '{key}' cannot be {value!r}.")
    if origin is tuple:
        return tuple(_typed(typing.get_args(hint)[0], item, key) for item in value)
    return Path(value) if hint is Path else value
