"""Where a LeRobot data set keeps its episodes: one parquet file each (v2.1) or many in a file (v3.0); never trusted."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.files import inside, need, reading

_LARGEST_CHUNK = 64
"""Rows per byte of a file: more cannot be of frames that each have an index."""


class Clip(NamedTuple):
    """Where an episode's pictures of one camera lie."""

    path: Path
    start: float
    """The time of its first frame in the file, in seconds."""


@dataclass(frozen=True)
class Entry:
    """An episode: how long it is and where it lies."""

    number: int
    """Its `episode_index`."""
    length: int
    """The number of frames T."""
    tasks: tuple[str, ...]
    data: Path
    clips: Mapping[str, Clip]
    """By feature."""


class Layout(Protocol):
    """The episodes of a data set."""

    def entries(self) -> list[Entry]:
        """Every episode, in order; raises `FlywheelError` for what is damaged or leads out of the folder."""
        ...

    def tasks(self) -> dict[int, str]:
        """The tasks by their number."""
        ...


class LayoutV2:
    """v2.0 and v2.1: meta/*.jsonl, and a parquet and an mp4 file per episode."""

    def __init__(self, root: Path, info: Mapping[str, Any], videos: tuple[str, ...]) -> None:
        self._root, self._info, self._videos = root, info, videos

    def entries(self) -> list[Entry]:
        """Every episode, in order."""
        path = inside(self._root, self._root / "meta" / "episodes.jsonl")
        found = []
        for row in read_json_lines(path):
            number, length = whole(path, row, "episode_index"), whole(path, row, "length")
            tasks = row.get("tasks") if isinstance(row.get("tasks"), list) else []
            found.append(
                Entry(number, length, tuple(map(str, tasks or [])), self._file("data_path", number), self._clips(number))
            )
        return found

    def tasks(self) -> dict[int, str]:
        """The tasks by their number."""
        path = inside(self._root, self._root / "meta" / "tasks.jsonl")
        return {whole(path, row, "task_index"): str(row.get("task", "")) for row in read_json_lines(path)}

    def _clips(self, number: int) -> dict[str, Clip]:
        return {key: Clip(self._file("video_path", number, key), 0.0) for key in self._videos}

    def _file(self, template: str, number: int, video: str = "") -> Path:
        chunk = number // max(1, whole(self._root / "meta" / "info.json", self._info, "chunks_size"))
        names = {"episode_chunk": chunk, "episode_index": number, "video_key": video}
        return expand(self._root, self._info.get(template), names)


class LayoutV3:
    """v3.0: meta/episodes in parquet, which say in which data and video file an episode lies."""

    def __init__(self, root: Path, info: Mapping[str, Any], videos: tuple[str, ...]) -> None:
        self._root, self._info, self._videos = root, info, videos

    def entries(self) -> list[Entry]:
        """Every episode, in order."""
        folder = self._root / "meta" / "episodes"
        files = sorted(inside(self._root, path) for path in folder.glob("chunk-*/*.parquet"))
        return [entry for path in files for entry in self._read(path)]

    def tasks(self) -> dict[int, str]:
        """The tasks by their number: a column of texts beside `task_index`, which pandas calls the index."""
        path = inside(self._root, self._root / "meta" / "tasks.parquet")
        table = ParquetFile(path).table
        with reading(path, "the list of tasks"):
            names = [name for name in table.column_names if name != "task_index"]
            numbers = table.column("task_index").to_pylist()
            return {int(number): str(task) for number, task in zip(numbers, table.column(names[0]).to_pylist(), strict=True)}

    def _read(self, path: Path) -> Iterator[Entry]:
        file = ParquetFile(path)
        wanted = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
        for key in self._videos:
            wanted += [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        for row in file.read(wanted).to_pylist():
            data = expand(self._root, self._info.get("data_path"), self._numbers(path, row, "data"))
            clips = {key: self._clip(path, row, key) for key in self._videos}
            tasks = tuple(map(str, row["tasks"] or ()))
            yield Entry(whole(path, row, "episode_index"), whole(path, row, "length"), tasks, data, clips)

    def _clip(self, path: Path, row: Mapping[str, Any], key: str) -> Clip:
        names = {**self._numbers(path, row, f"videos/{key}"), "video_key": key}
        start = row[f"videos/{key}/from_timestamp"]
        if not isinstance(start, float) or not 0 <= start < 1e9:
            raise FlywheelError(f"{path}: an episode's video begins at {start!r}.")
        return Clip(expand(self._root, self._info.get("video_path"), names), start)

    def _numbers(self, path: Path, row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {name: whole(path, row, f"{prefix}/{name}", name) for name in ("chunk_index", "file_index")}


class ParquetFile:
    """A parquet file of which row groups are read one at a time, the last one kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, "its footer"):
            self._file = need("pyarrow.parquet").ParquetFile(path)
            rows, size = self._file.metadata.num_rows, path.stat().st_size
            if rows > _LARGEST_CHUNK * size:
                raise FlywheelError(f"{path} promises {rows:,} rows in {size:,} bytes; it is damaged or hostile.")
            self.columns = tuple(self._file.schema_arrow.names)
            sizes = [self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._kept: tuple[int, tuple[str, ...], Any] = (-1, (), None)

    @property
    def length(self) -> int:
        """The number of rows."""
        return int(self._starts[-1])

    @property
    def table(self) -> Any:
        """All of it."""
        return self.read(list(self.columns))

    def read(self, columns: list[str]) -> Any:
        """Some columns of all rows; raises `FlywheelError` if one is missing or damaged."""
        self._check(columns)
        with reading(self.path, f"{columns[0]} and so on" if len(columns) > 1 else columns[0]):
            table = self._file.read(columns)
            table.validate(full=True)  # offsets out of bounds would crash the process later
            return table

    def rows(self, start: int, stop: int, columns: tuple[str, ...]) -> Any:
        """Rows [start, stop), of which only the row groups that hold them are read."""
        self._check(columns)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        with reading(self.path, f"rows {start} to {stop}"):
            parts = [self._group(number, columns) for number in range(first, last)]
            table = need("pyarrow").concat_tables(parts).slice(start - int(self._starts[first]), stop - start)
        if len(table) != stop - start:
            raise FlywheelError(f"{self.path} has {self.length} rows, and rows {start} to {stop} are listed.")
        return table

    @cached_property
    def episodes(self) -> Any:
        """(N,) the episode of each row."""
        return numbers(self.path, "episode_index", self.read(["episode_index"]).column(0), "int64", ())

    def _group(self, number: int, columns: tuple[str, ...]) -> Any:
        if self._kept[:2] != (number, columns):
            table = self._file.read_row_group(number, list(columns))
            table.validate(full=True)
            self._kept = (number, columns, table)
        return self._kept[2]

    def _check(self, columns: list[str] | tuple[str, ...]) -> None:
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise FlywheelError(f"{self.path} lacks the column '{missing[0]}'.")


def numbers(path: Path, name: str, column: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    """A column of numbers or of lists of them as (T, *shape); raises `FlywheelError` if it holds something else."""
    rows = len(column)
    with reading(path, f"'{name}'"):
        values = column.combine_chunks() if isinstance(column, need("pyarrow").ChunkedArray) else column
        values = getattr(values, "storage", values)  # an extension type of HuggingFace's
        while _is_list(values.type) and not values.null_count:
            values = values.flatten()
        if values.null_count or len(values) != rows * int(np.prod(shape, dtype=np.int64)):
            raise FlywheelError(f"{path}: '{name}' holds {len(values)} values in {rows} rows of shape {shape}.")
        found = np.asarray(values.to_numpy(zero_copy_only=False))
        return found.astype(dtype, casting="same_kind", copy=False).reshape(rows, *shape)


def _is_list(kind: Any) -> bool:
    types = need("pyarrow.types")
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one per line; raises `FlywheelError` for a line that is none."""
    with reading(path, "its lines"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            value = json.loads(line) if line.strip() else None
            if isinstance(value, dict):
                yield value
            elif value is not None:
                raise FlywheelError(f"{path}: line {number} is no JSON object.")


def expand(root: Path, template: Any, names: Mapping[str, Any]) -> Path:
    """The file that a path template of info.json names; raises `FlywheelError` if it does more than fill in these names."""
    try:
        parts = list(string.Formatter().parse(template))
        # A format such as 03d is all that a number needs; attributes and widths of a gigabyte are what an attack needs.
        plain = all(
            name is None or (name in names and conversion is None and len(form or "") <= 3) for _, name, form, conversion in parts
        )
        if not plain:
            raise ValueError
        return inside(root, root / template.format(**names))
    except (ValueError, TypeError):
        raise FlywheelError(f"{root / 'meta' / 'info.json'} has the path {template!r}, which is not read.") from None


def whole(path: Path, row: Mapping[str, Any], name: str, told: str = "") -> int:
    """A number of a row that counts something; raises `FlywheelError` for anything else."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise FlywheelError(f"{path}: {told or name} is {value!r}, which is no count.")
    return value
