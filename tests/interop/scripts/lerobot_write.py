"""A data set as LeRobot records it, with pictures as told: lerobot_write.py image|video FOLDER OUTPUT (the arrays)."""

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

kind, folder, output = sys.argv[1:]
shape = (64, 96, 3)
features = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    "observation.matrix": {"dtype": "float64", "shape": (2, 2), "names": None},
    "observation.images.front": {"dtype": kind, "shape": shape, "names": ["height", "width", "channels"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "next.success": {"dtype": "bool", "shape": (1,), "names": None},
}
dataset = LeRobotDataset.create(
    "local/local", fps=10, root=folder, features=features, use_videos=kind == "video", robot_type="panda"
)
rng = np.random.default_rng(0)
frames = []
rows, columns = np.mgrid[: shape[0], : shape[1]]
for episode in range(3):
    length = 6 + episode
    for step in range(length):
        last = step == length - 1
        frame = {
            "observation.state": rng.normal(size=3).astype(np.float32),
            "observation.matrix": rng.normal(size=(2, 2)),
            # Smooth, as the codec loses what is not; and different in every frame, so that a shift shows.
            "observation.images.front": np.stack([rows * 2, columns, rows * 0 + 30 * step + 10 * episode], -1).astype(np.uint8),
            "action": rng.uniform(-1, 1, 2).astype(np.float32),
            "next.reward": np.array([10 * episode + step], np.float32),
            "next.done": np.array([last]),
            "next.success": np.array([last and episode == 1]),
        }
        frames.append(dict(frame))
        dataset.add_frame(frame | {"task": f"task {episode % 2}"})
    dataset.save_episode()
dataset.finalize()
np.savez(output, **{key: np.stack([frame[key] for frame in frames]) for key in frames[0]})
