"""A small array cache for tests, and as a program: build one of 60 episodes until it is killed. Needs no torch."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from flywheel.core.specs import ArraySpec
from flywheel.datasets.cache import array_build
from flywheel.datasets.cache.array_build import Loaded, Wanted
from flywheel.datasets.cache.array_cache import ArrayCache
from flywheel.datasets.cache.column_cache import CachedEpisode

CAMERA = ArraySpec((12, 10, 3), "uint8")
STAMP = ArraySpec((), "int64")
ROW = 12 * 10 * 3


def picture(row: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 255, (12, 10, channels), np.uint8)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, "PNG")
    return file.getvalue()


def jpeg(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, "JPEG", quality=95)
    return file.getvalue()


def episodes(*steps: int) -> list[CachedEpisode]:
    starts = np.cumsum([0, *steps])
    return [CachedEpisode(f"e{n}", n, int(starts[n]), count, terminal=False) for n, count in enumerate(steps)]


def load(wanted: Wanted) -> Loaded:
    rows = range(wanted.episode.start, wanted.episode.start + wanted.episode.steps)
    values: dict[str, np.ndarray | list[bytes]] = {"stamp": np.array(rows, np.int64)} if "stamp" in wanted.raw else {}
    if "camera" in wanted.raw:
        values["camera"] = np.stack([picture(row) for row in rows])
    if "camera" in wanted.encoded:
        values["camera"] = [png(picture(row)) for row in rows]
    return values


def open_caches(folder: Path, name: str = "cache") -> dict[str, ArrayCache]:
    specs = {"camera": CAMERA, "stamp": STAMP}
    return {key: ArrayCache(folder / key, spec, name) for key, spec in specs.items()}


def main(folder: Path, budget: int) -> None:
    array_build._COMMIT_BYTES = 1
    caches = open_caches(folder)
    wanted = list(array_build.plan(caches, episodes(*[5] * 60), ["camera"], budget))
    array_build.fill(caches, wanted, load, lambda done, total: print(done, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
