"""Small files in the true formats, of numbers that can be followed by hand.

Observation t of episode e is 100 e + t, action t is 0.1 t + 0.01 e, reward t is 10 e + t, so that a shift by one shows.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset
from PIL import Image

from flywheel.datasets import example
from flywheel.datasets.tfrecord import masked_crc


def observations(episode: int, count: int) -> np.ndarray:
    """(count, 2) float32"""
    first = 100.0 * episode + np.arange(count)
    return np.stack([first, -first], axis=1).astype(np.float32)


def actions(episode: int, count: int) -> np.ndarray:
    """(count, 1) float32"""
    return (0.1 * np.arange(count) + 0.01 * episode).astype(np.float32)[:, None]


def rewards(episode: int, count: int) -> np.ndarray:
    """(count,) float32"""
    return (10.0 * episode + np.arange(count)).astype(np.float32)


def flat(lengths: list[int], *, following: bool) -> dict[str, np.ndarray]:
    """Episodes of so many transitions, one behind another, as D4RL lays them."""
    arrays = {
        "observations": np.concatenate([observations(e, n) for e, n in enumerate(lengths)]),
        "actions": np.concatenate([actions(e, n) for e, n in enumerate(lengths)]),
        "rewards": np.concatenate([rewards(e, n) for e, n in enumerate(lengths)]),
    }
    if following:
        arrays["next_observations"] = np.concatenate([observations(e, n + 1)[1:] for e, n in enumerate(lengths)])
    return arrays


def marked(lengths: list[int], which: list[int]) -> np.ndarray:
    """(N,) True at the last row of these episodes."""
    ends = np.cumsum(lengths) - 1
    return np.isin(np.arange(sum(lengths)), ends[which])


def d4rl(
    path: Path, lengths: list[int], terminal: list[int], timeout: list[int], *, following: bool = False, **more: Any
) -> Path:
    """A file of D4RL's; an array given as None is left out."""
    arrays = flat(lengths, following=following)
    arrays |= {"terminals": marked(lengths, terminal), "timeouts": marked(lengths, timeout)}
    arrays |= {"infos/qpos": arrays["observations"].astype(np.float64) / 3}
    return hdf5(path, {**arrays, **more})


def hdf5(path: Path, arrays: dict[str, Any]) -> Path:
    """An HDF5 file of these datasets."""
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            if value is not None:
                file.create_dataset(name, data=value)
    return path


ENVIRONMENT = {
    "env_name": "Lift",
    "type": 1,
    "env_kwargs": {
        "robots": ["Panda"],
        "reward_shaping": False,
        "control_freq": 20,
        "controller_configs": {"type": "OSC_POSE", "control_delta": True},
    },
}


def robomimic(path: Path, lengths: list[int], *, success: list[int], next_obs: bool = True, done_mode: int = 2) -> Path:
    """A file as dataset_states_to_obs.py writes it."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENVIRONMENT)
        data.attrs["total"] = sum(lengths)
        for episode, count in enumerate(lengths):
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"], demo.attrs["model_file"] = count, "<mujoco/>"
            seen = observations(episode, count + 1)
            done, reward = np.zeros(count, np.int64), np.zeros(count)
            if episode in success and count:
                reward[-1] = 1.0
                done[-1] = done_mode in (0, 2)
            done[-1:] |= done_mode in (1, 2)
            demo.create_dataset("actions", data=actions(episode, count).astype(np.float64))
            demo.create_dataset("rewards", data=reward)
            demo.create_dataset("dones", data=done)
            demo.create_dataset("states", data=seen[:-1].astype(np.float64))
            demo.create_dataset("obs/eef_pos", data=seen[:-1].astype(np.float64))
            if next_obs:
                demo.create_dataset("next_obs/eef_pos", data=seen[1:].astype(np.float64))
        file.create_dataset("mask/train", data=np.array([b"demo_0", b"demo_2"]))
        file.create_dataset("mask/few", data=np.array([b"demo_0"]))
    return path


def ogbench(path: Path, lengths: list[int]) -> Path:
    """A file as OGBench's generation scripts write it: T + 1 rows a trajectory, the last one without a meaning for its action."""
    rows = [count + 1 for count in lengths]
    seen = np.concatenate([observations(e, n) for e, n in enumerate(rows)])
    done = [np.concatenate([actions(e, n - 1), [[np.float32(99)]]]) for e, n in enumerate(rows)]
    np.savez_compressed(
        path,
        observations=seen,
        actions=np.concatenate(done).astype(np.float32),
        terminals=marked(rows, list(range(len(rows)))),
        qpos=seen.astype(np.float32) / 4,
        qvel=seen.astype(np.float32) / 8,
        button_states=np.ones((len(seen), 2), np.int64),
    )
    return path


_FEATURES = "tensorflow_datasets.core.features."


def group(**features: Any) -> dict[str, Any]:
    """A FeaturesDict as features.json writes it."""
    return {"pythonClassName": _FEATURES + "features_dict.FeaturesDict", "featuresDict": {"features": features}}


def tensor(dtype: str = "float32", *shape: int, encoding: str = "none") -> dict[str, Any]:
    """A Tensor as features.json writes it."""
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    about = {"shape": dimensions, "dtype": dtype, "encoding": encoding}
    return {"pythonClassName": _FEATURES + "tensor_feature.Tensor", "tensor": about}


def image(*shape: int, encoding: str = "png") -> dict[str, Any]:
    """An Image as features.json writes it."""
    about = {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": "uint8", "encodingFormat": encoding}
    return {"pythonClassName": _FEATURES + "image_feature.Image", "image": about}


TEXT = {"pythonClassName": _FEATURES + "text_feature.Text", "text": {}}
FLAGS = {name: tensor("bool") for name in ("is_first", "is_last", "is_terminal")}


def rlds(folder: Path, steps: dict[str, Any], others: dict[str, Any], shards: list[list[dict[str, Any]]]) -> Path:
    """``folder/toy/1.0.0`` with these features, and a shard per list of records as `example.encode` takes them."""
    path = folder / "toy" / "1.0.0"
    path.mkdir(parents=True)
    dataset = {"pythonClassName": _FEATURES + "dataset_feature.Dataset", "sequence": {"feature": group(**steps), "length": "-1"}}
    (path / "features.json").write_text(json.dumps(group(steps=dataset, **others)))
    split = {"name": "train", "shardLengths": [str(len(records)) for records in shards], "numBytes": "1"}
    about = {"name": "toy", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (path / "dataset_info.json").write_text(json.dumps(about))
    for number, records in enumerate(shards):
        data = b"".join(framed(example.encode(record)) for record in records)
        (path / f"toy-train.tfrecord-{number:05d}-of-{len(shards):05d}").write_bytes(data)
    return path


def framed(payload: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked_crc(length)) + payload + struct.pack("<I", masked_crc(payload))


def flags(count: int, *, terminal: bool) -> dict[str, Any]:
    """The flags of an episode of so many steps."""
    places = np.arange(count)
    return {
        "steps/is_first": (places == 0).astype(np.int64),
        "steps/is_last": (places == count - 1).astype(np.int64),
        "steps/is_terminal": ((places == count - 1) & terminal).astype(np.int64),
    }


OXE = {
    "observation": group(state=tensor("float32", 2), gripper=tensor("float64", encoding="bytes"), words=TEXT),
    "action": group(arm=tensor("float32", 1), hand=tensor("bool")),
    "reward": tensor(),
    "discount": tensor(),
    "language_instruction": TEXT,
    **FLAGS,
}


def oxe_record(number: int, count: int, *, terminal: bool, last_reward: float = 0.0) -> dict[str, Any]:
    """An episode of `count` steps, the last of which RLDS gives neither action nor reward; here they are 9 and `last_reward`."""
    return {
        "steps/observation/state": observations(number, count).reshape(-1),
        "steps/observation/gripper": [np.float64(0.25 * step).tobytes() for step in range(count)],
        "steps/observation/words": [b"word"] * count,
        "steps/action/arm": np.append(actions(number, count - 1)[:, 0], np.float32(9)),
        "steps/action/hand": (np.arange(count) % 2).astype(np.int64),
        "steps/reward": np.append(rewards(number, count - 1), np.float32(last_reward)),
        "steps/discount": np.ones(count, np.float32),
        "steps/language_instruction": [f"lift {number}".encode()] * count,
        "episode_metadata/file_path": [b"somewhere"],
        "episode_metadata/agent_id": [b"person"],
        **flags(count, terminal=terminal),
    }


OXE_METADATA = {"episode_metadata": group(file_path=TEXT, agent_id=TEXT)}


def box(low: Any, high: Any, shape: list[int], dtype: str = "float32") -> dict[str, Any]:
    """A Box as Minari serialises it."""
    return {
        "type": "Box",
        "dtype": dtype,
        "shape": shape,
        "low": np.full(shape, low).tolist(),
        "high": np.full(shape, high).tolist(),
    }


MINARI_OBSERVATION = {
    "type": "Dict",
    "subspaces": {
        "arm": {"type": "Tuple", "subspaces": [box(-1e9, 1e9, [2]), {"type": "Discrete", "dtype": "int64", "start": 0, "n": 99}]},
        "camera": box(0, 255, [32, 48, 3], "uint8"),
        "said": {"type": "Text", "max_length": 9, "min_length": 1, "charset": "ab"},
    },
}


def _minari_metadata(folder: Path, form: str, count: int, picture: bool) -> None:
    space = json.loads(json.dumps(MINARI_OBSERVATION))
    if not picture:
        del space["subspaces"]["camera"]
    about = {
        "dataset_id": "toy/lift-v0",
        "total_episodes": count,
        "data_format": form,
        "algorithm_name": "expert",
        "observation_space": json.dumps(space),
        "action_space": json.dumps(box(-2, 2, [1])),
        "env_spec": json.dumps({"id": "Lift-v0", "kwargs": {}}),
    }
    (folder / "metadata.json").write_text(json.dumps(about))


def jpeg(value: int) -> bytes:
    """A picture (32, 48, 3) of one grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 48, 3), value, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _ends(count: int, terminal: bool) -> tuple[np.ndarray, np.ndarray]:
    last = np.arange(count) == count - 1
    return last & terminal, last & (not terminal)


def minari_hdf5(root: Path, lengths: list[int], terminal: list[int], *, picture: bool = False) -> Path:
    """A data set as Minari's HDF5Storage writes it."""
    data = root / "toy" / "lift-v0" / "data"
    data.mkdir(parents=True)
    _minari_metadata(data, "hdf5", len(lengths), picture)
    with h5py.File(data / "main_data.hdf5", "w", track_order=True) as file:
        for number, count in enumerate(lengths):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"], group.attrs["seed"], group.attrs["total_steps"] = number, 40 + number, count
            terminations, truncations = _ends(count, number in terminal)
            columns = {
                "observations/arm/_index_0": observations(number, count + 1),
                "observations/arm/_index_1": np.arange(count + 1),
                "actions": actions(number, count),
                "rewards": rewards(number, count).astype(np.float64),
                "terminations": terminations,
                "truncations": truncations,
            }
            for name, value in columns.items():
                group.create_dataset(name, data=value, chunks=True, maxshape=(None, *value.shape[1:]))
            group.create_dataset("observations/said", data=["ab"] * (count + 1), dtype=h5py.string_dtype())
            if picture:
                frames = [np.frombuffer(jpeg(step), np.uint8) for step in range(count + 1)]
                kind = h5py.vlen_dtype(np.uint8)
                dataset = group.create_dataset("observations/camera", (count + 1,), dtype=kind, chunks=True)
                for step, frame in enumerate(frames):
                    dataset[step] = frame
    return data.parent


def minari_arrow(root: Path, lengths: list[int], terminal: list[int], form: str, *, picture: bool = False) -> Path:
    """A data set as Minari's ArrowStorage and ParquetStorage write it."""
    data = root / "toy" / "lift-v0" / "data"
    data.mkdir(parents=True)
    _minari_metadata(data, form, len(lengths), picture)
    for number, count in enumerate(lengths):
        seen, done = observations(number, count + 1), np.pad(actions(number, count), ((0, 1), (0, 0)))
        vectors = pa.FixedSizeListArray.from_arrays(seen.reshape(-1), 2)
        arm = pa.StructArray.from_arrays([vectors, pa.array(np.arange(count + 1))], names=["0", "1"])
        parts, names = [arm, pa.array(["ab"] * (count + 1))], ["arm", "said"]
        if picture:
            parts, names = [*parts, pa.array([jpeg(step) for step in range(count + 1)], pa.binary())], [*names, "camera"]
        terminations, truncations = _ends(count, number in terminal)
        batch = {
            "episode_id": np.full(count + 1, number, np.int32),
            "observations": pa.StructArray.from_arrays(parts, names=names),
            "actions": pa.FixedSizeListArray.from_arrays(done.reshape(-1), 1),
            "rewards": np.pad(rewards(number, count), (0, 1)),
            "terminations": np.pad(terminations, (0, 1)),
            "truncations": np.pad(truncations, (0, 1)),
        }
        pa.dataset.write_dataset(
            pa.RecordBatch.from_pydict(batch),
            data,
            format=form,
            partitioning=["episode_id"],
            existing_data_behavior="overwrite_or_ignore",
        )
        (data / str(number) / "metadata.json").write_text(json.dumps({"id": number, "total_steps": count, "seed": 40 + number}))
    return data.parent
