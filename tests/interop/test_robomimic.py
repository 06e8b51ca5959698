from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.exporters import robomimic
from tests.arm import make_store
from tests.interop import peers

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("camera", [False, True])
def test_robomimic_reads_what_we_wrote(tmp_path: Path, camera: bool) -> None:
    peers.require("robomimic")
    store = make_store(tmp_path / "store", camera=camera)
    path = robomimic.export(store, store.snapshot(), tmp_path / "robomimic")
    found = peers.read("robomimic", "robomimic_read.py", tmp_path, path, "camera" if camera else "")
    every = list(store.episodes(store.snapshot()))
    for mask, episodes in (("None", every), ("success", [episode for episode in every if episode.metadata.success])):
        for key in store.schema.observation.arrays:
            for group, rows in (("obs", slice(None, -1)), ("next_obs", slice(1, None))):
                expected = np.concatenate([episode.observation[key][rows] for episode in episodes])
                np.testing.assert_array_equal(found[f"{mask}/{group}/{key}"], expected)
        for name, values in (("actions", "action"), ("rewards", "reward")):
            expected = np.concatenate([getattr(episode, values)[:-1] for episode in episodes])
            np.testing.assert_array_equal(found[f"{mask}/{name}"], expected)
        np.testing.assert_array_equal(found[f"{mask}/dones"], np.concatenate([episode.is_terminal[1:] for episode in episodes]))
