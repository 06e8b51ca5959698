"""Very large stores through Apache Beam, the engine that TFDS itself uses: statistics of all arrays, other encodings.

A runner spreads episodes over processes or machines; each worker opens the store for itself, by path or URL, and reads the
episodes that it is handed. ``--runner=DirectRunner --direct_running_mode=multi_processing`` uses the processors of this machine,
Flink, Spark and Dataflow those of many.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.core.specs import Array
from flywheel.datasets.index import IndexRow
from flywheel.datasets.layout import Layout, Shards
from flywheel.datasets.places import Place
from flywheel.datasets.schema import Pictures, Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.sync import metadata
from flywheel.datasets.tfrecord import DamagedError, DamageWarning

_TOGETHER = 64
"""Episodes that a worker is handed at a time."""
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of n vectors: enough to merge with what is known of others (Chan, Golub and LeVeque 1983)."""

    count: int
    mean: Doubles
    """(D,)"""
    squares: Doubles
    """(D,) the sum of squared differences from the mean."""
    low: Doubles
    high: Doubles

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Of the rows of an array, (n, ...); a picture counts as pixels of so many channels."""
        width = values.shape[-1] if values.ndim > 1 else 1
        rows = values.reshape(-1, width).astype(np.float64)
        mean = rows.mean(axis=0)
        return cls(len(rows), mean, ((rows - mean) ** 2).sum(axis=0), rows.min(axis=0), rows.max(axis=0))

    def merged(self, other: Moments) -> Moments:
        """Of both together."""
        count, apart = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def std(self) -> Doubles:
        """(D,) the standard deviation."""
        return np.asarray(np.sqrt(self.squares / self.count))


def statistics(store: Path | str, where: str | None = None, options: Sequence[str] = ()) -> dict[str, Moments]:
    """The moments of action, reward and every observation over the episodes of a store, last observations included.

    Args:
        store: A store's folder or URL.
        where: Of which episodes alone, as `EpisodeStore.query` has it.
        options: Beam's own, for example ``--runner=FlinkRunner``.

    A damaged record is left out. Raises `FlywheelError` if the store holds no such episode or apache-beam is not installed.
    """
    beam = _beam()
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "moments"
        with _pipeline(options) as pipeline:
            chosen = pipeline | beam.Create(_batches(_chosen(store, where), store)) | beam.Reshuffle()
            known = chosen | beam.Map(_moments, str(store)) | beam.CombineGlobally(_merged).without_defaults()
            known | beam.Map(_to_json) | beam.io.WriteToText(str(result), shard_name_template="")
        return {name: Moments(**_arrays(about)) for name, about in json.loads(result.read_text()).items()}


def _moments(episode_ids: Sequence[str], store: str) -> dict[str, Moments]:
    return _merged(_of_episode(episode) for episode in _read(store, episode_ids))


def _of_episode(episode: Episode) -> dict[str, Moments]:
    arrays = {"action": episode.action[:-1], "reward": episode.reward[:-1]}
    arrays |= {f"observation/{key}": values for key, values in episode.observation.items()}
    return {name: Moments.of(values) for name, values in arrays.items()}


def _merged(known: Iterable[Mapping[str, Moments]]) -> dict[str, Moments]:
    merged: dict[str, Moments] = {}
    for moments in known:
        for name, own in moments.items():
            merged[name] = merged[name].merged(own) if name in merged else own
    return merged


def _read(store: str, episode_ids: Sequence[str]) -> Iterator[Episode]:
    """Episodes as they are labelled, without those whose record is damaged."""
    source = _open(store)
    for episode_id in episode_ids:
        try:
            yield source.read(episode_id)
        except DamagedError as error:
            warnings.warn(f"Episode {episode_id} is left out: {error}", DamageWarning, stacklevel=2)


@lru_cache(maxsize=1)
def _open(store: str) -> EpisodeStore:
    """Once per worker process."""
    return EpisodeStore.open(store)


def _chosen(store: Path | str, where: str | None) -> list[IndexRow]:
    source = EpisodeStore.open(store)
    return source.rows() if where is None else source.query(where)


def _batches(rows: Sequence[IndexRow], store: Path | str) -> list[list[str]]:
    """The rows' ids in their order; raises `FlywheelError` if there are none."""
    ids = [row.episode_id for row in rows]
    if not ids:
        raise FlywheelError(f"The store {store} holds no such episodes; 'flywheel store ls' lists them.")
    return [ids[start : start + _TOGETHER] for start in range(0, len(ids), _TOGETHER)]


def convert(store: Path | str, url: str, pictures: Pictures, options: Sequence[str] = ()) -> Shards:
    """Copy a store to an empty place with its pictures in another encoding; labels go with it. Started again, it goes on.

    Raises `FlywheelError` if the place holds a store already, for a damaged record, and if apache-beam is not installed.
    """
    beam, place, source = _beam(), Place.of(url), EpisodeStore.open(store)
    with place.telling():
        if place.size("dataset_info.json") is not None:
            raise FlywheelError(f"{url} holds a data set already; give a new folder.")
    schema = replace(source.schema, pictures=pictures)
    numbered = list(enumerate(_batches(source.rows(deleted=True), store)))  # a deleted episode can be restored there, too
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "shards"
        with _pipeline(options) as pipeline:
            made = pipeline | beam.Create(numbered) | beam.Reshuffle() | beam.Map(_convert, str(store), url, schema)
            made | beam.Map(json.dumps) | beam.io.WriteToText(str(result), shard_name_template="")
        done = sorted(json.loads(line) for line in result.read_text().splitlines())
    shards = Shards(source.name, tuple(records for _, records, _ in done), sum(size for _, _, size in done))
    with place.telling():
        _publish(source, place, schema, shards)
    return shards


def _convert(batch: tuple[int, list[str]], store: str, url: str, schema: Schema) -> tuple[int, int, int]:
    """Make one shard of some episodes: its number, its records and its bytes."""
    number, episode_ids = batch
    source, place = _open(store), Place.of(url)
    mark, identity = f".converted/{number}.json", json_hash([episode_ids, schema.to_json()])
    with place.telling():
        if place.size(mark) is not None and json.loads(place.read(mark))["identity"] == identity:
            return number, len(episode_ids), int(place.size(Shards(source.name).file_name(number)) or 0)
        with tempfile.TemporaryDirectory() as scratch:
            part = EpisodeStore.create(Path(scratch), source.name, schema)
            # One shard, however large: a batch that was sealed early would leave episodes behind.
            with part.writer(seal_episodes=len(episode_ids), seal_bytes=sys.maxsize, seal_seconds=math.inf) as writer:
                for episode_id in episode_ids:
                    writer.append(source.raw(episode_id))
            shard = part.path / Layout(part.path).read_shards().file_name(0)
            place.upload(shard, Shards(source.name).file_name(number))
            place.write(mark, json.dumps({"identity": identity}).encode())
            return number, len(episode_ids), shard.stat().st_size


def _publish(source: EpisodeStore, place: Place, schema: Schema, shards: Shards) -> None:
    """Write what makes the shards a store, the list of them last."""
    with tempfile.TemporaryDirectory() as scratch:
        layout, labels = Layout(Path(scratch)), Layout(source.path).labels
        layout.create(source.name, schema)
        layout.write_shards(shards)
        if labels.exists():
            layout.labels.write_bytes(labels.read_bytes())
        for name, data in metadata(layout):
            place.write(name, data)
        place.write(layout.info.name, layout.info.read_bytes())


def _to_json(known: Mapping[str, Moments]) -> str:
    return json.dumps({name: {key: _plain(value) for key, value in vars(about).items()} for name, about in known.items()})


def _plain(value: int | Doubles) -> int | list[float]:
    return value if isinstance(value, int) else value.tolist()


def _arrays(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, int) else np.array(value) for key, value in about.items()}


def _pipeline(options: Sequence[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    return _beam().Pipeline(options=PipelineOptions(list(options)))


def _beam() -> Any:
    try:
        import apache_beam
    except ImportError:
        raise FlywheelError("This needs Apache Beam; install flywheel-robotics[beam].") from None
    return apache_beam
