"""flywheel label STORE: look at episodes in the browser, and say with a key which of them succeeded."""

from __future__ import annotations

import dataclasses
import multiprocessing
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from flywheel.cli.console import parse_config, print_error, progress, say
from flywheel.cli.store_common import StorePath
from flywheel.cli.store_label import user_name
from flywheel.core.errors import FlywheelError
from flywheel.datasets.moments import check_cameras
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector
from flywheel.labelling.queue import form_opinions
from flywheel.labelling.server import LabelServer
from flywheel.labelling.session import Session
from flywheel.labelling.verdicts import labelled_by_person
from flywheel.training.detector import DetectorConfig, load_config, train_detector

_PATIENCE = 2.0
_SHORTER = 4
"""How much shorter a training is that starts from a detector than one that starts from nothing."""


@dataclass(frozen=True)
class LabelConfig:
    """Label episodes by eye."""

    store: StorePath
    """The store's folder, or a root that holds one store."""
    detector: Path | None = None
    """A success detector's run folder: it shows its opinion, and what it is least sure of is asked first."""
    operator: str = ""
    """Who labels; your user name if not given."""
    where: str = ""
    """Ask only about episodes for which this holds, as in 'flywheel store query'."""
    again: bool = False
    """Ask about episodes that a person has labelled already, too."""
    retrain_after: int = 0
    """Train the detector again, in the background, after so many answers that contradict it; 0 never does."""
    seed: int = 0
    """Which order episodes come in, where there is no detector."""
    port: int = 0
    """The port of the page on this machine; any free one by default."""
    browser: bool = True
    """Open the page in the browser."""


def run(arguments: list[str]) -> None:
    """Serve the page until Ctrl-C."""
    config = parse_config(LabelConfig, arguments, "flywheel label", __doc__)
    session = open_session(config)
    with LabelServer(session, config.port) as server:
        say(f"Label at {server.url}")
        say("y success, n failure, space skip, u undo, arrows through the pictures; Ctrl-C here when you are done.")
        if config.browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            state = session.state()
            say(f"{state['labelled']:,} labelled by {session.operator} in {session.store.path}; all of it is stored.")


def open_session(config: LabelConfig) -> Session:
    """The session that is asked for; raises `FlywheelError` where there is nothing to look at or to label."""
    store = EpisodeStore.open(config.store)
    if not store.schema.picture_keys:
        raise FlywheelError(f"{store.path} has no pictures to look at; label it with 'flywheel store label'.")
    rows = [row for row in (store.query(config.where) if config.where else store.rows()) if not row.invalid]
    rows = [row for row in rows if config.again or not labelled_by_person(store, row)]
    if not rows:
        raise FlywheelError(f"No episode of {store.path} is left to label; give --again to look at those that are labelled.")
    detector, opinions = None, {}
    if config.detector:
        detector = SuccessDetector.load(config.detector)
        check_cameras(store, detector.header.cameras)
        with progress("Judging", "episodes", after=_PATIENCE) as report:
            opinions = form_opinions(store, detector, rows, report)
    return Session(
        store,
        rows,
        config.operator or user_name(),
        seed=config.seed,
        detector=detector,
        opinions=opinions,
        retraining=_retraining(config, store),
        retrain_after=config.retrain_after,
    )


def _retraining(config: LabelConfig, store: EpisodeStore) -> BackgroundRetraining | None:
    if not config.retrain_after:
        return None
    if config.detector is None or not config.detector.is_dir():
        raise FlywheelError("retrain-after needs the run folder of a detector (--detector).")
    run = load_config(config.detector / "config.yaml")
    if store.path.resolve() not in {EpisodeStore.open(path).path.resolve() for path in run.store}:
        raise FlywheelError(
            f"{config.detector} did not learn from {store.path}; train it on that store too, or leave --retrain-after."
        )
    return BackgroundRetraining(run)


class BackgroundRetraining:
    """Trains a detector from where it stands, in a process of its own, each time into a new folder beside the first."""

    def __init__(self, config: DetectorConfig) -> None:
        self._first = self._config = config
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        """Begin with what is labelled now."""
        number = 2
        while (output := self._first.output.with_name(f"{self._first.output.name}-{number}")).exists():
            number += 1
        updates = max(1, self._first.updates // _SHORTER)
        self._next = dataclasses.replace(self._first, initial=self._config.output, output=output, updates=updates)
        self._process = multiprocessing.get_context("spawn").Process(target=_train, args=(self._next,), daemon=True)
        self._process.start()

    def poll(self) -> SuccessDetector | None:
        """The new detector, once, when it is done."""
        if self._process is None or self._process.is_alive():
            return None
        code, self._process = self._process.exitcode, None
        if code:
            raise FlywheelError(f"the training in {self._next.output} ended with exit code {code}.")
        self._config = self._next
        return SuccessDetector.load(self._next.output)


def _train(config: DetectorConfig) -> None:
    try:
        train_detector(config)
    except FlywheelError as error:
        print_error(str(error))
        raise SystemExit(1) from None
