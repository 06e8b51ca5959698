"""Pictures of some moments of an episode, as its labels have it, without decoding the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.codec import decode_array, encoded_pictures
from flywheel.datasets.index import IndexRow
from flywheel.datasets.pictures import decode_many, encode_many
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore


def read_pictures(store: EpisodeStore, row: IndexRow, cameras: Sequence[str], steps: Sequence[int]) -> dict[str, Array]:
    """By camera (N, H, W, C) uint8 at N observations of an episode, which are counted from 0; -1 is the final one.

    Raises `DamagedError` for a damaged record.
    """
    payload, places = store.payload(row.episode_id), _places(row, steps)
    found = {}
    for camera in cameras:
        if store.schema.storage(camera) == "raw":
            found[camera] = decode_array(payload, store.schema, camera)[places]
        else:
            encoded = encoded_pictures(payload, store.schema, camera)
            found[camera] = decode_many([encoded[place] for place in places], store.schema.observation.arrays[camera].shape)
    return found


def encoded_episode(store: EpisodeStore, row: IndexRow) -> dict[str, list[bytes]]:
    """Every picture of an episode by camera, as a PNG or JPEG file that a browser shows; raises `DamagedError` likewise."""
    payload, places = store.payload(row.episode_id), _places(row, range(row.length + 1))
    return {camera: _encoded(payload, store.schema, camera, places) for camera in store.schema.picture_keys}


def check_cameras(store: EpisodeStore, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises `FlywheelError` where a store lacks a camera, or has it in another shape (H, W, C)."""
    for camera, shape in shapes.items():
        if camera not in store.schema.picture_keys:
            raise FlywheelError(f"{store.path}: {registry.unknown('camera', camera, store.schema.picture_keys)}")
        if (own := store.schema.observation.arrays[camera].shape) != tuple(shape):
            raise FlywheelError(
                f"The pictures of '{camera}' are {own} in {store.path}, where {tuple(shape)} is needed; collect in that size."
            )


def _encoded(payload: bytes, schema: Schema, camera: str, places: Sequence[int]) -> list[bytes]:
    if schema.storage(camera) == "raw":
        return encode_many(decode_array(payload, schema, camera)[list(places)], "png")
    encoded = encoded_pictures(payload, schema, camera)
    return [encoded[place] for place in places]


def _places(row: IndexRow, steps: Sequence[int]) -> list[int]:
    """Where the moments lie in the record, which a trim leaves as it was."""
    first = row.trim.start if row.trim else 0
    return [first + (step if step >= 0 else row.length + 1 + step) for step in steps]
