"""LeRobot v3.0: meta/info.json, stats.json, tasks.parquet and episodes, frames in parquet, pictures as PNG in it or as mp4.

LeRobot has T observations for T actions: frame t is (o_t, a_t) with ``next.reward`` = r_t, and the final observation has no
frame, as an invented action beside it would be learned from. It is kept beside the data, in ``meta/flywheel.parquet`` with the
episode's metadata, so that what is imported here again is what was exported. Pictures are exact (PNG) unless video is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.exporters.base import Export, Progress, published
from flywheel.datasets.exporters.lerobot_arrow import array_column, arrow, picture_column
from flywheel.datasets.exporters.lerobot_features import Features
from flywheel.datasets.exporters.lerobot_files import (
    CHUNK_FILES,
    DATA_MB,
    OURS,
    VIDEO,
    VIDEO_MB,
    ParquetFiles,
    Place,
    RowFiles,
    VideoFiles,
    write_tasks,
)
from flywheel.datasets.exporters.lerobot_stats import Stats, Summary, array_stats, picture_stats, to_lists
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_SLOWEST = 1 / 1001
"""Frames per second; anything slower would be rounded to no rate at all."""
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def export(
    store: EpisodeStore,
    snapshot: Snapshot,
    folder: Path,
    *,
    video: bool = False,
    fps: float | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Path:
    """Write a LeRobot data set into `folder`, which must be new or empty, and return it.

    `video` keeps pictures as H.264 instead of PNG; `fps` is needed where the store's action has no rate. Raises `FlywheelError`
    where it is missing, if pyarrow (or av for video) is missing, and for an episode that is damaged.
    """
    rate = _rate(store, fps)
    job, features = Export(store, snapshot, on_progress), Features.of(store.schema)
    with published(job, folder) as temporary, _Writer(job, features, temporary, rate, video=video) as writer:
        for episode in job.episodes():
            writer.add(episode)
        writer.finish()
    return folder


def _rate(store: EpisodeStore, fps: float | None) -> Fraction:
    rate = store.schema.action.rate if fps is None else fps
    if not _SLOWEST <= rate < 1e6:
        raise FlywheelError(f"{store.path} tells no control rate, which LeRobot needs; give the frames per second with --fps.")
    return Fraction(rate).limit_denominator(1001)


class _Writer(ExitStack):
    """The files of one data set; leaving it closes them."""

    def __init__(self, job: Export, features: Features, folder: Path, fps: Fraction, *, video: bool) -> None:
        super().__init__()
        self._job, self._features, self._folder, self._fps = job, features, folder, fps
        self._data = self.enter_context(closing(ParquetFiles(folder / "data")))
        self._episodes = self.enter_context(closing(RowFiles(folder / "meta" / "episodes", "meta/episodes/")))
        self._ours = self.enter_context(closing(RowFiles(folder / OURS)))
        self._videos = {
            name: self.enter_context(closing(VideoFiles(folder / "videos" / name, fps, spec.shape)))
            for name, spec in features.pictures.items()
            if video
        }
        self._tasks: dict[str, int] = {}
        self._summary = Summary()
        self._count = self._frames = 0

    def add(self, episode: Episode) -> None:
        """Write an episode."""
        observations = self._features.split(episode.observation)
        frames = {name: values[:-1] for name, values in observations.items()} | self._numbers(episode)
        stats = {name: _stats(values) for name, values in frames.items()}
        self._summary.add(stats)
        videos = {name: frames.pop(name) for name in self._videos}
        table = self._table(frames)
        row = self._row(episode, self._data.place(table.nbytes)) | self._encode(videos) | _flat(stats)
        self._data.write(table)
        self._episodes.write(arrow().table({name: [value] for name, value in row.items()}))
        final = self._table({name: values[-1:] for name, values in observations.items()})
        self._ours.write(final.append_column("metadata", arrow().array([json.dumps(episode.metadata.to_json())])))
        self._count, self._frames = self._count + 1, self._frames + episode.transitions

    def finish(self) -> None:
        """Write what is known at the end."""
        self._episodes.flush()
        self._ours.flush()
        documents = {"info.json": self._info(), "stats.json": self._summary.to_json()}
        for name, document in documents.items():
            (self._folder / "meta" / name).write_text(json.dumps(document, indent=1) + "\n")
        write_tasks(self._folder / "meta" / "tasks.parquet", list(self._tasks))

    def _numbers(self, episode: Episode) -> dict[str, Array]:
        """The columns beside the observation's."""
        steps = episode.transitions
        last = np.arange(steps) == steps - 1
        task = self._tasks.setdefault(episode.metadata.task, len(self._tasks))
        return {
            "action": episode.action[:-1],
            "next.reward": episode.reward[:-1],
            "next.done": last,
            "next.truncated": last & ~episode.is_terminal[-1],
            "next.success": last & episode.metadata.success,
            "timestamp": (np.arange(steps) / float(self._fps)).astype(np.float32),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, self._count),
            "index": np.arange(self._frames, self._frames + steps),
            "task_index": np.full(steps, task),
        }

    def _table(self, columns: Mapping[str, Array]) -> Any:
        pictures = self._features.pictures
        table = arrow().table(
            {name: picture_column(values) if name in pictures else array_column(values) for name, values in columns.items()}
        )
        # Without this, only LeRobot itself knows that the column is a picture.
        images = {name: {"_type": "Image"} for name in columns if name in pictures}
        return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": images}})})

    def _row(self, episode: Episode, place: Place) -> dict[str, Any]:
        return {
            "episode_index": self._count,
            "tasks": [episode.metadata.task],
            "length": episode.transitions,
            "data/chunk_index": place.chunk,
            "data/file_index": place.file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + episode.transitions,
        }

    def _encode(self, videos: Mapping[str, Array]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, frames in videos.items():
            place, start, stop = self._videos[name].write(frames)
            values = {"chunk_index": place.chunk, "file_index": place.file, "from_timestamp": start, "to_timestamp": stop}
            row |= {f"videos/{name}/{key}": value for key, value in values.items()}
        return row

    def _info(self) -> dict[str, Any]:
        fps = int(self._fps) if self._fps.denominator == 1 else float(self._fps)
        robots = {row.robot for row in self._job.rows}
        return {
            "codebase_version": "v3.0",
            "robot_type": robots.pop() if len(robots) == 1 else None,
            "total_episodes": self._count,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": fps,
            "splits": {"train": f"0:{self._count}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": self._features.info({**VIDEO, "video.fps": fps} if self._videos else None),
            "flywheel": self._job.provenance(),
        }


def _stats(values: Array) -> Stats:
    return picture_stats(values) if values.ndim == 4 and values.dtype == np.uint8 else array_stats(values)


def _flat(stats: Mapping[str, Stats]) -> dict[str, Any]:
    return {f"stats/{name}/{key}": value for name, of in stats.items() for key, value in to_lists(of).items()}
