from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel.datasets.recording.recorder import Recorder
from flywheel.datasets.store import EpisodeStore
from tests.datasets.recording.record_script import SCHEMA


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore.create(tmp_path, "record", SCHEMA)


@pytest.fixture
def recorder(store: EpisodeStore) -> Iterator[Recorder]:
    with store.recorder(ring_bytes=1 << 20) as recorder:
        yield recorder
