"""One person labelling the episodes of a store: what is asked next, and what becomes of an answer. Knows no web page."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import IndexRow
from flywheel.datasets.moments import encoded_episode
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector
from flywheel.labelling.queue import Opinions, arrange, form_opinions
from flywheel.tasks.base import make_task

_KEPT = 4
"""Episodes whose pictures are kept in memory."""


class Retraining(Protocol):
    """A detector that is trained again while the person goes on."""

    def start(self) -> None:
        """Begin with what is labelled now."""

    def poll(self) -> SuccessDetector | None:
        """The new detector, once, when it is done; raises `FlywheelError` where it failed."""


@dataclass(frozen=True)
class Answer:
    """What a person said; None is a skip."""

    episode_id: str
    success: bool | None


class Session:
    """Asks about one episode after the other; every method may be called from any thread.

    An answer is in the store's label log when `answer` returns.
    """

    def __init__(
        self,
        store: EpisodeStore,
        rows: Sequence[IndexRow],
        operator: str,
        *,
        seed: int = 0,
        detector: SuccessDetector | None = None,
        opinions: Opinions | None = None,
        retraining: Retraining | None = None,
        retrain_after: int = 0,
    ) -> None:
        self.store, self.operator, self.detector = store, operator, detector
        self._rows = {row.episode_id: row for row in rows}
        self._opinions = opinions or {}
        self._waiting = arrange(list(self._rows), self._opinions, seed)
        self._seed = seed
        self._answers: list[Answer] = []
        self._retraining, self._retrain_after = retraining, retrain_after
        self._unreadable = 0
        self._contradictions, self._trains = 0, False
        self._notice = ""
        self._pictures: OrderedDict[str, Mapping[str, list[bytes]]] = OrderedDict()
        self._lock = threading.RLock()

    def state(self) -> dict[str, Any]:
        """What the page shows now: the episode that is asked about, None at the end, and how far it is."""
        self._take_retrained()
        with self._lock:
            episode = self._episode()  # first, as one that cannot be read is passed over
            labelled = sum(answer.success is not None for answer in self._answers)
            return {
                "store": self.store.name,
                "operator": self.operator,
                "labelled": labelled,
                "skipped": len(self._answers) - labelled + self._unreadable,
                "total": len(self._rows),
                "detector": self.detector.name if self.detector else "",
                "contradictions": self._contradictions,
                "retrain_after": self._retrain_after,
                "is_retraining": self._trains,
                "notice": self._notice,
                "can_undo": bool(self._answers),
                "episode": episode,
            }

    def answer(self, episode_id: str, success: bool | None) -> dict[str, Any]:
        """Label the episode that is asked about, or skip it, and say what comes next.

        An answer to another episode, as from a second window, changes nothing. Raises `FlywheelError` if it cannot be stored.
        """
        with self._lock:
            if self._waiting and self._waiting[0] == episode_id:
                if success is not None:
                    self.store.label([episode_id], "success", success, by=self.operator, reason="labelled by eye")
                self._waiting.pop(0)
                self._answers.append(Answer(episode_id, success))
                self._notice = ""
                self._count(episode_id, success, 1)
        return self.state()

    def undo(self) -> dict[str, Any]:
        """Take the last answer back, and ask again; raises `FlywheelError` if it cannot be stored."""
        with self._lock:
            if self._answers:
                last = self._answers[-1]
                if last.success is not None:
                    self.store.undo([last.episode_id], "success", by=self.operator)
                self._answers.pop()
                self._waiting.insert(0, last.episode_id)
                self._count(last.episode_id, last.success, -1)
        return self.state()

    def picture(self, episode_id: str, camera: str, step: int) -> bytes | None:
        """A picture as a PNG or JPEG file; None if there is none."""
        with self._lock:
            if episode_id not in self._rows:
                return None
            pictures = self._load(episode_id).get(camera, [])
            return pictures[step] if 0 <= step < len(pictures) else None

    def _episode(self) -> dict[str, Any] | None:
        while self._waiting:
            row = self._rows[self._waiting[0]]
            try:
                cameras = list(self._load(row.episode_id))
            except FlywheelError as error:  # damaged, or deleted meanwhile
                self._notice = str(error)
                self._waiting.pop(0)  # for good: to take the last answer back must not ask about it again
                self._unreadable += 1
                continue
            return {
                "id": row.episode_id,
                "task": row.task,
                "instruction": instruction(row.task),
                "agent": row.agent_id,
                "steps": row.length,
                "cameras": cameras,
                "opinion": self._opinions.get(row.episode_id),
            }
        return None

    def _load(self, episode_id: str) -> Mapping[str, list[bytes]]:
        if episode_id not in self._pictures:
            self._pictures[episode_id] = encoded_episode(self.store, self._rows[episode_id])
            while len(self._pictures) > _KEPT:
                self._pictures.popitem(last=False)
        return self._pictures[episode_id]

    def _count(self, episode_id: str, success: bool | None, change: int) -> None:
        """Count an answer that contradicts the detector, and train it again when there are enough of them."""
        opinion = self._opinions.get(episode_id)
        if success is None or opinion is None or success == (opinion >= 0.5):
            return
        self._contradictions = max(0, self._contradictions + change)
        if self._retraining and not self._trains and 0 < self._retrain_after <= self._contradictions:
            self._contradictions, self._trains = 0, True
            self._retraining.start()

    def _take_retrained(self) -> None:
        with self._lock:
            if not self._trains or self._retraining is None:
                return
            rows = [self._rows[name] for name in self._waiting]
            try:
                detector = self._retraining.poll()
            except FlywheelError as error:
                self._trains, self._notice = False, f"The detector was not trained again: {error}"
                return
        if detector is None:
            return
        try:
            opinions = form_opinions(self.store, detector, rows)  # takes a while, in which the person goes on
        except FlywheelError as error:
            with self._lock:
                self._trains, self._notice = False, f"The detector that was trained again cannot judge the episodes: {error}"
            return
        with self._lock:
            self.detector, self._trains = detector, False
            self._opinions |= opinions
            # What is shown stays: nobody should answer about an episode that has just been exchanged.
            self._waiting[1:] = arrange(self._waiting[1:], self._opinions, self._seed)
            self._notice = f"Trained again: {detector.name} has put the remaining episodes in a new order."


def instruction(task: str) -> str:
    """What the task asks for; its name where it has no file in tasks/, as in foreign data."""
    try:
        return make_task(task).instruction
    except FlywheelError:
        return task or "reach its goal"
