from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.labelling.verdicts import label_episodes, labelled_by_person
from tests.labelling.judges import make_detector
from tests.lamp import episode, make_store


def test_a_detector_labels_what_no_person_labelled(tmp_path: Path) -> None:
    store, detector = make_store(tmp_path, ("red",), range(6)), make_detector()
    store.label(["red-0001"], "success", False, by="anna")
    store.label(["red-0000"], "success", True, by="detector-ffffffff")
    found = label_episodes(store, detector, store.rows())
    assert (found.accepted, found.refused, found.changed, found.kept) == (2, 3, 1, 1)
    assert [row.success for row in store.rows()] == [False, False, False, True, False, True]
    assert store.rows()[1].success_detector == "anna"
    label = store.history("red-0003")[-1]
    assert (label.by, label.value, label.reason) == (detector.name, True, "p = 0.90")


def test_doing_it_again_adds_nothing_and_a_newer_detector_does(tmp_path: Path) -> None:
    store, detector = make_store(tmp_path, ("red",), range(4)), make_detector()
    label_episodes(store, detector, store.rows())
    label_episodes(store, detector, store.rows())
    assert len(store.history("red-0001")) == 1
    label_episodes(store, make_detector(1), store.rows(), threshold=0.95)
    assert not any(row.success for row in store.rows())


def test_a_person_is_overridden_only_when_asked(tmp_path: Path) -> None:
    store, detector = make_store(tmp_path, ("red",), range(2)), make_detector()
    store.label(["red-0001"], "success", False, by="anna")
    assert labelled_by_person(store, store.rows()[1])
    label_episodes(store, detector, store.rows(), override=True)
    assert store.rows()[1].success
    assert not labelled_by_person(store, store.rows()[1])
    store.undo(["red-0001"], "success", by="bert")  # and anna's holds again
    assert labelled_by_person(store, store.rows()[1])
    store.undo(["red-0001"], "success", by="bert")
    assert not labelled_by_person(store, store.rows()[1])


def test_what_the_operator_said_while_recording_stands(tmp_path: Path) -> None:
    store = make_store(tmp_path, ("red",), range(1))
    said = dataclasses.replace(episode("red", 2).metadata, operator="anna", success=True, success_detector="anna")
    with store.writer() as writer:
        writer.append(dataclasses.replace(episode("red", 2), metadata=said))
    found = label_episodes(store, make_detector(), store.rows())
    assert (found.kept, found.refused) == (1, 1)
    assert store.rows()[1].success
    label_episodes(store, make_detector(), store.rows(), override=True)
    assert not store.rows()[1].success


def test_nothing_is_labelled_where_something_does_not_fit(tmp_path: Path) -> None:
    store = make_store(tmp_path, seeds=range(2))
    with pytest.raises(FlywheelError, match="has not learned the task 'red'"):
        label_episodes(store, make_detector(tasks=("blue",)), store.rows())
    with pytest.raises(FlywheelError, match="between 0 and 1"):
        label_episodes(store, make_detector(), store.rows(), threshold=1.0)
    assert not any(row.labels for row in store.rows())
