from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.exporters import rlds
from tests.arm import make_store
from tests.interop import peers

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("camera", [False, True])
def test_tfds_reads_what_we_wrote(tmp_path: Path, camera: bool) -> None:
    pytest.importorskip("tensorflow_datasets")
    store = make_store(tmp_path / "store", camera=camera)
    rlds.export(store, store.snapshot(), tmp_path / "rlds", shard_mb=0.003)
    found = peers.read("here", "tfds_read.py", tmp_path, tmp_path / "rlds", "arm")
    expected = {episode.metadata.episode_id: episode for episode in store.episodes(store.snapshot())}
    assert len(expected) == sum(name.endswith("episode_id") for name in found)
    for number in range(len(expected)):
        episode = expected[found[f"{number}/episode_id"].item().decode()]
        for key, values in episode.observation.items():
            np.testing.assert_array_equal(found[f"{number}/observation/{key}"], values, strict=True)
        for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal"):
            np.testing.assert_array_equal(found[f"{number}/{key}"], getattr(episode, key), strict=True)
        assert {text.decode() for text in found[f"{number}/language_instruction"]} == {episode.metadata.task}
