"""Every frame of a data set as LeRobot gives it: lerobot_read.py FOLDER OUTPUT."""

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

# torchcodec, the default, needs an FFmpeg of the system.
dataset = LeRobotDataset("local/local", root=sys.argv[1], video_backend="pyav")
frames = [dataset[number] for number in range(len(dataset))]
arrays = {key: np.stack([np.asarray(frame[key]) for frame in frames]) for key in frames[0]}
for key, stats in dataset.meta.stats.items():
    arrays |= {f"stats/{key}/{name}": np.asarray(value) for name, value in stats.items()}
delta = LeRobotDataset("local/local", root=sys.argv[1], video_backend="pyav", delta_timestamps={"action": [0.0, 1 / dataset.fps]})
arrays["chunk"] = np.stack([np.asarray(delta[number]["action"]) for number in range(len(delta))])
arrays["chunk_is_pad"] = np.stack([np.asarray(delta[number]["action_is_pad"]) for number in range(len(delta))])
np.savez(sys.argv[2], **arrays)
