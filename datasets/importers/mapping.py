"""How a source's fields become ours: a small YAML file, of which every entry may be left out.

    observation:                          # our name: the source's (a path with '/')
      state: observation/state
      gripper: {from: observation/gripper_closed, scale: 2, offset: -1, unit: m, dtype: float32}
      joints: {from: [observation/q, observation/dq]}      # concatenated
    leave_out: [observation/embedding]    # where `observation` is left out, everything else is taken
    action: {from: [action/xyz, action/grip], low: [-1, -1, -1, 0], high: [1, 1, 1, 1], controller: osc_pose, rate: 5}
    reward: reward                        # or none, which gives zeros
    task: language_instruction            # a field of the source's; a constant is written {value: lift the cube}
    robot: {value: widowx}                # likewise agent_id, success, environment_config and the other metadata
    last_step: transition                 # settings of one format; its file tells which there are

A mapped value is ``value * scale + offset``. An action's ``low`` and ``high`` are those of the mapped action; without them they
are taken from the data. ``means`` is what an action of 1 means, per dimension, in the controller's units.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.core.config import load_dict
from flywheel.core.episode import EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash

NAMED: dict[str, dict[str, Any]] = {
    # TFDS's mt_opt/rlds (Kalashnikov et al. 2021, arXiv 2104.08212): no rewards, as detectors decide success on final images.
    "mt_opt": {
        "observation": {
            "gripper_closed": "observation/gripper_closed",
            "height_to_bottom": "observation/height_to_bottom",
            "image": "observation/image",
            "state_dense": "observation/state_dense",
        },
        "action": {"from": ["action/" + key for key in ("target_pose", "open_gripper", "close_gripper", "terminate")]},
        "reward": "none",
        "task": "task_code",
        "experiment_id": "skill",
        "robot": {"value": "kuka_iiwa"},
    },
    # Made by rlds_dataset_builder: the last step is a transition as any other.
    "oxe": {"last_step": "transition"},
}
"""Mappings that are built in."""
_METADATA = {item.name for item in fields(EpisodeMetadata)} - {"episode_id", "source"}
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_MODES = ("delta", "absolute")


@dataclass(frozen=True)
class Field:
    """One array of ours, made of one or several of the source's."""

    sources: tuple[str, ...]
    scale: tuple[float, ...] = ()
    """Per element or one for all; none means 1."""
    offset: tuple[float, ...] = ()
    unit: str = ""
    dtype: str = ""
    """Empty: as `trajectory.storable` decides."""


@dataclass(frozen=True)
class ActionField:
    """The action, made of one or several of the source's arrays, and what is known of it; see `ActionSpec`."""

    sources: tuple[str, ...]
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    """Empty: taken from the data."""
    high: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    controller: str = "unknown"
    mode: str = "delta"
    frame: str = "base"
    rate: float = 0.0


@dataclass(frozen=True)
class Value:
    """A metadata field: taken from the source's field `source`, or the constant `value`."""

    source: str = ""
    value: str | int | bool = ""


@dataclass(frozen=True)
class FieldMap:
    """Every decision that a mapping file may take; a source gives the one it has without a file."""

    observation: Mapping[str, Field]
    action: ActionField
    reward: str = ""
    """Empty: the source has none, and rewards are zero."""
    metadata: Mapping[str, Value] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What only one format knows, with its defaults."""

    @cached_property
    def hash(self) -> str:
        """Tells one mapping from another."""
        return json_hash(asdict(self))

    @cached_property
    def observation_sources(self) -> tuple[str, ...]:
        """The source's arrays that observations are made of."""
        return tuple(dict.fromkeys(name for item in self.observation.values() for name in item.sources))

    @cached_property
    def metadata_sources(self) -> tuple[str, ...]:
        """The source's fields that metadata are made of."""
        return tuple(dict.fromkeys(item.source for item in self.metadata.values() if item.source))


def load_mapping(name: str | Path) -> dict[str, Any]:
    """The content of a mapping file, of one that is built in, or of none where `name` is empty.

    Raises `FlywheelError` if there is none or if it is no YAML mapping.
    """
    if not name:
        return {}
    path = Path(name)
    return copy.deepcopy(NAMED[str(name)]) if str(name) in NAMED and not path.exists() else load_dict(path)


def merge(default: FieldMap, given: Mapping[str, Any], available: Iterable[str], where: str) -> FieldMap:
    """The default with what a mapping file says instead.

    `available` are the source's fields. Raises `FlywheelError` naming the entry for anything that is not understood or not there.
    """
    known = {"observation", "leave_out", "action", "reward", *_METADATA, *default.settings}
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise FlywheelError(f"The mapping for {where} has unknown entries {unknown}; it may have {sorted(known)}.")
    names = _Names(frozenset(available), where)
    result = replace(
        default,
        observation=_observation(default.observation, given, names),
        action=_action(default.action, given["action"], names) if "action" in given else default.action,
        reward=_reward(given["reward"], names) if "reward" in given else default.reward,
        metadata={
            **default.metadata,
            **{key: _value(given[key], key, names) for key in given if key in _METADATA},
        },
        settings={key: _setting(key, given.get(key, value), value, where) for key, value in default.settings.items()},
    )
    if not result.observation or not result.action.sources:
        raise FlywheelError(f"{where} has no observation or no action that can be told; name them in a mapping file (--mapping).")
    return result


@dataclass(frozen=True)
class _Names:
    """The fields that a source has, to refuse others."""

    available: frozenset[str]
    where: str

    def check(self, name: Any, entry: str) -> str:
        if not isinstance(name, str) or name not in self.available:
            raise FlywheelError(
                f"The mapping's {entry} is {name!r}, which {self.where} does not have; it has {sorted(self.available)}."
            )
        return name

    def sources(self, given: Any, entry: str) -> tuple[str, ...]:
        listed = given if isinstance(given, list) else [given]
        if not listed:
            raise self.wrong(entry, given)
        return tuple(self.check(name, entry) for name in listed)

    def wrong(self, entry: str, given: Any) -> FlywheelError:
        return FlywheelError(f"The mapping's {entry} for {self.where} cannot be {given!r}.")


def _observation(default: Mapping[str, Field], given: Mapping[str, Any], names: _Names) -> dict[str, Field]:
    left_out = names.sources(given["leave_out"], "leave_out") if given.get("leave_out") else ()
    if "observation" in given:
        chosen = given["observation"]
        if not isinstance(chosen, dict) or not chosen or left_out:
            raise FlywheelError("A mapping's observation says what is taken, name by name, and then needs no leave_out.")
        return {str(key): _field(item, f"observation '{key}'", names) for key, item in chosen.items()}
    return {key: item for key, item in default.items() if not set(item.sources) & set(left_out)}


def _field(given: Any, entry: str, names: _Names) -> Field:
    if not isinstance(given, dict):
        return Field(names.sources(given, entry))
    _only(given, {"from", "scale", "offset", "unit", "dtype"}, entry, names)
    dtype = given.get("dtype", "")
    if dtype and dtype not in _DTYPES:
        raise names.wrong(f"{entry}, dtype,", dtype)
    return Field(
        names.sources(given.get("from"), entry),
        _numbers(given, "scale", entry, names),
        _numbers(given, "offset", entry, names),
        str(given.get("unit", "")),
        dtype,
    )


def _action(default: ActionField, given: Any, names: _Names) -> ActionField:
    if not isinstance(given, dict):
        return replace(default, sources=names.sources(given, "action"), low=(), high=())
    vectors, texts = {"scale", "offset", "low", "high", "means"}, {"controller", "mode", "frame"}
    _only(given, {"from", "rate"} | vectors | texts, "action", names)
    changes: dict[str, Any] = {key: _numbers(given, key, "action", names) for key in vectors & given.keys()}
    changes |= {key: str(given[key]) for key in texts & given.keys()}
    if {"from", "scale", "offset"} & given.keys():  # the format's own bounds are those of another vector
        changes = {"low": (), "high": (), **changes}
    if "from" in given:
        changes["sources"] = names.sources(given["from"], "action")
    if "rate" in given:
        (changes["rate"],) = _numbers({"rate": [given["rate"]]}, "rate", "action", names)
    result = replace(default, **changes)
    if bool(result.low) != bool(result.high) or len(result.low) != len(result.high) or result.mode not in _MODES:
        raise FlywheelError("A mapping's action needs as many low as high, or neither, and the mode delta or absolute.")
    return result


def _reward(given: Any, names: _Names) -> str:
    return "" if given in (None, "none") else names.check(given, "reward")


def _value(given: Any, key: str, names: _Names) -> Value:
    if isinstance(given, dict) and given.keys() == {"value"} and isinstance(given["value"], str | int | bool):
        return Value(value=given["value"])
    if isinstance(given, dict) and given.keys() == {"from"}:
        given = given["from"]
    if isinstance(given, str) and given not in names.available:
        raise FlywheelError(
            f"The mapping's {key} is '{given}', which {names.where} does not have (it has {sorted(names.available)}); "
            f"a constant is written {{value: {given}}}."
        )
    return Value(source=names.check(given, key))


def _setting(key: str, given: Any, default: Any, where: str) -> Any:
    """A setting has the type of its default; a tuple is a choice, of which the first is the default."""
    if isinstance(default, tuple):
        if given is default:
            return default[0]
        if given not in default:
            raise FlywheelError(f"The mapping's {key} for {where} cannot be {given!r}; it is one of {list(default)}.")
    elif type(given) is not type(default):
        raise FlywheelError(f"The mapping's {key} for {where} cannot be {given!r}; it is a {type(default).__name__}.")
    return given


def _numbers(given: Mapping[str, Any], key: str, entry: str, names: _Names) -> tuple[float, ...]:
    value = given.get(key, [])
    listed = value if isinstance(value, list) else [value]
    for number in listed:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise names.wrong(f"{entry}, {key},", value)
    return tuple(float(number) for number in listed)


def _only(given: Mapping[str, Any], known: set[str], entry: str, names: _Names) -> None:
    if given.keys() - known:
        raise names.wrong(f"{entry}, with the entries {sorted(map(str, given.keys() - known))},", dict(given))
