"""X5: stores made by somebody who means harm: nothing outside is read or written, nothing is imported, refusals are sentences."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flywheel.bench.durability.episodes import SCHEMA, make_episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.codec import encode_episode
from flywheel.datasets.sealed_json import PLAIN, TFDS, Ending, open_json, seal_json
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import frame, masked_crc
from flywheel.datasets.upkeep.compact import compact
from flywheel.datasets.upkeep.repair import repair
from flywheel.datasets.upkeep.verify import verify

SECRET = "666-666"
_MODULE = "flywheel_hostile_module"


def attack(folder: Path, count: int, seed: int = 0) -> int:
    """Make so many hostile stores, use each in every way, and compare what lies outside; returns how many were refused.

    Raises `AssertionError` for anything read, written or imported from outside, and lets through whatever is no `FlywheelError`.
    """
    warnings.simplefilter("ignore")
    rng, refused = random.Random(seed), 0
    base = _base(folder / "base")
    outside = _outside(folder / "outside")
    for number in range(count):
        path = folder / f"{number}" / "crash" / "1.0.0"
        shutil.copytree(base, path)
        attacks = rng.sample(ATTACKS, rng.choice((1, 1, 2)))
        for make in attacks:
            make(path, folder / "outside", rng)
        refused += _use(path, [make.__name__ for make in attacks])
        assert _content(folder / "outside") == outside, [make.__name__ for make in attacks]
        assert _MODULE not in sys.modules
        shutil.rmtree(folder / f"{number}")
    return refused


def _use(path: Path, names: list[str]) -> bool:
    refused = False
    for use in (_read, _write, _verify, _compact, repair, _read):
        try:
            use(path)
        except FlywheelError:
            refused = True
        except Exception as error:
            raise AssertionError(f"{names} got {error!r} out of {use.__name__}") from error
    return refused


def _read(path: Path) -> None:
    store = EpisodeStore.open(path)
    assert SECRET not in {row.episode_id for row in store.rows()}
    for episode in store.episodes():
        assert episode.metadata.episode_id != SECRET


def _write(path: Path) -> None:
    with EpisodeStore.open(path).writer() as writer:
        writer.append(make_episode("5-5"))


def _verify(path: Path) -> None:
    verify(EpisodeStore.open(path))


def _compact(path: Path) -> None:
    compact(EpisodeStore.open(path), grace_seconds=0)


def _base(root: Path) -> Path:
    store = EpisodeStore.create(root, "crash", SCHEMA)
    for number in range(3):
        with store.writer() as writer:
            writer.append(make_episode(f"0-{number}"))
    store.label(["0-1"], "success", True, by="test")
    return store.path


def _outside(folder: Path) -> dict[str, bytes]:
    """What must not be touched: a record that must not be read, a file, a module, a folder."""
    folder.mkdir()
    (folder / "crash-train.tfrecord-00000").write_bytes(
        bytes(frame(bytes(encode_episode(make_episode(SECRET), SCHEMA))))[:-1] + b"x"
    )
    (folder / "sound.tfrecord").write_bytes(bytes(frame(bytes(encode_episode(make_episode(SECRET), SCHEMA)))))
    (folder / "keys").write_bytes(b"ssh-ed25519 AAAA")
    (folder / f"{_MODULE}.py").write_text("raise SystemExit('imported')\n")
    (folder / "folder").mkdir()
    return _content(folder)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"/" for path in sorted(folder.rglob("*"))}


def _change(path: Path, ending: Ending, change: Callable[[dict[str, Any]], object]) -> None:
    if any(part.is_symlink() for part in (path, path.parent)) or not path.is_file():
        return  # another attack was here first
    try:
        value = open_json(path.read_bytes(), ending)
        change(value)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return
    path.write_bytes(seal_json(value, ending))


def climb_by_name(path: Path, outside: Path, rng: random.Random) -> None:
    """The data set's name becomes part of file names."""
    name = rng.choice([f"../../../{outside.name}/crash", str(outside / "crash"), "a/b", "..", "\x00", "crash\n"])
    _change(path / "dataset_info.json", TFDS, lambda value: value.update(name=name))


def climb_by_template(path: Path, outside: Path, rng: random.Random) -> None:
    """So does the template."""
    template = rng.choice(
        [
            f"../../../{outside.name}/{{DATASET}}-{{SPLIT}}.{{FILEFORMAT}}-{{SHARD_INDEX}}",
            f"{outside}/sound.tfrecord",
            "g0001/../../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
            "g99999999999999999999/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
        ]
    )
    _change(path / "dataset_info.json", TFDS, lambda value: value["splits"][0].update(filepathTemplate=template))


def lie_about_lengths(path: Path, outside: Path, rng: random.Random) -> None:
    """More records than there are, fewer, none, or no numbers."""
    lengths = rng.choice([["1" * 5_000], ["-1", "1", "1"], ["0"] * 3, [10**18] * 3, ["1"] * 200_000, "111", None, [["1"]]])
    _change(path / "dataset_info.json", TFDS, lambda value: value["splits"][0].update(shardLengths=lengths))


def link_a_file(path: Path, outside: Path, rng: random.Random) -> None:
    """A symbolic link where a file is read, appended to, cut or replaced."""
    names = ["crash-train.tfrecord-00001", ".journal/1-1-1.tfrecord", "features.json", ".dataset_info.json.tmp"]
    names += [".lock", ".append.lock", ".sync.lock", ".compact.lock"]
    names += [".meta/labels.jsonl", ".meta/index.sqlite", ".meta/schema.json", ".meta/compaction.json"]
    name = path / rng.choice(names)
    name.unlink(missing_ok=True)
    name.symlink_to(outside / rng.choice(["sound.tfrecord", "crash-train.tfrecord-00000", "keys", "missing"]))


def link_a_folder(path: Path, outside: Path, rng: random.Random) -> None:
    """A symbolic link where a folder is."""
    name = path / rng.choice([".journal", ".meta", "g0001", ".meta/damaged", ".meta/retired", ".columns", ".meta/snapshots"])
    if name.is_dir():
        shutil.rmtree(name)
    name.symlink_to(outside)


def hostile_schema(path: Path, outside: Path, rng: random.Random) -> None:
    """Types that hold objects, shapes beyond memory, names that climb."""
    spec = {"shape": [2], "dtype": "O", "unit": ""}
    spec.update(
        rng.choice(
            [{}, {"dtype": "V8"}, {"dtype": f"{_MODULE}.x"}, {"dtype": "float32", "shape": [10**12, 10**12]}, {"shape": "x"}]
        )
    )

    def change(value: dict[str, Any]) -> None:
        arrays = value["observation"]
        arrays[rng.choice(["state", "../state", ""])] = spec
        if rng.random() < 0.3:
            value["metadata"] = rng.choice([{"episode_id": "pickle"}, {"../x": "str"}, [], None, {"episode_id": 1}])

    for name in ("schema.json", "schema.copy.json"):
        _change(path / ".meta" / name, PLAIN, change)


def import_by_features(path: Path, outside: Path, rng: random.Random) -> None:
    """TFDS imports whatever module features.json names."""
    target = path / "features.json"
    if not target.is_symlink():  # what another attack has linked is not for us to write
        target.write_text(json.dumps({"type": f"{_MODULE}.Feature", "pythonClassName": f"{_MODULE}.Feature"}))


def lie_in_records(path: Path, outside: Path, rng: random.Random) -> None:
    """A sound checksum over a length beyond the file's end, or over bytes that are no episode."""
    length = struct.pack("<Q", rng.choice([2**63, 2**40, 2**64 - 1]))
    huge = length + struct.pack("<I", masked_crc(length)) + b"x" * rng.randrange(100)
    payload = rng.randbytes(rng.randrange(300)) if rng.random() < 0.5 else b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    target = path / rng.choice(["crash-train.tfrecord-00001", ".journal/1-1-1.tfrecord"])
    if not any(part.is_symlink() for part in (target, target.parent)):  # what another attack has linked is not for us to write
        target.write_bytes(rng.choice([huge, bytes(frame(payload))]))


def hostile_plan(path: Path, outside: Path, rng: random.Random) -> None:
    """A plan that a compaction would go on with."""
    try:
        source = open_json((path / "dataset_info.json").read_bytes(), TFDS)
    except (OSError, ValueError, RecursionError):
        source = {}
    groups = rng.choice([[[[0, 1, 2, 99], True]], [[[-1], True]], [], [[["x"], True]], [[[0, 0], True]], 7])
    value = {"format": 1, "source": source, "groups": groups, "drop": [], "accepts_losses": False}
    target = path / ".meta" / "compaction.json"
    if target.parent.is_dir() and not target.is_symlink() and not target.parent.is_symlink():
        target.write_bytes(seal_json(value))


def garbage(path: Path, outside: Path, rng: random.Random) -> None:
    """A file of chance, of nesting, or of nothing."""
    names = [
        "dataset_info.json",
        "features.json",
        ".meta/schema.json",
        ".meta/index.sqlite",
        ".meta/labels.jsonl",
        ".append.lock",
    ]
    target = path / rng.choice(names)
    if target.is_symlink() or target.parent.is_symlink() or not target.parent.is_dir():
        return
    target.write_bytes(rng.choice([b"", rng.randbytes(500), b"[" * 100_000, b"{}", b"null", b'{"name": "crash", "splits": [7]}']))


ATTACKS: list[Callable[[Path, Path, random.Random], None]] = [
    climb_by_name,
    climb_by_template,
    lie_about_lengths,
    link_a_file,
    link_a_folder,
    hostile_schema,
    import_by_features,
    lie_in_records,
    hostile_plan,
    garbage,
]
