"""Where everything of a step lies in the bytes that the recorder hands on: the same in its ring and in its spill.

A frame is a header (`ring.HEADER`), the block of everything small, and those large arrays (pictures, depth, tactile) that are
new in this step. The block holds for every large array whether it is, so that a camera's frame is there once however many
steps show it. The last frame of an episode ends in JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flywheel.core.episode import EpisodeMetadata
from flywheel.core.lineage import json_hash
from flywheel.core.specs import ArraySpec
from flywheel.datasets.recording.ring import ALIGNMENT, HEADER
from flywheel.datasets.schema import Schema

BEGIN, STEP, FINISH, BREAK = 1, 2, 3, 4
"""Kinds of frames: JSON with the metadata; a step; a final observation and JSON; JSON alone, where there is no final one."""
ACTION, REWARD, FRESH = "action", "reward", "fresh"
OBSERVATION = "observation/"
"""What the block's names of the observation's arrays begin with."""
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
        small = {OBSERVATION + key: spec for key, spec in arrays.items() if key not in large}
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
        return self.block[OBSERVATION + key]


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
