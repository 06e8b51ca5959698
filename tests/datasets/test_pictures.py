from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec
from flywheel.datasets import pictures, rlds
from flywheel.datasets.codec import decode_array, decode_episode, encode_episode, encode_pieces, encoded_pictures, summarize
from flywheel.datasets.schema import Pictures, Schema, is_picture
from flywheel.datasets.sealed_json import open_json, seal_json
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamagedError
from tests.datasets.test_schema import assert_equal

ACTION = ActionSpec((-1.0,), (1.0,))
STEPS = 12
KINDS: tuple[Pictures, ...] = ("png", "jpeg", "raw")


def schema(kind: Pictures, **cameras: tuple[int, ...]) -> Schema:
    arrays = {key: ArraySpec(shape, "uint8") for key, shape in (cameras or {"front": (20, 24, 3), "depth": (9, 7, 1)}).items()}
    return Schema(ObservationSpec({"state": ArraySpec((4,)), **arrays}), ACTION, pictures=kind)


def episode(of: Schema, steps: int = STEPS, name: str = "one") -> Episode:
    """Smooth pictures, as JPEG can hold; every third is like the one before."""
    observations = []
    for step in range(steps):
        values: dict[str, Array] = {"state": np.full(4, step, np.float32)}
        for key in of.picture_keys:
            shape = of.observation.arrays[key].shape
            rows, columns, channels = np.indices(shape)
            values[key] = ((rows + 2 * columns + 30 * channels + 8 * (step - step // 3)) % 200).astype(np.uint8)
        observations.append(values)
    metadata = EpisodeMetadata(episode_id=name)
    actions = [np.zeros(1, np.float32)] * (steps - 1)
    return Episode.from_transitions(observations, actions, [0.0] * (steps - 1), terminal=False, metadata=metadata)


def assert_alike(found: Array, expected: Array, kind: Pictures) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if kind == "jpeg":
        assert np.abs(found.astype(int) - expected).mean() < 12
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_come_back_from_a_store(tmp_path: Path, kind: Pictures) -> None:
    store = EpisodeStore.create(tmp_path, "seen", schema(kind))
    expected = episode(store.schema)
    with store.writer() as writer:
        writer.append(expected)
    found = EpisodeStore.open(tmp_path).read("one")
    for key in ("front", "depth"):
        assert_alike(found.observation[key], expected.observation[key], kind)
    assert_equal(replace(found, observation=expected.observation), expected)
    np.testing.assert_array_equal(found.observation["state"], expected.observation["state"])


@pytest.mark.parametrize("kind", KINDS)
def test_tfds_reads_the_pictures(tmp_path: Path, kind: Pictures) -> None:
    pytest.importorskip("tensorflow_datasets")
    of = schema(kind, front=(20, 24, 3), depth=(9, 7, 1), dot=(1, 1, 3))
    store = EpisodeStore.create(tmp_path, "seen", of)
    with store.writer() as writer:
        writer.append(episode(of))
    dataset = rlds.load(store.path).as_dataset(split="train")
    (mapped,) = rlds.transformations().map_nested_steps(dataset, lambda step: step["observation"]["front"])
    (found,) = dataset
    (steps,) = found["steps"].batch(100)
    ours = store.read("one")
    for key in of.picture_keys:
        theirs = steps["observation"][key].numpy()
        assert key != "front" or (next(iter(mapped["steps"].batch(100))).numpy() == theirs).all()
        assert_alike(theirs, episode(of).observation[key], kind)
        # TensorFlow decodes JPEG with a faster transform, so that values differ a little.
        assert np.abs(theirs.astype(int) - ours.observation[key]).max() <= (10 if kind == "jpeg" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_tfds_writes_the_same_features(kind: Pictures) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    ours = schema(kind).features_json()
    assert tfds.features.FeatureConnector.from_json(ours).to_json() == ours


def test_only_what_is_asked_for_is_decoded() -> None:
    of = schema("png")
    payload = encode_episode(episode(of), of)
    first = encoded_pictures(payload, of, "front")[0]
    damaged = payload.replace(first, bytes(len(first)))
    assert decode_episode(damaged, of, ("state",)).observation.keys() == {"state"}
    assert summarize(damaged) == summarize(payload)
    np.testing.assert_array_equal(decode_array(damaged, of, "depth"), episode(of).observation["depth"])
    with pytest.raises(DamagedError, match="picture"):
        decode_array(damaged, of, "front")
    with pytest.raises(DamagedError, match="picture"):
        decode_episode(damaged, of)


@pytest.mark.parametrize(("kind", "format_name"), [("png", "PNG"), ("jpeg", "JPEG")])
def test_stored_pictures_are_files_of_their_format(kind: Pictures, format_name: str) -> None:
    of = schema(kind)
    encoded = encoded_pictures(encode_episode(episode(of), of), of, "front")
    assert len(encoded) == STEPS
    with Image.open(io.BytesIO(encoded[0])) as image:
        image.load()
        assert (image.format, image.size, image.mode) == (format_name, (24, 20), "RGB")
    if kind == "jpeg":
        np.testing.assert_array_equal(pictures.decode_many(encoded, (20, 24, 3))[0], np.asarray(image))


def test_a_picture_like_the_one_before_is_encoded_once() -> None:
    camera = np.zeros((6, 8, 8, 3), np.uint8)
    camera[3:] = 7
    encoded = pictures.encode_many(camera, "png")
    assert [item is encoded[0] for item in encoded] == [True] * 3 + [False] * 3
    assert encoded[4] is encoded[3]


def test_encoding_is_deterministic_and_in_pieces_the_same() -> None:
    of = schema("raw", front=(90, 90, 3))
    pieces = encode_pieces(episode(of), of)
    assert b"".join(pieces) == encode_episode(episode(of), of)
    assert max(map(len, pieces)) == 90 * 90 * 3  # a picture is a piece of its own
    for kind in ("png", "jpeg"):
        of = schema(kind, front=(30, 40, 3))
        assert encode_episode(episode(of), of) == encode_episode(episode(of), of)


@given(
    pictures=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])).flatmap(
        lambda shape: arrays.arrays(np.uint8, shape)
    )
)
@settings(max_examples=60, deadline=None)
def test_png_is_exact(pictures: Array) -> None:
    from flywheel.datasets.pictures import decode_many, encode_many

    np.testing.assert_array_equal(decode_many(encode_many(pictures, "png"), pictures.shape[1:]), pictures)


_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")


@st.composite
def _any_episode(draw: st.DrawFn) -> tuple[Schema, Episode]:
    steps = draw(st.integers(2, 5))
    kind = draw(st.sampled_from(["png", "raw"]))
    shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple) | st.sampled_from([(1, 1, 3), (2, 3, 4), (5, 1, 1)])
    specs = {f"key{number}": ArraySpec(draw(shapes), draw(st.sampled_from(_DTYPES))) for number in range(draw(st.integers(1, 4)))}
    of = Schema(ObservationSpec(specs), ACTION, pictures=kind)
    finite = {"allow_nan": False, "allow_infinity": False}
    observation = {
        key: draw(arrays.arrays(spec.dtype, (steps, *spec.shape), elements=finite if "float" in spec.dtype else None))
        for key, spec in specs.items()
    }
    flags = np.arange(steps)
    zeros = np.zeros(steps, np.float32)
    return of, Episode(
        observation=observation,
        action=draw(arrays.arrays(np.float32, (steps, 1), elements=finite)),
        reward=zeros,
        discount=zeros + 1,
        is_first=flags == 0,
        is_last=flags == steps - 1,
        is_terminal=np.zeros(steps, np.bool_),
        metadata=EpisodeMetadata(episode_id="any", task=draw(st.text(max_size=5))),
    )


@given(_any_episode())
@settings(max_examples=80, deadline=None)
def test_any_shape_and_dtype_comes_back(case: tuple[Schema, Episode]) -> None:
    of, expected = case
    found = decode_episode(encode_episode(expected.validate(of.observation, of.action), of), of)
    assert_equal(found, expected)
    assert Schema.from_json(of.to_json()) == of


@pytest.mark.parametrize("kind", KINDS)
@given(position=st.floats(0, 1), change=st.binary(min_size=1, max_size=12), cut=st.booleans())
@settings(max_examples=120, deadline=None)
def test_a_fuzzed_record_is_an_episode_or_damaged(kind: Pictures, position: float, change: bytes, cut: bool) -> None:
    of = schema(kind)
    payload = encode_episode(episode(of), of)
    at = int(position * len(payload))
    fuzzed = payload[:at] if cut else payload[:at] + change + payload[at + len(change) :]
    with suppress(DamagedError):
        found = decode_episode(fuzzed, of)
        assert {key: value.shape[1:] for key, value in found.observation.items()} == {
            key: spec.shape for key, spec in of.observation.arrays.items()
        }


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"no picture",
        _png(4, 4),  # without pixels
        _png(30_000, 30_000),  # which would take 2.7 GB
        _saved(Image.new("RGB", (4, 5)), "PNG"),  # another size
        _saved(Image.new("L", (4, 4)), "PNG"),
        _saved(Image.new("P", (4, 4)), "PNG"),
        _saved(Image.new("I;16", (4, 4)), "PNG"),
        _saved(Image.new("RGB", (5, 4)), "JPEG"),
        _saved(Image.new("L", (4, 4)), "JPEG"),
        _saved(Image.new("CMYK", (4, 4)), "JPEG"),
        _saved(Image.new("RGB", (4, 4)), "JPEG")[:-300],
        _saved(Image.new("RGB", (4, 4)), "GIF"),
        _saved(Image.new("RGB", (4, 4)), "TIFF"),
    ],
)
def test_a_bad_picture_is_damage(data: bytes) -> None:
    good = pictures.encode_many(np.zeros((1, 4, 4, 3), np.uint8), "png")
    with pytest.raises(DamagedError, match="picture of"):
        pictures.decode_many([*good, data], (4, 4, 3))


def test_a_jpeg_may_hold_rgb(tmp_path: Path) -> None:
    camera = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(camera).save(tmp_path / "rgb.jpg", quality=100, keep_rgb=True)
    (found,) = pictures.decode_many([(tmp_path / "rgb.jpg").read_bytes()], (4, 4, 3))
    assert np.abs(found.astype(int) - camera).max() <= 3


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'front'.*JPEG cannot hold"):
        schema("jpeg", front=(8, 8, 4))
    with pytest.raises(SpecError, match="png, jpeg, raw, not as 'webp'"):
        schema("webp")  # type: ignore[arg-type]
    assert schema("png", front=(8, 8, 4)).picture_keys == ("front",)
    assert not any(map(is_picture, (ArraySpec((8, 8, 2), "uint8"), ArraySpec((8, 8, 3)), ArraySpec((8, 8), "uint8"))))


def test_a_store_says_how_it_keeps_pictures(tmp_path: Path) -> None:
    EpisodeStore.create(tmp_path, "seen", schema("jpeg"))
    with pytest.raises(FlywheelError, match="pictures as jpeg, not as png"):
        EpisodeStore.create(tmp_path, "seen", schema("png"))


def test_a_store_of_before_there_were_pictures_opens(tmp_path: Path) -> None:
    of = Schema(ObservationSpec({"state": ArraySpec((4,))}), ACTION)
    store = EpisodeStore.create(tmp_path, "old", of)
    path = store.path / ".meta" / "schema.json"
    data = open_json(path.read_bytes())
    del data["pictures"]
    path.write_bytes(seal_json(data))
    assert EpisodeStore.open(tmp_path).schema == of
    with EpisodeStore.create(tmp_path, "old", of).writer() as writer:
        writer.append(episode(of))


_FORKED = """
import os
import numpy as np
from flywheel.datasets.pictures import decode_many, encode_many
pictures = np.zeros((99, 9, 9, 3), np.uint8)
pictures[::2] = 9
encoded = encode_many(pictures, "png")
child = os.fork()
if not child:
    os._exit(int((decode_many(encoded, (9, 9, 3)) != pictures).any()))
os.waitpid(child, 0)[1] == 0 or exit("the child failed")
"""


def test_a_forked_process_decodes() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKED], check=True, timeout=60)
