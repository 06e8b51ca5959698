"""A folder given by URL, on whatever fsspec reaches: a local disk, an object store, a host over SSH."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

_OBJECT_STORES = {"s3", "gs", "gcs", "az", "abfs"}
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")


def url_of(path: Path | str) -> str | None:
    """The URL that a path is, None for a path of this machine; `Path` shortens ``s3://bucket`` by a slash, which is undone."""
    found = _URL.fullmatch(str(path))
    if found is None:
        return None
    return f"{found[1]}://{'/' if found[1] == 'file' else ''}{found[2]}"


@dataclass(frozen=True)
class Place:
    """A folder somewhere; make one with `of`. Names are relative to it, with '/' between folders."""

    url: str
    fs: Any
    """fsspec's file system."""
    root: str

    @classmethod
    def of(cls, url: str) -> Place:
        """The folder of a URL or a local path; raises `FlywheelError` if nothing that is installed can reach it."""
        try:
            import fsspec
        except ImportError:
            raise FlywheelError(f"{url} needs fsspec; install flywheel-robotics[remote].") from None
        try:
            fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:  # a protocol whose package is missing, or that there is not
            raise FlywheelError(f"{url} cannot be reached: {str(error).splitlines()[0]}") from None
        return cls(url.rstrip("/"), fs, root.rstrip("/"))

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """A file's bytes, or those from `start` to `stop`, where a negative `start` counts from the end.

        Raises `FileNotFoundError` if it is not there.
        """
        data: bytes = self.fs.cat_file(self._path(name), start=start, end=stop)
        return data

    def size(self, name: str) -> int | None:
        """A file's size in bytes, None if it is not there."""
        try:
            return int(self.fs.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def sizes(self) -> dict[str, int]:
        """The size of every file in it, by name; none if it is not there."""
        self.fs.invalidate_cache()  # of what others may have changed
        found = self.fs.find(self.root, detail=True)
        return {path[len(self.root) + 1 :]: int(about["size"]) for path, about in sorted(found.items())}

    def is_folder(self, folder: Path) -> bool:
        """Whether it is this folder of this machine."""
        return "file" in _protocols(self.fs) and Path(self.root).resolve() == folder.resolve()

    def inside(self, folder: str) -> Place:
        """A folder of it; itself where the name is empty."""
        return replace(self, url=f"{self.url}/{folder}", root=f"{self.root}/{folder}") if folder else self

    def download(self, name: str, path: Path) -> None:
        """Copy a file to this machine, whole or not at all."""
        write_atomically(path, self.read(name))

    def upload(self, path: Path, name: str) -> None:
        """Copy a file there, whole or not at all under its name."""
        self._make_folder(name)
        if _OBJECT_STORES & _protocols(self.fs):
            self.fs.put_file(str(path), self._path(name))
            return
        self.fs.put_file(str(path), self._path(f"{name}.part"))
        self.fs.mv(self._path(f"{name}.part"), self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Replace a small file: whole or not at all, as object stores do it by themselves."""
        if "file" in _protocols(self.fs):
            write_atomically(Path(self._path(name)), data)
            return
        self._make_folder(name)
        self.fs.pipe_file(self._path(name), data)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell as a `FlywheelError` whatever the place refuses: every backend has exceptions of its own."""
        try:
            yield
        except FlywheelError:
            raise
        except Exception as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FlywheelError(f"{self.url} cannot be reached ({why}); check the address, the access and the line.") from error

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _make_folder(self, name: str) -> None:
        if not _OBJECT_STORES & _protocols(self.fs):  # there are no folders there, and a bucket is not ours to make
            self.fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
