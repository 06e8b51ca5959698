"""Whatever is said of episodes, in whatever order: the store shows what a few dictionaries would, now and as of any snapshot."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from tests.point import make_store

LENGTH = 7  # the shortest of these episodes
NAMES = [f"reach-script-{seed:05d}" for seed in range(3)]
VALUES = {
    "success": st.booleans(),
    "invalid": st.booleans(),
    "deleted": st.booleans(),
    "task": st.sampled_from(["push", "lift"]),
    "trim": st.tuples(st.integers(0, 3), st.integers(4, LENGTH)),
}
some = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
field = st.sampled_from(sorted(VALUES))
labels = st.tuples(st.just("label"), some, field.flatmap(lambda name: st.tuples(st.just(name), st.none() | VALUES[name])))
undos = st.tuples(st.just("undo"), some, field)
others = st.tuples(st.sampled_from(["snapshot", "reopen"]), st.none(), st.none())
Stacks = dict[tuple[str, str], list[object]]


def shown(store: EpisodeStore, snapshot: Snapshot | None = None) -> dict[str, tuple[object, ...]]:
    """What a store tells of each episode."""
    rows = store.rows(deleted=True) if snapshot is None else store.resolve(snapshot)
    return {
        row.episode_id: (row.success, row.invalid, row.deleted, row.task, None if row.trim is None else row.trim[:2])
        for row in rows
    }


def expected(recorded: dict[str, tuple[object, ...]], stacks: Stacks) -> dict[str, tuple[object, ...]]:
    """What the model tells: the top of each field's stack, or what was recorded."""
    order = ("success", "invalid", "deleted", "task", "trim")
    told = {}
    for name, values in recorded.items():
        tops = [stacks.get((name, key), [None])[-1:] for key in order]
        told[name] = tuple(value if not top or top[0] is None else top[0] for top, value in zip(tops, values, strict=True))
    return told


def undo(store: EpisodeStore, stacks: Stacks, names: list[str], key: str) -> None:
    can = all(stacks.get((name, key)) for name in names)
    try:
        store.undo(names, key, by="model")
    except FlywheelError:
        assert not can
    else:
        assert can
        for name in names:
            stacks[name, key].pop()


@settings(max_examples=60)
@given(st.lists(st.one_of(labels, undos, others), max_size=20))
def test_the_log_says_what_a_model_says(steps: list[tuple[str, list[str], object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), range(3))
        recorded, stacks = shown(store), {}
        kept: list[tuple[Snapshot, dict[str, tuple[object, ...]]]] = []
        for action, names, what in steps:
            match action:
                case "label":
                    key, value = what
                    store.label(names, key, value, by="model")
                    for name in names:
                        stacks.setdefault((name, key), []).append(value)
                case "undo":
                    undo(store, stacks, names, what)
                case "snapshot":
                    snapshot = store.snapshot()
                    kept.append((snapshot, {row.episode_id: shown(store)[row.episode_id] for row in store.rows()}))
                case _:
                    store = EpisodeStore.open(store.path)
            assert shown(store) == expected(recorded, stacks)
        for opened in (store, EpisodeStore.open(store.path)):
            assert shown(opened) == expected(recorded, stacks)
            for snapshot, told in kept:
                assert shown(opened, snapshot) == told
                assert Snapshot.of_rows(opened.resolve(snapshot)) == snapshot
