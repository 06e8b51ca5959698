"""Minari's Arrow and Parquet storage: one folder per episode with its files and metadata.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import check_dtype, file_hash, inside, natural, need, read_json, reading
from flywheel.datasets.importers.images import decode_pictures
from flywheel.datasets.importers.spaces import Leaf


class ArrowEpisodes:
    """The episode folders of a data set; the last one that was asked for is kept in memory."""

    def __init__(self, folder: Path, form: str) -> None:
        self._form = form
        found = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit() and path.is_dir()]
        self._folders = [inside(folder, path) for path in sorted(found, key=lambda path: natural(path.name))]
        self._table: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self._folders)

    def name(self, index: int) -> str:
        """The folder's name."""
        return self._folders[index].name

    def identity(self, index: int) -> tuple[str, int]:
        """The hash of the episode's files."""
        return json_hash([file_hash(path) for path in self._files(index)]), 0

    def attributes(self, index: int) -> dict[str, Any]:
        """Its metadata.json."""
        path = self._folders[index] / "metadata.json"
        return read_json(inside(self._folders[index], path)) if path.exists() else {}

    def column(self, index: int, name: str) -> Array:
        """The values of all steps but the padding, (T,)."""
        values = self._read(index, name)[:-1]
        return self._numbers(index, name, values)

    def leaf(self, index: int, leaf: Leaf) -> Array:
        """(T + 1, *shape) of an observation, (T, *shape) of an action, whose padding is dropped."""
        column, *path = leaf.path
        values = self._read(index, str(column))
        with reading(self._folders[index], f"'{leaf.name}'"):
            for piece in path:
                values = values.field(str(piece))
        values = values[:-1] if column == "actions" else values
        arrow = need("pyarrow")
        if arrow.types.is_binary(values.type):
            frames = [bytes(item or b"") for item in values.to_pylist()]
            return decode_pictures(self._folders[index], f"'{leaf.name}'", frames, leaf.shape)
        numbers = self._numbers(index, leaf.name, values)
        with reading(self._folders[index], f"'{leaf.name}'"):
            return numbers.reshape(len(values), *leaf.shape)

    def _numbers(self, index: int, name: str, values: Any) -> Array:
        """The numbers of an Arrow array or of one of fixed-size lists, flat; none may be missing."""
        arrow = need("pyarrow")
        with reading(self._folders[index], f"'{name}'"):
            while arrow.types.is_fixed_size_list(values.type) and not values.null_count:
                values = values.flatten()
            if values.null_count:
                raise FlywheelError(f"{self._folders[index]}: '{name}' lacks values.")
            numbers = np.asarray(values.to_numpy(zero_copy_only=False))
            check_dtype(self._folders[index], f"'{name}'", numbers.dtype)
            return numbers

    def _read(self, index: int, column: str) -> Any:
        if self._table[0] != index:
            self._table = (index, self._load(index))
        table = self._table[1]
        if column not in table.column_names:
            raise FlywheelError(f"{self._folders[index]} has no column '{column}'.")
        return table.column(column).combine_chunks()

    def _load(self, index: int) -> Any:
        arrow = need("pyarrow")
        tables = []
        for path in self._files(index):
            with reading(path, "its table"):
                table = self._table_of(path)
                table.validate(full=True)  # offsets out of bounds would crash the process later
                tables.append(table)
        with reading(self._folders[index], "its tables"):
            return arrow.concat_tables(tables)

    def _table_of(self, path: Path) -> Any:
        if self._form == "parquet":
            return need("pyarrow.parquet").read_table(path, partitioning=None)
        with need("pyarrow").OSFile(str(path)) as file:
            return need("pyarrow.ipc").open_file(file).read_all()

    def _files(self, index: int) -> list[Path]:
        folder = self._folders[index]
        found = [path for path in folder.iterdir() if path.suffix == f".{self._form}" and not path.name.startswith((".", "_"))]
        if not found:
            raise FlywheelError(f"{folder} holds no .{self._form} file.")
        return [inside(folder, path) for path in sorted(found, key=lambda path: natural(path.name))]
