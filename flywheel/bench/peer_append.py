"""The peers' side of the append benchmark: run by a Python that has the peer, which needs nothing of this package.

Arguments are a folder, where ``episode.npz`` holds an episode, and the peer. Reads one number of seconds per line from standard
input, appends the episode for so long, and answers with a line of episodes per second. Each peer is used as its own guide does:
TFDS's `SequentialWriter`, LeRobot's `add_frame` and `save_episode` with pictures as PNG on eight threads, robomimic's HDF5
layout without compression, flushed after each demonstration, and Minari's own storage. None of them is durable when it returns.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

CAMERAS = ("agentview", "wrist")
Arrays = dict[str, Any]
_MOST = 32


def main(folder: Path, peer: str) -> None:
    """Serve bursts until standard input closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the peers print; answers go alone
    arrays: Arrays = dict(np.load(folder / "episode.npz"))
    append = _PEERS[peer](folder / f"{peer}-{os.getpid()}", arrays)
    append()
    for line in sys.stdin:
        start, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < float(line) and done < _MOST:
            append()
            done += 1
        print(done / elapsed, file=answers, flush=True)


def tfds(encoding: str) -> Callable[[Path, Arrays], Callable[[], Any]]:
    """TFDS's writer, with pictures as PNG or JPEG."""

    def make(folder: Path, arrays: Arrays) -> Callable[[], Any]:
        folder.mkdir()
        module: Any = importlib.import_module("tensorflow_datasets")
        features, folder_name = module.features, os.fspath(folder)
        picture = features.Image(shape=arrays[CAMERAS[0]].shape[1:], encoding_format=encoding)
        observation = {"state": features.Tensor(shape=(32,), dtype=np.float32), **dict.fromkeys(CAMERAS, picture)}
        flags = {key: features.Scalar(np.bool_) for key in ("is_first", "is_last", "is_terminal")}
        numbers = {key: features.Scalar(np.float32) for key in ("reward", "discount")}
        step = {"observation": observation, "action": features.Tensor(shape=(7,), dtype=np.float32), **flags, **numbers}
        about = {"episode_id": features.Text()}
        content = features.FeaturesDict({"steps": features.Dataset(step), "episode_metadata": about})
        identity = module.core.DatasetIdentity(
            name="peer", version=module.core.Version("1.0.0"), data_dir=folder_name, module_name=""
        )
        info = module.core.DatasetInfo(builder=identity, features=content)
        writer = module.core.SequentialWriter(info, max_examples_per_shard=1000)
        writer.initialize_splits(["train"])
        names = count()

        def append() -> None:
            example = {"steps": steps(arrays), "episode_metadata": {"episode_id": str(next(names))}}
            writer.add_examples({"train": [example]})

        return append

    return make


def steps(arrays: Arrays) -> list[dict[str, Any]]:
    """The episode as RLDS steps."""
    length = len(arrays["action"])
    return [
        {
            "observation": {key: arrays[key][number] for key in ("state", *CAMERAS)},
            "action": arrays["action"][number],
            "reward": np.float32(0),
            "discount": np.float32(1),
            "is_first": number == 0,
            "is_last": number == length - 1,
            "is_terminal": False,
        }
        for number in range(length)
    ]


def lerobot(folder: Path, arrays: Arrays) -> Callable[[], Any]:
    """LeRobot's data set, version 3."""
    module: Any = importlib.import_module("lerobot.datasets.lerobot_dataset")
    names = ["height", "width", "channels"]
    pictures = {
        f"observation.images.{key}": {"dtype": "image", "shape": arrays[key].shape[1:], "names": names} for key in CAMERAS
    }
    vectors = {
        "observation.state": {"dtype": "float32", "shape": (32,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
    }
    dataset = module.LeRobotDataset.create(
        "peer", fps=20, features={**pictures, **vectors}, root=folder, use_videos=False, image_writer_threads=8
    )

    def append() -> None:
        for number, action in enumerate(arrays["action"]):
            seen = {f"observation.images.{key}": arrays[key][number] for key in CAMERAS}
            dataset.add_frame({**seen, "observation.state": arrays["state"][number], "action": action, "task": "bench"})
        dataset.save_episode()

    return append


def robomimic(folder: Path, arrays: Arrays) -> Callable[[], Any]:
    """The layout of robomimic: a group per demonstration, a data set per key."""
    file = importlib.import_module("h5py").File(folder.with_suffix(".hdf5"), "w")
    names = count()

    def append() -> None:
        demo = file.create_group(f"data/demo_{next(names)}")
        for key in ("state", *CAMERAS):
            demo.create_dataset(f"obs/{key}", data=arrays[key][:-1])
        demo.create_dataset("actions", data=arrays["action"][:-1])
        demo.create_dataset("rewards", data=np.zeros(len(arrays["action"]) - 1))
        demo.create_dataset("dones", data=np.zeros(len(arrays["action"]) - 1))
        demo.attrs["num_samples"] = len(arrays["action"]) - 1
        file.flush()

    return append


def minari(folder: Path, arrays: Arrays) -> Callable[[], Any]:
    """Minari's storage, in the format that it has by default."""
    spaces: Any = importlib.import_module("gymnasium.spaces")
    buffers: Any = importlib.import_module("minari.data_collector")
    storages: Any = importlib.import_module("minari.dataset.minari_storage")
    box = {key: spaces.Box(0, 255, arrays[key].shape[1:], np.uint8) for key in CAMERAS}
    observation = spaces.Dict({"state": spaces.Box(-np.inf, np.inf, (32,), np.float32), **box})
    folder.mkdir()
    storage = storages.MinariStorage.new(folder, observation, spaces.Box(-1, 1, (7,), np.float32), data_format="hdf5")
    length = len(arrays["action"]) - 1

    def append() -> None:
        buffer = buffers.EpisodeBuffer(
            observations={key: list(arrays[key]) for key in ("state", *CAMERAS)},
            actions=list(arrays["action"][:-1]),
            rewards=[0.0] * length,
            terminations=[False] * length,
            truncations=[False] * (length - 1) + [True],
        )
        storage.update_episodes([buffer])

    return append


_PEERS = {"tfds-png": tfds("png"), "tfds-jpeg": tfds("jpeg"), "lerobot": lerobot, "robomimic": robomimic, "minari": minari}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
