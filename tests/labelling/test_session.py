from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector
from flywheel.labelling.queue import arrange, form_opinions
from flywheel.labelling.session import Session, instruction
from tests.labelling.judges import make_detector
from tests.lamp import make_store


class Trains:
    """A training that is done at the second look."""

    def __init__(self, outcome: SuccessDetector | FlywheelError) -> None:
        self.outcome, self.started, self.looks = outcome, 0, 0

    def start(self) -> None:
        self.started += 1

    def poll(self) -> SuccessDetector | None:
        self.looks += 1
        if self.looks < 2:
            return None
        if isinstance(self.outcome, FlywheelError):
            raise self.outcome
        return self.outcome


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return make_store(tmp_path, ("red",), range(6))


def asked(session: Session) -> str:
    return session.state()["episode"]["id"]


def test_the_least_certain_come_first_and_unknown_ones_last() -> None:
    opinions = {"a": 0.99, "b": 0.52, "c": 0.4, "d": 0.0}
    for seed in range(3):
        order = arrange(["x", "a", "b", "y", "c", "d"], opinions, seed)
        assert order[:4] == ["b", "c", "a", "d"]
        assert sorted(order[4:]) == ["x", "y"]
    assert arrange(list("abcdefgh"), {}, 0) != arrange(list("abcdefgh"), {}, 1)


def test_answers_are_stored_at_once_and_undone(store: EpisodeStore) -> None:
    session = Session(store, store.rows(), "anna")
    first = asked(session)
    state = session.answer(first, True)
    assert (state["labelled"], state["total"], state["can_undo"]) == (1, 6, True)
    assert store.history(first)[-1].by == "anna"
    second = asked(session)
    session.answer(second, None)
    assert not store.history(second)
    session.answer(first, False)  # from a second window: it is not asked about any more
    assert [label.value for label in store.history(first)] == [True]
    assert session.undo()["episode"]["id"] == second
    assert session.undo()["episode"]["id"] == first
    assert store.history(first)[-1].undo
    assert not session.undo()["can_undo"]
    while (episode := session.state()["episode"]) is not None:
        state = session.answer(episode["id"], False)
    assert (state["labelled"], state["episode"]) == (6, None)
    assert not any(row.success for row in store.rows())


def test_an_episode_that_is_gone_is_passed_over(store: EpisodeStore) -> None:
    session = Session(store, store.rows(), "anna")
    first = session._waiting[0]
    data = next(store.path.glob("*.tfrecord*"))
    damaged = bytearray(data.read_bytes())
    row = next(row for row in store.rows() if row.episode_id == first)
    damaged[row.offset + 40] ^= 255
    data.write_bytes(damaged)
    state = session.state()
    assert state["episode"]["id"] != first
    assert "verify" in state["notice"]
    assert state["skipped"] == 1
    second = state["episode"]["id"]
    session.answer(second, True)
    state = session.undo()  # to the last answer, and not to what nobody could see
    assert (state["episode"]["id"], state["skipped"], state["can_undo"]) == (second, 1, False)


def test_contradictions_train_again_and_reorder_what_is_left(store: EpisodeStore) -> None:
    first, second = make_detector(), make_detector(1)
    trains = Trains(second)
    opinions = form_opinions(store, first, store.rows())
    session = Session(store, store.rows(), "anna", detector=first, opinions=opinions, retraining=trains, retrain_after=2)
    for _ in range(2):
        name = asked(session)
        session.answer(name, opinions[name] < 0.5)
    assert trains.started == 1
    shown = asked(session)
    state = session.state()
    assert state["detector"] == second.name
    assert state["episode"]["id"] == shown
    assert "new order" in state["notice"]
    assert not state["is_retraining"]


def test_a_training_that_fails_is_told(store: EpisodeStore) -> None:
    trains = Trains(FlywheelError("the disk is full."))
    detector = make_detector()
    opinions = form_opinions(store, detector, store.rows())
    session = Session(store, store.rows(), "anna", detector=detector, opinions=opinions, retraining=trains, retrain_after=1)
    name = asked(session)
    state = session.answer(name, opinions[name] < 0.5)
    assert state["is_retraining"]
    assert "the disk is full" in session.state()["notice"]
    assert session.detector is detector


def test_a_detector_that_cannot_judge_after_its_training_is_told(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_detector(), make_detector(1)
    opinions = form_opinions(store, first, store.rows())
    session = Session(store, store.rows(), "anna", detector=first, opinions=opinions, retraining=Trains(second), retrain_after=1)

    def fail(*_: object) -> float:
        raise FlywheelError("The store has no camera 'wrist'.")

    name = asked(session)
    session.answer(name, opinions[name] < 0.5)
    monkeypatch.setattr(second, "judge", fail)
    state = session.state()
    assert "cannot judge the episodes: The store has no camera" in state["notice"]
    assert not state["is_retraining"]
    assert session.detector is first


def test_instructions_are_the_tasks_own() -> None:
    assert instruction("can") == "put the can into its bin"
    assert instruction("red") == "red"
