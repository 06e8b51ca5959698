from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.importers.mapping import load_mapping
from flywheel.datasets.importers.rlds_features import features_of
from tests.datasets.importers import files
from tests.datasets.importers.checks import about, load
from tests.point import make_store


def _oxe(tmp_path: Path, **options: Any) -> Path:
    records = [files.oxe_record(number, 4 + number, terminal=number == 0, **options) for number in range(3)]
    return files.rlds(tmp_path, files.OXE, files.OXE_METADATA, [records[:2], records[2:]])


def test_the_last_step_is_an_observation(tmp_path: Path) -> None:
    result, episodes = load(tmp_path, _oxe(tmp_path))
    assert result.steps == 3 + 4 + 5
    for number, episode in enumerate(episodes):
        count = 3 + number
        np.testing.assert_array_equal(episode.observation["state"], files.observations(number, count + 1))
        assert episode.observation["gripper"].tolist() == [0.25 * step for step in range(count + 1)]
        np.testing.assert_array_equal(episode.action[:-1, :1], files.actions(number, count))
        assert episode.action[:-1, 1].tolist() == [float(step % 2) for step in range(count)]
        np.testing.assert_array_equal(episode.reward[:-1], files.rewards(number, count))
        assert episode.is_terminal[-1] == (number == 0)
        assert (episode.metadata.task, episode.metadata.agent_id) == (f"lift {number}", "person")
    assert about(episodes[2])["episode"] == "2 (record 0 of toy-train.tfrecord-00001-of-00002)"
    assert result.store.schema.action.high == (1.0, 1.0)  # the undefined 9 is not in the data


def test_a_reward_in_the_last_step_stops_the_import_until_it_is_told_what_it_is(tmp_path: Path) -> None:
    path = _oxe(tmp_path, last_reward=7.0)
    with pytest.raises(FlywheelError, match=r"episode 0 .*the last step has the reward 7, which RLDS leaves undefined"):
        load(tmp_path, path)
    _, episodes = load(tmp_path / "kept", path, load_mapping("oxe"))
    # A terminal transition is kept with its reward; a truncated one lacks the observation to bootstrap from.
    assert [episode.transitions for episode in episodes] == [4, 4, 5]
    assert episodes[0].reward[:-1].tolist() == [*files.rewards(0, 3).tolist(), 7.0]
    assert episodes[0].action[3, 0] == 9
    assert about(episodes[0])["final_observation"] == "repeated"
    _, episodes = load(tmp_path / "dropped", path, {"last_step": "observation"})
    assert [episode.transitions for episode in episodes] == [3, 4, 5]
    assert episodes[0].reward[:-1].tolist() == files.rewards(0, 3).tolist()


def test_an_undefined_last_reward_may_be_nan(tmp_path: Path) -> None:
    load(tmp_path, _oxe(tmp_path, last_reward=np.nan))


def test_a_mapping_chooses_scales_and_names(tmp_path: Path) -> None:
    given = {
        "observation": {"hand": {"from": "observation/gripper", "scale": 4, "offset": -1, "unit": "m", "dtype": "float64"}},
        "action": {"from": ["action/hand", "action/arm"], "low": [0, -2], "high": [1, 2], "mode": "absolute"},
        "reward": "none",
        "task": {"value": "tidy up"},
        "robot": {"value": "widowx"},
        "operator": "episode_metadata/file_path",
    }
    result, episodes = load(tmp_path, _oxe(tmp_path), given)
    assert episodes[0].observation.keys() == {"hand"}
    assert episodes[0].observation["hand"].tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert result.store.schema.observation.arrays["hand"].dtype == "float64"
    assert episodes[0].action[1].tolist() == [1.0, np.float32(0.1)]
    assert not episodes[0].reward.any()
    assert (episodes[0].metadata.task, episodes[0].metadata.robot, episodes[0].metadata.operator) == (
        "tidy up",
        "widowx",
        "somewhere",
    )


def _png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


MT_OPT_STEPS = {
    "action": files.group(
        close_gripper=files.tensor("bool"),
        open_gripper=files.tensor("bool"),
        target_pose=files.tensor("float32", 7, encoding="zlib"),
        terminate=files.tensor("bool"),
    ),
    "observation": files.group(
        gripper_closed=files.tensor("bool"),
        height_to_bottom=files.tensor("float32"),
        image=files.image(4, 6, 3),
        state_dense=files.tensor("float32", 7, encoding="zlib"),
    ),
    **files.FLAGS,
}
MT_OPT_OTHERS = {"episode_id": files.tensor("string"), "skill": files.tensor("uint8"), "task_code": files.tensor("string")}


def _mt_opt_record(count: int) -> dict[str, Any]:
    pose = np.arange(7 * count, dtype="<f4").reshape(count, 7) / 100
    return {
        "steps/action/close_gripper": np.zeros(count, np.int64),
        "steps/action/open_gripper": np.ones(count, np.int64),
        "steps/action/target_pose": [zlib.compress(step.tobytes()) for step in pose],
        "steps/action/terminate": (np.arange(count) == count - 2).astype(np.int64),
        "steps/observation/gripper_closed": np.zeros(count, np.int64),
        "steps/observation/height_to_bottom": np.arange(count, dtype=np.float32),
        "steps/observation/image": [_png(step) for step in range(count)],
        "steps/observation/state_dense": [zlib.compress((step + 1).tobytes()) for step in pose],
        "episode_id": [b"e0"],
        "skill": np.array([3]),
        "task_code": [b"lift_can"],
        **files.flags(count, terminal=True),
    }


def test_mt_opt_is_built_in(tmp_path: Path) -> None:
    path = files.rlds(tmp_path, MT_OPT_STEPS, MT_OPT_OTHERS, [[_mt_opt_record(5)]])
    episode = open_source(path, given=load_mapping("mt_opt")).episode(0)
    assert episode is not None
    assert episode.action.shape == (5, 10)
    np.testing.assert_allclose(episode.action[1], [*(np.arange(7, 14) / 100), 1, 0, 0], rtol=1e-6)
    assert episode.action[3, 9] == 1  # TERMINATE
    assert episode.observation["state_dense"].dtype == np.float32
    assert episode.observation["gripper_closed"].dtype == np.bool_
    assert [int(frame.max()) for frame in episode.observation["image"]] == [0, 1, 2, 3, 4]
    assert (episode.metadata.task, episode.metadata.experiment_id) == ("lift_can", "3")
    assert not episode.reward.any()


def test_a_store_of_ours_is_taken_over_with_its_ids(tmp_path: Path) -> None:
    store = make_store(tmp_path / "here", range(3))
    for path in (store.path, store.path.parent):
        result = import_episodes(open_source(path), tmp_path / "there", "copy")
    assert (result.stored, result.skipped) == (0, 3)
    assert result.store.snapshot() == store.snapshot()


def test_a_store_of_ours_is_also_rlds(tmp_path: Path) -> None:
    store = make_store(tmp_path / "here", range(3))
    _, episodes = load(tmp_path, store.path, {"task": {"value": "other"}})
    for found, expected in zip(episodes, store.episodes(), strict=True):
        np.testing.assert_array_equal(found.observation["target"], expected.observation["target"])
        np.testing.assert_array_equal(found.reward, expected.reward)
        assert found.is_terminal[-1] == expected.is_terminal[-1]
        assert (found.metadata.task, found.metadata.seed) == ("other", expected.metadata.seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps/is_last": np.array([0, 1, 0, 1])}, "'is_last' marks a step in the middle"),
        ({"steps/is_first": np.array([1, 0, 1, 0])}, "'is_first' marks a step in the middle"),
        ({"steps/is_terminal": np.array([0, 1, 0, 0])}, "'is_terminal' marks a step in the middle"),
        ({"steps/reward": np.zeros(3, np.float32)}, "'reward' has 3 steps, and the action has 4"),
        ({"steps/observation/state": np.zeros(7, np.float32)}, "'observation/state' has 7 numbers"),
        ({"steps/observation/state": np.full(8, np.nan, np.float32)}, "observation 'state' holds a NaN or an infinity at step 0"),
        ({"steps/observation/gripper": [b"short"] * 4}, "'observation/gripper' cannot be read"),
        ({"steps/action/hand": np.array([0, 1, 1 << 40, 0])}, "'action/hand' holds numbers that its bool cannot"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    record = {**files.oxe_record(0, 4, terminal=True), **change}
    path = files.rlds(tmp_path, files.OXE, files.OXE_METADATA, [[record]])
    with pytest.raises(FlywheelError, match=message) as error:
        load(tmp_path, path)
    assert "episode 0 (record 0 of toy-train.tfrecord-00000-of-00001)" in str(error.value)


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    record = files.oxe_record(0, 4, terminal=True)
    del record["steps/action/arm"]
    path = files.rlds(tmp_path, files.OXE, files.OXE_METADATA, [[record]])
    with pytest.raises(FlywheelError, match="the record has no 'action/arm'"):
        load(tmp_path, path)


def test_a_record_that_is_not_there_is_missed(tmp_path: Path) -> None:
    path = _oxe(tmp_path)
    shard = path / "toy-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(FlywheelError, match="holds 0 whole records, and more are listed"):
        load(tmp_path, path)


def test_a_data_set_that_climbs_out_is_refused(tmp_path: Path) -> None:
    path = _oxe(tmp_path)
    about_it = json.loads((path / "dataset_info.json").read_text())
    about_it["splits"][0]["filepathTemplate"] = "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    (path / "dataset_info.json").write_text(json.dumps(about_it))
    with pytest.raises(FlywheelError, match="is refused"):
        open_source(path)


def test_a_bomb_in_a_compressed_array_is_refused(tmp_path: Path) -> None:
    record = _mt_opt_record(3)
    record["steps/action/target_pose"] = [zlib.compress(bytes(100_000_000))] * 3
    path = files.rlds(tmp_path, MT_OPT_STEPS, MT_OPT_OTHERS, [[record]])
    given = {**load_mapping("mt_opt"), "observation": {"height": "observation/height_to_bottom"}}
    with pytest.raises(FlywheelError, match="holds 29 compressed bytes or more, not 28"):
        open_source(path, given=given).schema()


@pytest.mark.slow
def test_tfds_writes_what_we_read(tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features
    steps = features.FeaturesDict(
        {
            "observation": features.FeaturesDict(
                {
                    "image": features.Image(shape=(4, 6, 3), encoding_format="png"),
                    "state": features.Tensor(shape=(2,), dtype=np.float32, encoding=features.Encoding.ZLIB),
                    "label": features.ClassLabel(num_classes=3),
                    "depth": features.Image(shape=(4, 6, 1), dtype=np.uint16, encoding_format="png"),
                }
            ),
            "action": features.Tensor(shape=(1,), dtype=np.float64),
            "reward": features.Scalar(np.float32),
            "language_instruction": features.Text(),
            **dict.fromkeys(("is_first", "is_last", "is_terminal"), np.bool_),
        }
    )
    info = features.FeaturesDict({"steps": features.Dataset(steps)})
    rows = [
        {
            "observation": {
                "image": np.full((4, 6, 3), step, np.uint8),
                "state": files.observations(0, 5)[step],
                "label": step % 3,
                "depth": np.full((4, 6, 1), 1000 * step, np.uint16),
            },
            "action": files.actions(0, 5)[step].astype(np.float64),
            "reward": 0.0 if step == 4 else files.rewards(0, 5)[step],
            "language_instruction": "lift",
            **{"is_first": step == 0, "is_last": step == 4, "is_terminal": step == 4},
        }
        for step in range(5)
    ]
    (tmp_path / "made").mkdir()
    identity = tfds.core.DatasetIdentity(
        name="made", version=tfds.core.Version("1.0.0"), data_dir=str(tmp_path / "made"), module_name="x"
    )
    writer = tfds.core.SequentialWriter(tfds.core.DatasetInfo(builder=identity, features=info), max_examples_per_shard=1)
    writer.initialize_splits(["train", "val"])
    writer.add_examples({"train": [{"steps": rows}] * 2, "val": [{"steps": rows}]})
    writer.close_all()
    source = open_source(tmp_path / "made")
    assert len(source) == 3
    own = source.episode(2)
    # The depth, which is left out by default, makes TFDS itself the reader.
    both = open_source(
        tmp_path / "made", given={"observation": {"state": "observation/state", "depth": "observation/depth"}}
    ).episode(2)
    assert own is not None
    assert both is not None
    np.testing.assert_array_equal(own.observation["state"], files.observations(0, 5))
    np.testing.assert_array_equal(both.observation["state"], files.observations(0, 5))
    assert both.observation["depth"][:, 0, 0, 0].tolist() == [0, 1000, 2000, 3000, 4000]
    assert own.observation["label"].tolist() == [0, 1, 2, 0, 1]
    assert own.observation["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(own.action[:-1], files.actions(0, 4))
    np.testing.assert_array_equal(both.action, own.action)
    assert own.metadata.task == both.metadata.task == "lift"


@pytest.mark.slow
def test_mt_opt_is_as_tfds_has_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    theirs = pytest.importorskip("tensorflow_datasets.robotics.mt_opt.mt_opt")
    theirs._name_to_features("rlds").save_config(tmp_path)
    found = features_of(tmp_path, json.loads((tmp_path / "features.json").read_text()))
    path = files.rlds(tmp_path, MT_OPT_STEPS, MT_OPT_OTHERS, [[_mt_opt_record(3)]])
    mine = features_of(path, json.loads((path / "features.json").read_text()))
    assert found.pop("observation/image").shape == (512, 640, 3)
    del mine["observation/image"]
    assert found == mine
