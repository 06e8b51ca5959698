from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.exporters import lerobot
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.importers.lerobot_info import Feature, short_names
from flywheel.datasets.importers.lerobot_video import decode_video
from tests.arm import make_store
from tests.datasets.importers import files
from tests.datasets.importers.checks import check, load

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
LENGTHS = [4, 6, 5]
SUCCESSES = [1]


def frames(number: int, count: int, first: int) -> Any:
    """The frames of an episode of `files`, as v2.1 and v3.0 hold them."""
    last = np.arange(count) == count - 1
    state = arrow.array(files.observations(number, count).reshape(-1))
    return arrow.table(
        {
            "observation.state": arrow.FixedSizeListArray.from_arrays(state, 2),
            "action": files.actions(number, count).reshape(-1),
            "next.reward": files.rewards(number, count),
            "next.done": last,
            "next.success": last & (number in SUCCESSES),
            "timestamp": (np.arange(count) / 10).astype(np.float32),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, number),
            "index": np.arange(first, first + count),
            "task_index": np.full(count, number % 2),
        }
    )


def info(version: str, **more: Any) -> dict[str, Any]:
    def number(dtype: str, size: int) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [size], "names": None}

    features = {"observation.state": number("float32", 2), "action": number("float32", 1), "next.reward": number("float32", 1)}
    features |= {"next.done": number("bool", 1), "next.success": number("bool", 1), "index": number("int64", 1)}
    features |= {"instruction": {"dtype": "string", "shape": [1], "names": None}}
    about = {"codebase_version": version, "fps": 10, "chunks_size": 2, "robot_type": "panda", "features": features}
    return about | more


def write_v2(folder: Path, **more: Any) -> Path:
    """A data set of v2.1: a file per episode, two to a chunk."""
    template = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info("v2.1", data_path=template, video_path=None, **more)))
    tasks = [{"task_index": number, "task": f"task {number}"} for number in range(2)]
    episodes = [{"episode_index": number, "tasks": ["?"], "length": length} for number, length in enumerate(LENGTHS)]
    for name, rows in (("tasks", tasks), ("episodes", episodes)):
        (folder / "meta" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for number, length in enumerate(LENGTHS):
        path = folder / template.format(episode_chunk=number // 2, episode_index=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(frames(number, length, 0), path)
    return folder


def write_v3(folder: Path, row_group_size: int = 1000, **more: Any) -> Path:
    """A data set of v3.0: two episodes in the first file and one in the second; row groups as another tool may cut them."""
    for name in ("data/chunk-000", "meta/episodes/chunk-000"):
        (folder / name).mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info("v3.0", data_path=lerobot.DATA_PATH, video_path=None, **more)))
    tables = [frames(number, length, sum(LENGTHS[:number])) for number, length in enumerate(LENGTHS)]
    for number, parts in enumerate((tables[:2], tables[2:])):
        path = folder / "data" / "chunk-000" / f"file-{number:03d}.parquet"
        parquet.write_table(arrow.concat_tables(parts), path, row_group_size=row_group_size)
    rows = {
        "episode_index": np.arange(3),
        "length": LENGTHS,
        "tasks": [["?"]] * 3,
        "data/chunk_index": [0] * 3,
        "data/file_index": [0, 0, 1],
    }
    parquet.write_table(arrow.table(rows), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    tasks = arrow.table({"task_index": [1, 0], "__index_level_0__": ["task 1", "task 0"]})
    parquet.write_table(tasks, folder / "meta" / "tasks.parquet")
    return folder


@pytest.mark.parametrize("write", [write_v2, write_v3, lambda folder: write_v3(folder, 3)])
def test_every_step_is_in_its_place(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    result, episodes = load(tmp_path, write(tmp_path / "source"))
    assert (result.stored, result.store.schema.action.rate) == (3, 10.0)
    for number, (episode, length) in enumerate(zip(episodes, LENGTHS, strict=True)):
        success = number in SUCCESSES
        check(episode, number, length - (not success), terminal=success, repeated=success)
        assert (episode.metadata.task, episode.metadata.robot) == (f"task {number % 2}", "panda")
        assert episode.metadata.success == success
        left = "repeated" if success else "last transition left out"
        assert json.loads(episode.metadata.source)["final_observation"] == left


def test_both_versions_tell_the_same_bounds(tmp_path: Path) -> None:
    two, three = open_source(write_v2(tmp_path / "two")), open_source(write_v3(tmp_path / "three"))
    assert two.schema() == three.schema()
    assert {two.episode_id(0), three.episode_id(0)} != {two.episode_id(0)}


@pytest.mark.parametrize(("rule", "terminal"), [("done", [True] * 3), ("never", [False] * 3), ("success", [False, True, False])])
def test_a_mapping_says_what_done_means(tmp_path: Path, rule: str, terminal: list[bool]) -> None:
    _, episodes = load(tmp_path, write_v3(tmp_path / "source"), {"terminal": rule})
    assert [episode.is_terminal[-1] for episode in episodes] == terminal


def test_pictures_are_named_shortly_unless_two_would_be_the_same() -> None:
    names = ["observation.state", "observation.images.top", "observation.images.state", "action"]
    shortened = short_names({name: Feature(name, "array", "float32", (1,)) for name in names})
    assert shortened == {
        "observation.state": "state",
        "observation.images.top": "top",
        "observation.images.state": "images.state",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, "version 'v1.6'"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": "ten"}, "no rate"),
        ({"features": 3}, "no features"),
        ({"features": {"action": {"dtype": "float32", "shape": [-1]}}}, "shape"),
        ({"features": {"action": {"dtype": "object", "shape": [1]}}}, "dtype"),
        ({"data_path": "../{chunk_index}"}, "leads out"),
        ({"data_path": "/etc/passwd"}, "leads out"),
        ({"data_path": "{chunk_index.__class__}"}, "not read"),
        ({"data_path": "{chunk_index:999999999d}"}, "not read"),
        ({"data_path": "{other}"}, "not read"),
        ({"data_path": None}, "not read"),
    ],
)
def test_a_hostile_info_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = write_v3(tmp_path / "source")
    path = source / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FlywheelError, match=message):
        load(tmp_path, source)


def test_what_is_listed_must_be_there(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "source")
    path = source / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.set_column(1, "length", arrow.array([4, 7, 5])), path)
    with pytest.raises(FlywheelError, match="holds 6 frames of episode 1, and 7 in a row are listed"):
        load(tmp_path, source)
    parquet.write_table(table.set_column(1, "length", arrow.array([4, 2**60, 5])), path)
    with pytest.raises(FlywheelError, match="is no count"):
        load(tmp_path, source)
    parquet.write_table(table, path)
    (source / "data" / "chunk-000" / "file-001.parquet").unlink()
    with pytest.raises(FlywheelError, match=r"file-001\.parquet"):
        load(tmp_path, source)


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_damage_is_one_sentence_or_harmless(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Parquet has no checksums here, so a flipped bit may be read; it must not crash, hang or raise anything else."""
    source = write(tmp_path / "source")
    whole = {path: path.read_bytes() for path in sorted(source.rglob("*")) if path.is_file()}
    rng = np.random.default_rng(0)
    refused: list[str] = []
    for path, data in whole.items():
        for trial in range(24):
            damaged = bytearray(data)
            if trial % 3 == 0:
                damaged = damaged[: rng.integers(len(data))]
            else:
                for place in rng.integers(len(data), size=trial):
                    damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                opened = open_source(source)
                schema = opened.schema()
                for index in range(len(opened)):
                    if (episode := opened.episode(index)) is not None:
                        episode.validate(schema.observation, schema.action)
            except FlywheelError as error:
                refused.append(str(error))
        path.write_bytes(data)
    assert len(refused) > 12 * len(whole)
    assert not any("\n" in sentence for sentence in refused)


def video(path: Path, count: int, fps: int) -> np.ndarray:
    """A video of levels that rise by 8 from frame to frame."""
    av = pytest.importorskip("av")
    pictures = np.stack([np.full((48, 64, 3), 8 * number, np.uint8) for number in range(count)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10", "g": "4"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return pictures


def test_frames_are_found_by_their_time(tmp_path: Path) -> None:
    pictures = video(tmp_path / "v.mp4", 20, 10)
    for start, stop in ((0, 20), (0, 3), (7, 12), (19, 20)):
        times = np.arange(start, stop) / 10
        found = decode_video(tmp_path / "v.mp4", times, 10.0, (48, 64, 3))
        assert np.abs(found.astype(int) - pictures[start:stop]).max() <= 3
    with pytest.raises(FlywheelError, match=r"lacks the frame at 2\.000 s"):
        decode_video(tmp_path / "v.mp4", np.arange(15, 21) / 10, 10.0, (48, 64, 3))
    with pytest.raises(FlywheelError, match="48 x 64, not of 64 x 48"):
        decode_video(tmp_path / "v.mp4", np.zeros(1), 10.0, (64, 48, 3))


def test_a_damaged_video_is_one_sentence_or_harmless(tmp_path: Path) -> None:
    video(tmp_path / "v.mp4", 20, 10)
    data = (tmp_path / "v.mp4").read_bytes()
    rng = np.random.default_rng(0)
    refused: list[str] = []
    for trial in range(60):
        damaged = bytearray(data[: rng.integers(len(data))] if trial % 3 == 0 else data)
        for place in rng.integers(max(1, len(damaged)), size=trial if trial % 3 else 0):
            damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "d.mp4").write_bytes(damaged)
        try:
            decode_video(tmp_path / "d.mp4", np.arange(20) / 10, 10.0, (48, 64, 3))
        except FlywheelError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in sentence for sentence in refused)


def test_an_export_that_lerobot_has_changed_is_read_as_foreign(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", camera=False)
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot")
    path = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    parquet.write_table(parquet.read_table(path).slice(0, 3), path)  # as if the last episode had been deleted
    result, _ = load(tmp_path, folder)
    assert result.stored == 3
    assert "state" in result.store.schema.observation.arrays
