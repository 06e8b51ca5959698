"""Which other loaders are installed to be measured beside ours, and the frames that they are given: those of our store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flywheel.bench.cameras import CAMERAS
from flywheel.core.specs import Array
from flywheel.datasets.store import EpisodeStore

_SCRIPT = Path(__file__).with_name("peer_loaders.py")
_INTEROP, _PEERS = "make test-interop", "make bench-peers"
LOADERS = {
    "robomimic": ("robomimic HDF5, 4 workers, goal: last", Path(".venv-interop/robomimic/bin/python"), _INTEROP),
    "lerobot-image": ("LeRobot PNG, 4 workers, no goal", Path(".venv-interop/lerobot/bin/python"), _INTEROP),
    "lerobot-video": ("LeRobot video, 4 workers, no goal", Path(".venv-interop/lerobot/bin/python"), _INTEROP),
    "torchrl": ("TorchRL memmap, slices of 2, 4 ahead, no goal", Path(".venv-peers/bin/python"), _PEERS),
}
"""By the name in `peer_loaders`: what a table calls it, which Python has it, and what installs that."""


def commands(store: EpisodeStore, folder: Path) -> dict[str, list[str]]:
    """The side of each loader that is installed, by its name in a table; `folder` is given the frames as .npy files first."""
    found = {}
    for loader, (name, python, target) in LOADERS.items():
        if python.exists():
            found[name] = [str(python), str(_SCRIPT), str(folder), loader]
        else:
            print(f"{name} is left out: '{target}' installs it.")
    if found:
        write_frames(store, folder / "frames")
    return found


def write_frames(store: EpisodeStore, folder: Path) -> None:
    """Write the store's episodes, all of one length, decoded: per key a file (E, T + 1, ...)."""
    folder.mkdir()
    columns: dict[str, Array] = {}
    for number, episode in enumerate(store.episodes()):
        arrays = {"action": episode.action, **{key: episode.observation[key] for key in ("state", *CAMERAS)}}
        for key, values in arrays.items():
            if key not in columns:
                shape = (len(store.rows()), *values.shape)
                path = folder / f"{key}.npy"
                columns[key] = np.lib.format.open_memmap(path, "w+", values.dtype, shape)  # type: ignore[no-untyped-call]
            columns[key][number] = values
