"""LeRobot's files: parquet and mp4 that are begun anew once they are large, numbered ``chunk-000/file-000``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.exporters.lerobot_arrow import arrow, parquet
from flywheel.datasets.importers.files import need

CHUNK_FILES = 1000
DATA_MB, VIDEO_MB = 100, 200
"""LeRobot's own limits: files in a chunk, and the size of a file."""
OURS = "meta/flywheel"
"""Where the exporter keeps what LeRobot has no place for: a row per episode with its metadata and its final observation."""
VIDEO = {"video.codec": "h264", "video.pix_fmt": "yuv420p"}
_ENCODER = {"crf": "18", "g": "2", "bf": "0"}
"""x264 at a quality at which a person sees no loss; every second frame is whole, so that a random one is found quickly."""


_ROWS = 100


class Place(NamedTuple):
    """A file's number."""

    chunk: int
    file: int

    @classmethod
    def of(cls, number: int) -> Place:
        """The place of the file that is the `number`-th, from 0."""
        return cls(*divmod(number, CHUNK_FILES))

    @property
    def name(self) -> str:
        """The path without its ending."""
        return f"chunk-{self.chunk:03d}/file-{self.file:03d}"


class ParquetFiles:
    """Tables of one schema, one row group each, in files of at most `limit_mb` MB (or of one table)."""

    def __init__(self, folder: Path, limit_mb: float = DATA_MB) -> None:
        self._folder, self._limit = folder, limit_mb * 1e6
        self._number = 0
        self._open = ExitStack()
        self._sink: Any = None
        self._writer: Any = None

    def place(self, size: int) -> Place:
        """Where the next table will go if it has so many bytes."""
        if self._writer is not None and self._sink.tell() + size > self._limit:
            self.close()
            self._number += 1
        return Place.of(self._number)

    def write(self, table: Any) -> None:
        """Write a table to the place that was told for it."""
        if self._writer is None:
            path = self._folder / f"{Place.of(self._number).name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = self._open.enter_context(path.open("wb"))
            self._writer = self._open.enter_context(parquet().ParquetWriter(self._sink, table.schema))
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        """Write the file's footer."""
        self._writer = None
        self._open.close()


class RowFiles:
    """Tables of one row per episode, a hundred to a row group."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._files, self._prefix = ParquetFiles(folder), prefix
        self._rows: list[Any] = []

    def write(self, row: Any) -> None:
        """Add a row; with a prefix, it gets the columns ``<prefix>chunk_index`` and ``file_index`` that say where it lies."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if not self._rows:
            return
        table = arrow().concat_tables(self._rows).combine_chunks()
        place = self._files.place(table.nbytes)
        if self._prefix:
            for name, number in (("chunk_index", place.chunk), ("file_index", place.file)):
                table = table.append_column(self._prefix + name, arrow().array([number] * len(table), arrow().int64()))
        self._files.write(table)
        self._rows = []

    def close(self) -> None:
        """Write the file's footer."""
        self._files.close()


class VideoFiles:
    """One camera's pictures, episode behind episode, in H.264 files of about `limit_mb` MB."""

    def __init__(self, folder: Path, fps: Fraction, shape: tuple[int, ...], limit_mb: float = VIDEO_MB) -> None:
        if shape[0] % 2 or shape[1] % 2 or shape[2] != 3:
            raise FlywheelError(f"H.264 holds pictures of even height and width and 3 channels, not {shape}; leave --video away.")
        self._folder, self._fps, self._shape, self._limit = folder, fps, shape, limit_mb * 1e6
        self._av = need("av")
        self._files = self._frames = 0
        self._path = folder
        self._container: Any = None
        self._stream: Any = None

    def write(self, frames: Array) -> tuple[Place, float, float]:
        """Encode an episode's pictures, (T, H, W, 3); returns its file, and from when to when it lasts there in seconds."""
        if self._container is None or self._path.stat().st_size > self._limit:
            self._begin()
        first = self._frames
        for frame in frames:
            picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = self._frames, 1 / self._fps
            self._container.mux(self._stream.encode(picture))
            self._frames += 1
        return Place.of(self._files - 1), float(first / self._fps), float(self._frames / self._fps)

    def close(self) -> None:
        """Finish the last file."""
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None

    def _begin(self) -> None:
        self.close()
        self._path = self._folder / f"{Place.of(self._files).name}.mp4"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._path), "w")
        self._stream = self._container.add_stream("libx264", rate=self._fps, options=_ENCODER)
        self._stream.height, self._stream.width = self._shape[:2]
        self._stream.pix_fmt = VIDEO["video.pix_fmt"]
        self._files, self._frames = self._files + 1, 0


def write_tasks(path: Path, tasks: list[str]) -> None:
    """Write tasks.parquet: a table whose index, in the way that pandas notes it, is the task and whose column is its number."""
    index = "__index_level_0__"
    described = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    pandas = {"index_columns": [index], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    columns = {"task_index": arrow().array(range(len(tasks)), arrow().int64()), index: arrow().array(tasks, arrow().string())}
    table = arrow().table(columns).replace_schema_metadata({"pandas": json.dumps(pandas)})
    parquet().write_table(table, path)
