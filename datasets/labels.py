"""What was found out about an episode after it was recorded: the lines of a store's label log, and what they change.

Records never change, so success, invalid, deleted, trim and task are revised by labels: one line of JSON each, which ends in
the CRC32C of what stands before it, so that damage is found and a line end that is lost costs nothing:

    {"episode_id":"3f..","field":"success","value":true,"by":"anna","reason":"","at_ns":1750000000000000000,"crc":"1a2b3c4d"}

The newest line of a field wins: the one that stands last in the file, whatever the clock says. The log itself is in `label_log`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import google_crc32c

from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import IndexRow, Trim, revised
from flywheel.datasets.tfrecord import Damage

_KINDS: Mapping[str, type] = {"success": bool, "invalid": bool, "deleted": bool, "trim": Trim, "task": str}
FIELDS = tuple(_KINDS)
_SEAL = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
"""What ends a line. It cannot stand within a JSON text, where a quote has a backslash before it."""
_SEAL_BYTES = len(',"crc":"00000000"}')

Value = bool | str | Trim | None


@dataclass(frozen=True, slots=True)
class Label:
    """One line of the log."""

    episode_id: str
    field: str
    value: Value
    """A bool; the task's name; the `Trim`; or None, which makes it again what was recorded."""
    by: str
    """A person, or a detector with its version."""
    reason: str
    at_ns: int
    """Nanoseconds since 1970 by the clock of the machine; for people alone, as clocks go backwards."""
    undo: bool = False
    """Whether it takes the label before it back; its value is then the one from before that."""


class Entry(NamedTuple):
    """A label, and the running CRC of this and all earlier lines of its episode: which snapshots name it by."""

    label: Label
    chain: int


def check_label(label: Label) -> Label:
    """The label itself; raises `FlywheelError` for a field or a value that there is not."""
    value = label.value
    if label.field not in _KINDS:
        raise FlywheelError(f"There is no label '{label.field}'; known: {', '.join(FIELDS)}.")
    if value is not None and not isinstance(value, _KINDS[label.field]):
        raise FlywheelError(f"The label '{label.field}' cannot be {value!r}.")
    if isinstance(value, Trim) and not (0 <= value.start < value.stop < 2**63 and math.isfinite(value.episode_return)):
        raise FlywheelError(f"The trim of {label.episode_id} cannot be {value.start}:{value.stop}.")
    _check_text("by", label.by, 200)
    _check_text("reason", label.reason or "-", 2_000)
    if isinstance(value, str):
        _check_text("task", value, 200)
    return label


def _check_text(name: str, text: str, longest: int) -> None:
    if len(text) > longest or not text.isprintable() or not text.strip():
        raise FlywheelError(f"A label's '{name}' must be one line of 1 to {longest} letters, not {text[:40]!r}.")


def encode_label(label: Label) -> bytes:
    """The line of a label, with its end."""
    values = asdict(label)
    if not label.undo:
        del values["undo"]
    body = json.dumps(values, separators=(",", ":")).encode()[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, google_crc32c.value(body))


def scan_labels(data: bytes) -> Iterator[bytes | Damage]:
    """The bodies of all whole lines of a log, and what is damaged; a torn last line is neither.

    A line that lost its end is still two whole ones.
    """
    start = 0
    while start < len(data):
        newline = data.find(b"\n", start)
        stop = len(data) if newline < 0 else newline
        bodies = whole(data[start:stop])
        yield from bodies
        if stop - start != sum(len(body) + _SEAL_BYTES for body in bodies) and (newline >= 0 or bodies):
            yield Damage(start, stop, f"The line at byte {start} does not agree with its CRC.")
        start = stop + 1


def whole(line: bytes) -> list[bytes]:
    """The bodies in a line that agree with their CRC: one, or none, or several where line ends between them were lost."""
    bodies, start = [], 0
    for seal in _SEAL.finditer(line):
        body = line[start : seal.start()]
        if google_crc32c.value(body) == int(seal[1], 16):
            bodies.append(body)
        start = seal.end() + 1
    return bodies


def parse_label(body: bytes) -> Label:
    """The label of a whole line; raises `ValueError` if this version does not know what it says."""
    try:
        values = json.loads(body.decode() + "}")
        if values["field"] == "trim" and values["value"] is not None:
            start, stop, episode_return = values["value"]
            values["value"] = Trim(int(start), int(stop), float(episode_return))
        label = Label(**values)
        if not all(isinstance(value, str) for value in (label.episode_id, label.by, label.reason)):
            raise ValueError("texts of another kind")
        return check_label(label)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, FlywheelError) as error:
        raise ValueError(f"it says what this version does not know ({error})") from None


def extend_chain(chain: int, body: bytes) -> int:
    """The running CRC with one line more; never 0, which stands for no line."""
    return int(google_crc32c.extend(chain, body)) or 1


def labelled(row: IndexRow, entries: Sequence[Entry]) -> IndexRow:
    """A recorded row with what its labels say; the row itself where there are none."""
    if not entries:
        return row
    newest = {entry.label.field: entry.label for entry in entries}
    changes: dict[str, Any] = {"labels": entries[-1].chain}
    for field, label in newest.items():
        if label.value is not None:
            changes |= _change(row, field, label)
    return revised(row, changes)


def _change(row: IndexRow, field: str, label: Label) -> dict[str, Any]:
    if isinstance(label.value, Trim):
        if label.value.stop > row.length:
            return {}  # of another episode of this id, in a store that was put together by hand
        return {"trim": label.value, "length": label.value.stop - label.value.start, "episode_return": label.value.episode_return}
    if field == "success":
        return {"success": label.value, "success_detector": label.by}
    return {field: label.value}
