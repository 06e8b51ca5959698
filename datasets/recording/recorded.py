"""An episode as a recorder's frames hold it: a slow camera's pictures are there once, and are not repeated to be stored.

A loop of 1 kHz with cameras of 30 Hz would otherwise need thirty times the memory when it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import Array, ObservationSpec
from flywheel.datasets import example
from flywheel.datasets.codec import OBSERVATION as STORED
from flywheel.datasets.codec import encode_array, episode_features
from flywheel.datasets.recording.ring import HEADER
from flywheel.datasets.recording.step_layout import ACTION, BEGIN, BREAK, FINISH, FRESH, OBSERVATION, REWARD, Place, StepLayout
from flywheel.datasets.tfrecord import DamagedError, Piece

_LAST = {"metadata": {"invalid": True}}
"""What an episode ends with whose last frame is missing."""


class Recording:
    """The frames of one episode, taken in one by one; raises `DamagedError` for frames that are none of this layout."""

    def __init__(self, layout: StepLayout, frames: Iterable[bytes]) -> None:
        self._layout = layout
        self._blocks: list[bytes] = []
        self._values: dict[str, list[Array]] = {key: [] for key in layout.large}
        self._shown: dict[str, list[int]] = {key: [] for key in layout.large}
        self._end: dict[str, Any] = _LAST
        try:
            iterator = iter(frames)
            metadata = self._begin(next(iterator))
            for frame in iterator:
                self._take(frame)
            self.metadata = EpisodeMetadata.from_json(metadata | self._end["metadata"])
            self._check()
        except (ValueError, KeyError, TypeError, StopIteration, IndexError, RecursionError) as error:
            raise DamagedError(f"It holds no episode that this version records ({error!r}).") from None

    @property
    def transitions(self) -> int:
        """Of an episode that was cut off the last step's observation is the final one: nobody saw what came of its action."""
        return max(0, len(self._blocks) - 1)

    def episode(self, start: int = 0, stop: int | None = None, *, with_pictures: bool = True) -> Episode:
        """The transitions [start, stop), by default all, as an episode; the last part alone is terminal and a success."""
        stop = self.transitions if stop is None else stop
        is_end = stop == self.transitions
        rows = slice(start, stop + 1)
        blocks = np.frombuffer(b"".join(self._blocks[rows]), np.uint8).reshape(-1, self._layout.size)
        columns = {name: _column(blocks, place) for name, place in self._layout.block.items()}
        action, reward = columns[ACTION], columns[REWARD]
        if is_end and self._end.get("reward") is not None:
            reward[-2] = self._end["reward"]
        action[-1], reward[-1] = 0, 0
        index = np.arange(len(blocks))
        is_terminal = is_end and bool(self._end.get("terminal", False))
        return Episode(
            observation={key: self._observation(key, columns, rows) for key in self._wanted(with_pictures).arrays},
            action=action,
            reward=reward,
            discount=np.where(is_terminal & (index >= len(index) - 2), 0.0, 1.0).astype(np.float32),
            is_first=index == 0,
            is_last=index == len(index) - 1,
            is_terminal=(index == len(index) - 1) & is_terminal,
            metadata=self._metadata(start, is_end),
        )

    def encode(self, start: int = 0, stop: int | None = None) -> tuple[Episode, list[Piece]]:
        """The same as the record that is stored, and the episode without its pictures; raises `SpecError`."""
        schema, observation = self._layout.schema, self._wanted(with_pictures=False)
        episode = self.episode(start, stop, with_pictures=False).validate(observation, schema.action)
        features = episode_features(episode, replace(schema, observation=observation))
        for key in schema.picture_keys:
            if key in self._layout.large:
                shown = np.array(self._shown[key][start : start + len(episode)])
                first = shown[0]
                encoded = encode_array(np.stack(self._values[key][first : shown[-1] + 1]), schema.storage(key))
                features[STORED + key] = [encoded[number - first] for number in shown]
        return episode, example.encode_pieces(features)

    def _wanted(self, with_pictures: bool) -> ObservationSpec:
        schema = self._layout.schema
        if with_pictures:
            return schema.observation
        left_out = set(schema.picture_keys) & self._layout.large.keys()
        return ObservationSpec({key: spec for key, spec in schema.observation.arrays.items() if key not in left_out})

    def _metadata(self, start: int, is_end: bool) -> EpisodeMetadata:
        metadata = self.metadata
        if start:
            metadata = replace(metadata, episode_id=f"{metadata.episode_id}-{start}")
        return metadata if is_end else replace(metadata, success=False)

    def _begin(self, frame: bytes) -> dict[str, Any]:
        begin = json.loads(frame[HEADER.size :])
        if frame[4] != BEGIN or begin["layout"] != self._layout.fingerprint:
            raise ValueError("another layout")
        return dict(begin["metadata"])

    def _take(self, frame: bytes) -> None:
        if frame[4] == BREAK:
            self._end = json.loads(frame[HEADER.size :])
            return
        layout, fresh = self._layout, self._layout.block[FRESH].offset
        self._blocks.append(frame[: layout.size])
        end = layout.size
        for number, (key, place) in enumerate(layout.large.items()):
            if frame[fresh + number]:
                value = np.frombuffer(frame, place.spec.dtype, place.spec.size, end)
                self._values[key].append(value.reshape(place.spec.shape))
                end += place.padded
            self._shown[key].append(len(self._values[key]) - 1)
        if frame[4] == FINISH:
            self._end = json.loads(frame[end:])

    def _check(self) -> None:
        if any(len(block) != self._layout.size for block in self._blocks[-1:]):
            raise ValueError("a step that is cut off")
        if any(min(shown, default=0) < 0 for shown in self._shown.values()):
            raise ValueError("a first step without a sensor")

    def _observation(self, key: str, columns: dict[str, Array], rows: slice) -> Array:
        if key not in self._layout.large:
            return columns[OBSERVATION + key]
        return np.stack([self._values[key][number] for number in self._shown[key][rows]])


def _column(blocks: Array, place: Place) -> Array:
    spec = place.spec
    part = np.ascontiguousarray(blocks[:, place.offset : place.offset + place.bytes])
    return part.view(spec.dtype).reshape(len(blocks), *spec.shape)
