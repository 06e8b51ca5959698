"""What a store remembers of the learning done from it: the snapshots that were trained on, and the policies that came of it.

    .meta/snapshots/<hash>.json       a snapshot, as `Snapshot.save` writes it
    .meta/policies/<checkpoint>.json  a `PolicyRecord`

One file each, written once, whole or not at all. Episodes name the policy that made them, so that the chain can be followed
both ways; whatever is missing from it is unknown, and nothing else.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.layout import Layout
from flywheel.datasets.sealed_json import open_json, seal_json
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.tfrecord import DamageWarning

_FORMAT = 1
_HASH = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class PolicyRecord:
    """Where a policy came from."""

    checkpoint: str
    """The hash of its file: its name in the episodes that it makes."""
    snapshot: str
    """The hash of the snapshot that it was trained on."""
    parent: str = ""
    """The checkpoint that training started from; empty for none."""
    run: str = ""
    """The run's folder, as it was on the machine that trained."""
    algorithm: str = ""
    task: str = ""
    updates: int = 0
    code_version: str = ""


class LineageRecords:
    """The snapshots and policies that one store remembers."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def keep_snapshot(self, snapshot: Snapshot) -> Path:
        """Remember a snapshot and return its file; one that is there already is left as it is."""
        path = self._layout.snapshots / f"{snapshot.hash}.json"
        with self._layout.locked():
            if not path.exists():
                snapshot.save(path)
        return path

    def keep_policy(self, policy: PolicyRecord) -> Path:
        """Remember where a policy came from and return the file; what is known of it already is left as it is."""
        path = self._layout.policies / f"{_checked(policy.checkpoint)}.json"
        with self._layout.locked():
            if not path.exists():
                write_atomically(path, seal_json({"format": _FORMAT, **asdict(policy)}))
        return path

    def snapshots(self) -> tuple[str, ...]:
        """The hashes of all snapshots, sorted."""
        return tuple(_names(self._layout.snapshots))

    def snapshot(self, name: str) -> Snapshot | None:
        """The snapshot of a hash; None if it is not known. Raises `FlywheelError` if its file is damaged."""
        path = self._layout.snapshots / f"{name}.json"
        return Snapshot.load(path) if name in self.snapshots() else None

    def policies(self) -> dict[str, PolicyRecord]:
        """All policies by checkpoint; one whose file is damaged is left out with a `DamageWarning`."""
        found = {}
        for name in _names(self._layout.policies):
            try:
                found[name] = load_policy_record(self._layout.policies / f"{name}.json")
            except FlywheelError as error:
                warnings.warn(str(error), DamageWarning, stacklevel=2)
        return found


def _checked(name: str) -> str:
    if not _HASH.fullmatch(name):
        raise FlywheelError(f"'{name}' is no hash of a policy: 32 digits from 0 to f.")
    return name


def _names(folder: Path) -> Iterator[str]:
    yield from sorted(path.stem for path in folder.glob("*.json") if _HASH.fullmatch(path.stem))


def load_policy_record(path: Path) -> PolicyRecord:
    """Read one policy's file; raises `FlywheelError` if it is damaged."""
    try:
        value = open_json(path.read_bytes())
        if value.pop("format") != _FORMAT:
            raise FlywheelError(f"The policy record {path} is of another version; update flywheel-robotics.")
        record = PolicyRecord(**value)
        sound = record.checkpoint == path.stem and isinstance(record.snapshot, str) and isinstance(record.parent, str)
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise FlywheelError(f"The policy record {path} is damaged; remove it: training that run again writes it anew.")
    return record
