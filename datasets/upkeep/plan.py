"""The plan of a new generation, kept on disk so that a killed compaction goes on where it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flywheel.core.files import write_atomically
from flywheel.datasets.layout import Shards
from flywheel.datasets.sealed_json import open_json, seal_json

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Group:
    """The shards, neighbours in their order, that become one; a single one that is not copied is linked."""

    shards: tuple[int, ...]
    copies: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How the shards of one generation become those of the next."""

    source: Shards
    groups: tuple[Group, ...]
    drop: frozenset[str] = frozenset()
    """The ids of episodes to leave out."""
    accepts_losses: bool = False
    """Whether shards may be missing or cut off."""

    @property
    def generation(self) -> int:
        """The generation that it makes."""
        return self.source.generation + 1

    def fits(self, shards: Shards) -> bool:
        """Whether it still holds for a store that has grown since, and may go on after a kill.

        One that leaves something out may not: who asked for it may have thought better of it.
        """
        is_same = (shards.name, shards.generation) == (self.source.name, self.source.generation)
        count = len(self.source.lengths)
        is_whole = [shard for group in self.groups for shard in group.shards] == list(range(count))
        return (
            is_same and is_whole and shards.lengths[:count] == self.source.lengths and not self.drop and not self.accepts_losses
        )


def merge_groups(sizes: list[int], target_bytes: int, linked: frozenset[int]) -> tuple[Group, ...]:
    """Neighbours of less than half the target, merged up to it; the others, and those of `linked`, stay as they are.

    Of any two neighbours that come out, one is at least half as large as the target, or linked.
    """
    groups: list[Group] = []
    room = 0
    for number, size in enumerate(sizes):
        stays = number in linked or 2 * size >= target_bytes
        if stays or size > room or not groups:
            groups.append(Group((number,), copies=False))
            room = 0 if stays else target_bytes - size
        else:
            groups[-1] = Group((*groups[-1].shards, number), copies=True)
            room -= size
    return tuple(groups)


def save_plan(path: Path, plan: Plan) -> None:
    """Write a plan, whole or not at all."""
    value = {
        "format": _FORMAT,
        "source": plan.source.to_json(),
        "groups": [[list(group.shards), group.copies] for group in plan.groups],
        "drop": sorted(plan.drop),
        "accepts_losses": plan.accepts_losses,
    }
    write_atomically(path, seal_json(value))


def load_plan(path: Path) -> Plan | None:
    """The plan in a file; None if there is none that can be read, so that planning begins anew."""
    try:
        value = open_json(path.read_bytes())
        if value["format"] != _FORMAT:
            return None
        groups = tuple(Group(tuple(shards), copies) for shards, copies in value["groups"])
        return Plan(Shards.from_json(value["source"]), groups, frozenset(value["drop"]), value["accepts_losses"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
