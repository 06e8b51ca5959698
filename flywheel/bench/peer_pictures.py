"""robomimic's and LeRobot's side of the benchmark of learning from pictures: run by a Python that has the library.

Arguments are a folder, where ``frames`` holds the decoded episodes as .npy files (E, T + 1, ...), the side, and the batch size.
Each library first writes the episodes in its own format, reads them as its own training script does, and learns by imitation
from two 84 x 84 cameras and the state: a ResNet-18 per camera, 32 spatial keypoints, 64 features, two layers of 256. Reads one
number of seconds per line from standard input, and answers with the updates per second of processor time over a burst so long.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

CAMERAS, STATE_DIM, ACTION_DIM, SIZE, CROP = ("agentview", "wrist"), 32, 7, 84, 76
HIDDEN, FEATURES, KEYPOINTS, FPS = (256, 256), 64, 32, 20
Update = Callable[[], Any]


def main(folder: Path, name: str, batch_size: int) -> None:
    """Serve bursts until standard input closes."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the libraries print; answers go alone
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in (folder / "frames").glob("*.npy")}
    library, _, crop = name.partition("-")
    update = {"robomimic": robomimic, "lerobot": lerobot}[library](folder / name, arrays, batch_size, bool(crop))
    for line in sys.stdin:
        start, count = time.process_time(), 0
        while (elapsed := time.process_time() - start) < float(line):
            update()
            count += 1
        print(count / elapsed, file=answers, flush=True)


def robomimic(folder: Path, arrays: dict[str, Any], batch_size: int, crop: bool) -> Update:
    """Its BC with `VisualCore`, from its HDF5 in memory through its `SequenceDataset`."""
    folder.mkdir()
    path = folder / "data.hdf5"
    _write_hdf5(path, arrays)
    config = importlib.import_module("robomimic.config").config_factory("bc")
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = ["state"]
        config.observation.modalities.obs.rgb = list(CAMERAS)
        rgb = config.observation.encoder.rgb
        rgb.core_class = "VisualCore"
        rgb.core_kwargs.feature_dimension = FEATURES
        rgb.core_kwargs.backbone_class = "ResNet18Conv"
        rgb.core_kwargs.backbone_kwargs.pretrained = False
        rgb.core_kwargs.backbone_kwargs.input_coord_conv = False
        rgb.core_kwargs.pool_class = "SpatialSoftmax"
        rgb.core_kwargs.pool_kwargs.num_kp = KEYPOINTS
        rgb.core_kwargs.pool_kwargs.learnable_temperature = False
        rgb.core_kwargs.pool_kwargs.temperature = 1.0
        rgb.core_kwargs.pool_kwargs.noise_std = 0.0
        if crop:
            rgb.obs_randomizer_class = "CropRandomizer"
            rgb.obs_randomizer_kwargs.crop_height = rgb.obs_randomizer_kwargs.crop_width = CROP
            rgb.obs_randomizer_kwargs.num_crops = 1
            rgb.obs_randomizer_kwargs.pos_enc = False
        config.algo.actor_layer_dims = HIDDEN
        config.algo.gaussian.enabled = True
        config.train.batch_size = batch_size
    algorithms = importlib.import_module("robomimic.algo")  # with it the cores for pictures are registered
    importlib.import_module("robomimic.utils.obs_utils").initialize_obs_utils_with_config(config)
    shapes = {"state": [STATE_DIM], **{key: [3, SIZE, SIZE] for key in CAMERAS}}
    learner = algorithms.algo_factory("bc", config, shapes, ACTION_DIM, torch.device("cpu"))
    learner.set_train()
    dataset = importlib.import_module("robomimic.utils.dataset").SequenceDataset(
        str(path), obs_keys=("state", *CAMERAS), dataset_keys=("actions",), hdf5_cache_mode="all", load_next_obs=False
    )
    batches = _endless(dataset, batch_size)

    def update() -> None:
        batch = learner.process_batch_for_training(next(batches))
        learner.train_on_batch(learner.postprocess_batch_for_training(batch, obs_normalization_stats=None), epoch=0)

    return update


def lerobot(folder: Path, arrays: dict[str, Any], batch_size: int, crop: bool) -> Update:
    """The picture encoder of its diffusion policy, one per camera, below the same head, from its data set of PNG in parquet."""
    dataset = _lerobot_dataset(folder, arrays)
    policies = "lerobot.policies.diffusion"
    types = importlib.import_module("lerobot.configs.types")
    feature = types.PolicyFeature
    pictures = {f"observation.images.{key}": feature(types.FeatureType.VISUAL, (3, SIZE, SIZE)) for key in CAMERAS}
    config = importlib.import_module(f"{policies}.configuration_diffusion").DiffusionConfig(
        input_features={**pictures, "observation.state": feature(types.FeatureType.STATE, (STATE_DIM,))},
        output_features={"action": feature(types.FeatureType.ACTION, (ACTION_DIM,))},
        crop_shape=(CROP, CROP) if crop else None,
        spatial_softmax_num_keypoints=KEYPOINTS,
        use_separate_rgb_encoder_per_camera=True,
    )
    encoder = importlib.import_module(f"{policies}.modeling_diffusion").DiffusionRgbEncoder
    encoders: Any = nn.ModuleList(encoder(config) for _ in CAMERAS)
    dims = (len(CAMERAS) * encoders[0].feature_dim + STATE_DIM, *HIDDEN)
    layers = [layer for pair in itertools.pairwise(dims) for layer in (nn.Linear(*pair), nn.ReLU())]
    head = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], ACTION_DIM))
    optimizer = torch.optim.Adam([*encoders.parameters(), *head.parameters()], lr=1e-4)
    batches = _endless(dataset, batch_size)

    def update() -> None:
        batch = next(batches)
        seen = [part(batch[f"observation.images.{key}"]) for part, key in zip(encoders, CAMERAS, strict=True)]
        loss = (head(torch.cat([*seen, batch["observation.state"]], dim=-1)) - batch["action"]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def _write_hdf5(path: Path, arrays: dict[str, Any]) -> None:
    with importlib.import_module("h5py").File(path, "w") as file:
        for number in range(len(arrays["action"])):
            demo = file.create_group(f"data/demo_{number}")
            for key in ("state", *CAMERAS):
                demo.create_dataset(f"obs/{key}", data=arrays[key][number, :-1])
            demo.create_dataset("actions", data=arrays["action"][number, :-1])
            demo.attrs["num_samples"] = arrays["action"].shape[1] - 1


def _lerobot_dataset(folder: Path, arrays: dict[str, Any]) -> Any:
    dataset = importlib.import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset
    shape, names = (SIZE, SIZE, 3), ["height", "width", "channels"]
    pictures = {f"observation.images.{key}": {"dtype": "image", "shape": shape, "names": names} for key in CAMERAS}
    vectors = {
        "observation.state": {"dtype": "float32", "shape": (STATE_DIM,), "names": None},
        "action": {"dtype": "float32", "shape": (ACTION_DIM,), "names": None},
    }
    writer = dataset.create("local/frames", fps=FPS, features={**pictures, **vectors}, root=folder, use_videos=False)
    for number in range(len(arrays["action"])):
        for step in range(arrays["action"].shape[1]):
            seen = {f"observation.images.{key}": arrays[key][number, step] for key in CAMERAS}
            low = {"observation.state": arrays["state"][number, step], "action": arrays["action"][number, step]}
            writer.add_frame({**seen, **low, "task": "bench"})
        writer.save_episode()
    writer.finalize()
    return dataset("local/frames", root=folder)


def _endless(dataset: Any, batch_size: int) -> Iterator[Any]:
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=0, drop_last=True)
    while True:
        yield from loader


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
