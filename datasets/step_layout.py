"""Where everything of a step lies in the bytes that the recorder hands on: the same in its ring and in its spill.

A frame is a header (`ring.HEADER`), the block of everything small, and those large arrays (pictures, depth, tactile) that are
new in this step. The block holds for every large array whether it is, so that a camera's frame is there once however many
steps show it. The last frame of an episode ends in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.lineage import json_hash
from flywheel.core.specs import Array, ArraySpec
from flywheel.datasets.ring import ALIGNMENT, HEADER
from flywheel.datasets.schema import Schema
from flywheel.datasets.tfrecord import DamagedError

BEGIN, STEP, FINISH, BREAK = 1, 2, 3, 4
"""Kinds of frames: JSON with the metadata; a step; a final observation and JSON; JSON alone, where there is no final one."""
ACTION, REWARD, FRESH = "action", "reward", "fresh"
_OBSERVATION = "observation/"
_LARGE = 1024
"""Bytes from which on an array is copied only in the steps in which it is new."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies in the block, or how much room a large one takes behind it."""

    offset: int
    spec: ArraySpec

    @property
    def bytes(self) -> int:
        """Without padding."""
        return self.spec.size * np.dtype(self.spec.dtype).itemsize

    @property
    def padded(self) -> int:
        """With padding."""
        return padded(self.bytes)


class StepLayout:
    """The layout that a schema gives; the same schema always gives the same one."""

    def __init__(self, schema: Schema) -> None:
        arrays = schema.observation.arrays
        large = sorted(key for key, spec in arrays.items() if Place(0, spec).bytes >= _LARGE)
        small = {_OBSERVATION + key: spec for key, spec in arrays.items() if key not in large}
        small |= {ACTION: schema.action.array, REWARD: ArraySpec(()), FRESH: ArraySpec((len(large),), "bool")}
        self.schema = schema
        self.large = {key: Place(0, arrays[key]) for key in large}
        self.block: dict[str, Place] = {}
        offset = HEADER.size
        # The widest first: everything is aligned, and the numbers of one kind lie side by side, to be checked at once.
        for name, spec in sorted(small.items(), key=lambda item: (-np.dtype(item[1].dtype).itemsize, item[1].dtype, item[0])):
            self.block[name] = Place(offset, spec)
            offset += self.block[name].bytes
        self.size = padded(offset)
        """Bytes of the header and the block."""

    @property
    def largest(self) -> int:
        """Bytes of a step in which every array is new."""
        return self.size + sum(place.padded for place in self.large.values())

    @cached_property
    def fingerprint(self) -> str:
        """What tells this layout from that of another schema or version."""
        places = {name: [place.offset, place.spec.dtype, list(place.spec.shape)] for name, place in self.block.items()}
        return json_hash([places, {key: [place.spec.dtype, list(place.spec.shape)] for key, place in self.large.items()}])

    def small(self, key: str) -> Place:
        """Where a small array of the observation lies."""
        return self.block[_OBSERVATION + key]

    def episode(self, frames: Iterable[bytes]) -> Episode | None:
        """The episode that its frames hold, from its first one on; None if they hold no whole transition.

        Without its last frame, or with one that says so, it is cut off: the last step's observation is the final one then, and
        its action, whose outcome nobody saw, is left out. Cut off without its last frame, it is invalid, too.
        Raises `DamagedError` for frames that are none of this layout.
        """
        try:
            return _assemble(self, iter(frames))
        except (ValueError, KeyError, TypeError, StopIteration, IndexError, RecursionError) as error:
            raise DamagedError(f"It holds no episode that this version records ({error!r}).") from None


def padded(size: int) -> int:
    """The next size at which a frame may end."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def json_bytes(value: Any) -> bytes:
    """JSON in a length at which a frame may end."""
    data = json.dumps(value).encode()
    return data.ljust(padded(len(data)))


def begin_json(layout: StepLayout, metadata: EpisodeMetadata, episode: int) -> bytes:
    """The content of a frame that begins a recorder's episode of that number."""
    return json_bytes({"layout": layout.fingerprint, "episode": episode, "metadata": metadata.to_json()})


def read_begin(frame: bytes, layout: StepLayout) -> EpisodeMetadata:
    """The metadata in the frame that begins an episode; raises `ValueError` if it was made with another layout."""
    if frame[4] != BEGIN:
        raise ValueError("no beginning")
    begin = json.loads(frame[HEADER.size :])
    if begin["layout"] != layout.fingerprint:
        raise ValueError("another layout")
    return EpisodeMetadata.from_json(begin["metadata"])


def _assemble(layout: StepLayout, frames: Iterable[bytes]) -> Episode | None:
    iterator = iter(frames)
    steps = _Steps(layout)
    metadata = read_begin(next(iterator), layout).to_json()
    end: dict[str, Any] | None = None
    for frame in iterator:
        kind = frame[4]
        if kind == BREAK:
            end = json.loads(frame[HEADER.size :])
        else:
            rest = steps.add(frame)
            end = json.loads(frame[rest:]) if kind == FINISH else None
    metadata |= {"invalid": True} if end is None else end["metadata"]
    if steps.count < 2:
        return None
    return steps.episode(EpisodeMetadata.from_json(metadata), end or {})


class _Steps:
    """The steps read so far: the blocks, and of each large array the different values and which step shows which."""

    def __init__(self, layout: StepLayout) -> None:
        self._layout = layout
        self._blocks: list[bytes] = []
        self._values: dict[str, list[Array]] = {key: [] for key in layout.large}
        self._shown: dict[str, list[int]] = {key: [] for key in layout.large}

    @property
    def count(self) -> int:
        return len(self._blocks)

    def add(self, frame: bytes) -> int:
        """Take a step in; returns where its arrays end."""
        layout, fresh = self._layout, self._layout.block[FRESH].offset
        self._blocks.append(frame[: layout.size])
        end = layout.size
        for number, (key, place) in enumerate(layout.large.items()):
            if frame[fresh + number]:
                value = np.frombuffer(frame, place.spec.dtype, place.spec.size, end)
                self._values[key].append(value.reshape(place.spec.shape))
                end += place.padded
            self._shown[key].append(len(self._values[key]) - 1)
        return end

    def episode(self, metadata: EpisodeMetadata, end: dict[str, Any]) -> Episode:
        size = self._layout.size
        blocks = np.frombuffer(b"".join(self._blocks), np.uint8).reshape(self.count, size)
        columns = {name: _column(blocks, place) for name, place in self._layout.block.items()}
        is_terminal = bool(end.get("terminal", False))
        action, reward = columns[ACTION], columns[REWARD]
        action[-1], reward[-1] = 0, 0
        if end.get("reward") is not None:
            reward[-2] = end["reward"]
        discount = np.ones(self.count, np.float32)
        discount[-2:] = 0.0 if is_terminal else 1.0
        index = np.arange(self.count)
        return Episode(
            observation={key: self._observation(key, columns) for key in self._layout.schema.observation.arrays},
            action=action,
            reward=reward,
            discount=discount,
            is_first=index == 0,
            is_last=index == self.count - 1,
            is_terminal=(index == self.count - 1) & is_terminal,
            metadata=metadata,
        )

    def _observation(self, key: str, columns: dict[str, Array]) -> Array:
        if key not in self._layout.large:
            return columns[_OBSERVATION + key]
        return np.stack(_repeated(self._values[key], self._shown[key]))


def _repeated(values: Sequence[Array], shown: Sequence[int]) -> list[Array]:
    if min(shown) < 0:
        raise ValueError("the first step lacks a sensor")
    return [values[number] for number in shown]


def _column(blocks: Array, place: Place) -> Array:
    spec = place.spec
    part = np.ascontiguousarray(blocks[:, place.offset : place.offset + place.bytes])
    return part.view(spec.dtype).reshape(len(blocks), *spec.shape)
