"""Copying a store to an object store (moto's S3 on loopback) and reading it from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.columns import Columns
from flywheel.datasets.layout import Layout
from flywheel.datasets.places import Place, url_of
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.sync import sync
from tests.point import episode, make_store


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["s3", "folder"])
def url(request: pytest.FixtureRequest, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Somewhere to copy to, empty; the metadata of what is read from it lie below `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        return f"file://{tmp_path}/elsewhere"
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "DEFAULT_REGION": "us-east-1",
        "ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    bucket = f"b{abs(hash(str(tmp_path))):x}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/robots/point"


def test_the_copy_is_the_store_and_grows_with_it(tmp_path: Path, url: str) -> None:
    store = make_store(tmp_path / "here", range(5))
    store.label(["reach-script-00003"], "success", value=True, by="ada")
    assert sync(store, url).shards == 1
    copy = EpisodeStore.open(url)
    assert copy.snapshot().hash == store.snapshot().hash
    with store.writer() as writer:
        writer.append(episode(5))
        assert sync(store, url).unsealed == 1
    done = sync(store, url)
    assert (done.shards, done.there) == (1, 1)
    assert len(copy.rows()) == 5, "a copy is read as it was when it was opened"
    again = EpisodeStore.open(url)
    assert again.snapshot().hash == store.snapshot().hash
    assert again.history("reach-script-00003") == store.history("reach-script-00003")
    for ours, theirs in zip(store.episodes(), again.episodes(), strict=True):
        assert ours.metadata == theirs.metadata
        np.testing.assert_array_equal(ours.action, theirs.action)


def test_one_trains_on_the_copy(tmp_path: Path, url: str) -> None:
    store = make_store(tmp_path / "here", range(5))
    sync(store, url)
    copy = EpisodeStore.open(url)
    theirs, ours = Columns.open(copy, copy.snapshot()), Columns.open(store, store.snapshot())
    np.testing.assert_array_equal(theirs.state[theirs.table.step_rows], ours.state[ours.table.step_rows])


def test_a_shard_that_the_index_lacks_is_read(tmp_path: Path, url: str) -> None:
    store = make_store(tmp_path / "here", range(3))
    Layout(store.path).index.unlink()
    sync(store, url)
    assert EpisodeStore.open(url).snapshot().hash == store.snapshot().hash


def test_a_copy_is_not_written(tmp_path: Path, url: str) -> None:
    sync(make_store(tmp_path / "here", range(2)), url)
    copy = EpisodeStore.open(url)
    for write in (copy.writer, lambda: copy.label(["reach-script-00000"], "invalid", value=True, by="ada")):
        with pytest.raises(FlywheelError, match="is a copy; write to the store"):
            write()


def test_an_interrupted_copy_is_no_store_yet_and_goes_on(tmp_path: Path, url: str) -> None:
    store = make_store(tmp_path / "here", range(3))
    (shard,) = (path for path in store.path.iterdir() if "tfrecord" in path.name)
    half = tmp_path / "half"
    write_atomically(half, shard.read_bytes()[:100])
    Place.of(url).upload(half, shard.name)
    with pytest.raises(FlywheelError, match="holds no store"):
        EpisodeStore.open(url)
    assert sync(store, url).shards == 1
    assert len(EpisodeStore.open(url).rows()) == 3


def test_two_stores_do_not_mix(tmp_path: Path, url: str) -> None:
    sync(make_store(tmp_path / "here", range(3)), url)
    with pytest.raises(FlywheelError, match="another content"):
        sync(make_store(tmp_path / "there", range(3, 6)), url)
    assert len(EpisodeStore.open(url).rows()) == 3


@pytest.mark.parametrize("what", ["episode", "label"])
def test_what_a_copy_alone_holds_is_not_hidden(tmp_path: Path, what: str) -> None:
    store = make_store(tmp_path / "here", range(3))
    store.label(["reach-script-00000"], "invalid", value=True, by="ada")
    sync(store, str(tmp_path / "there"))
    copy = EpisodeStore.open(tmp_path / "there")
    if what == "label":
        copy.label(["reach-script-00001"], "success", value=True, by="ada")
    else:
        with copy.writer() as writer:
            writer.append(episode(3))
    with pytest.raises(FlywheelError, match=r"holds episodes or labels that .* lacks"):
        sync(store, str(tmp_path / "there"))
    again = EpisodeStore.open(tmp_path / "there")
    assert len(again.rows()) == (4 if what == "episode" else 3)
    assert len(again.history("reach-script-00001")) == (what == "label")


def test_a_store_is_not_copied_onto_itself(tmp_path: Path) -> None:
    store = make_store(tmp_path / "here", range(3))
    with pytest.raises(FlywheelError, match="is the store itself"):
        sync(store, str(store.path))


def test_a_copy_of_a_copy_is_a_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "here", range(3))
    sync(store, str(tmp_path / "there"))
    shutil.rmtree(store.path)
    with EpisodeStore.open(tmp_path / "there").writer() as writer:
        writer.append(episode(3))
    assert len(EpisodeStore.open(tmp_path / "there").rows()) == 4


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://127.0.0.1-no-such-bucket/x", "cannot be reached"),
        ("nonsense://x", "cannot be reached: Protocol not known: nonsense"),
        ("file:///nowhere/at/all", "holds no store"),
    ],
)
def test_what_cannot_be_reached_is_said(url: str, reason: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(FlywheelError, match=reason):
        EpisodeStore.open(url)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        (Path("s3://bucket/lift"), "s3://bucket/lift"),
        (Path("file:///data"), "file:///data"),
        ("file:///data", "file:///data"),
        ("s3://bucket/lift", "s3://bucket/lift"),
        (Path("/data/lift"), None),
        ("data", None),
    ],
)
def test_a_url_is_told_from_a_path(path: Path | str, url: str | None) -> None:
    assert url_of(path) == url
