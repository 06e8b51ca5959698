"""Other libraries' loaders in the sampling benchmark: run by a Python that has the library, which needs nothing of this package.

Arguments are a folder, where ``frames`` holds the decoded episodes as .npy files (E, T + 1, ...), and the loader. Each library
first writes them in its own format, and then reads batches of 256 as its own guide does, with as many workers as were best on
four cores. Reads one number of seconds per line from standard input, and answers with the frames per second over a burst of
that length. Workers live only as long as a burst, so that they compute only while they are timed.

robomimic's `SequenceDataset` gives observation, next observation and, as it has no other goal, the episode's last: 6 frames a
sample from uncompressed HDF5. LeRobot and TorchRL give observation and next observation: 4. LeRobot, which writes an episode
a second, has the first ten only.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

CAMERAS = ("agentview", "wrist")
BATCH, WORKERS, FPS = 256, 4, 20
_FEW = 10
Arrays = dict[str, Any]
Batches = Callable[[], Iterator[Any]]


def main(folder: Path, name: str) -> None:
    """Serve bursts until standard input closes."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # whatever OMP_NUM_THREADS says; workers have one each
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the libraries print; answers go alone
    arrays: Arrays = {path.stem: np.load(path, mmap_mode="r") for path in (folder / "frames").glob("*.npy")}
    make, frames = _LOADERS[name]
    batches = make(folder / name, arrays)
    for line in sys.stdin:
        print(burst(batches(), float(line)) * BATCH * frames, file=answers, flush=True)


def burst(batches: Iterator[Any], seconds: float) -> float:
    """Batches per second. One of each worker is thrown away, and they are counted by as many, as workers deliver in step."""
    for _ in range(WORKERS):
        next(batches)
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(WORKERS):
            next(batches)
        count += WORKERS
    return count / elapsed


def robomimic(folder: Path, arrays: Arrays) -> Batches:
    """`SequenceDataset` over robomimic's layout, low-dimensional data cached, pictures from the disk."""
    folder.mkdir()
    path = folder / "frames.hdf5"
    with importlib.import_module("h5py").File(path, "w") as file:
        for number in range(len(arrays["action"])):
            demo = file.create_group(f"data/demo_{number}")
            for key in ("state", *CAMERAS):
                demo.create_dataset(f"obs/{key}", data=arrays[key][number, :-1])
                demo.create_dataset(f"next_obs/{key}", data=arrays[key][number, 1:])
            demo.create_dataset("actions", data=arrays["action"][number, :-1])
            demo.attrs["num_samples"] = arrays["action"].shape[1] - 1
    kinds = {"obs": {"low_dim": ["state"], "rgb": list(CAMERAS)}}
    importlib.import_module("robomimic.utils.obs_utils").initialize_obs_utils_with_obs_specs(kinds)
    dataset = importlib.import_module("robomimic.utils.dataset").SequenceDataset(
        hdf5_path=os.fspath(path),
        obs_keys=("state", *CAMERAS),
        dataset_keys=("actions",),
        goal_mode="last",
        hdf5_cache_mode="low_dim",
        load_next_obs=True,
    )
    return _loader(dataset)


def lerobot(kind: str) -> Callable[[Path, Arrays], Batches]:
    """LeRobot's data set, version 3, with pictures as PNG in its parquet (``image``) or as ``video``, read by PyAV."""

    def make(folder: Path, arrays: Arrays) -> Batches:
        dataset_class = importlib.import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset
        names = ["height", "width", "channels"]
        pictures = {
            f"observation.images.{key}": {"dtype": kind, "shape": arrays[key].shape[2:], "names": names} for key in CAMERAS
        }
        vectors = {
            "observation.state": {"dtype": "float32", "shape": (32,), "names": None},
            "action": {"dtype": "float32", "shape": (7,), "names": None},
        }
        writer = dataset_class.create(
            "local/frames", fps=FPS, features={**pictures, **vectors}, root=folder, use_videos=kind == "video"
        )
        for number in range(min(_FEW, len(arrays["action"]))):
            for step in range(arrays["action"].shape[1]):
                seen = {f"observation.images.{key}": arrays[key][number, step] for key in CAMERAS}
                low = {"observation.state": arrays["state"][number, step], "action": arrays["action"][number, step]}
                writer.add_frame({**seen, **low, "task": "bench"})
            writer.save_episode()
        writer.finalize()
        both = {key: [0.0, 1 / FPS] for key in (*pictures, "observation.state")}
        return _loader(dataset_class("local/frames", root=folder, delta_timestamps=both, video_backend="pyav"))

    return make


def torchrl(folder: Path, arrays: Arrays) -> Batches:
    """A replay buffer over memory-mapped storage: slices of two steps, boundaries kept, four batches ahead."""
    data: Any = importlib.import_module("torchrl.data")
    samplers: Any = importlib.import_module("torchrl.data.replay_buffers.samplers")
    tensordict: Any = importlib.import_module("tensordict").TensorDict
    episodes, steps = arrays["action"].shape[:2]
    buffer = data.TensorDictReplayBuffer(
        storage=data.LazyMemmapStorage(episodes * steps, scratch_dir=folder),
        sampler=samplers.SliceSampler(slice_len=2, traj_key="episode", cache_values=True),
        batch_size=2 * BATCH,
        prefetch=WORKERS,
    )
    for number in range(episodes):
        columns = {key: torch.from_numpy(np.array(column[number])) for key, column in arrays.items()}
        buffer.extend(tensordict({**columns, "episode": torch.full((steps,), number)}, batch_size=[steps]))

    def batches() -> Iterator[Any]:
        while True:
            yield buffer.sample()

    return batches


def _loader(dataset: Any) -> Batches:
    """Torch's own loader over a library's data set, without end."""
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=1 << 30)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, sampler=sampler, num_workers=WORKERS)
    return lambda: iter(loader)


_LOADERS: dict[str, tuple[Callable[[Path, Arrays], Batches], int]] = {
    "robomimic": (robomimic, 6),
    "lerobot-image": (lerobot("image"), 4),
    "lerobot-video": (lerobot("video"), 4),
    "torchrl": (torchrl, 4),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
