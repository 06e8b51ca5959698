"""flywheel store sync: copy what is sealed to another place, from which it can be read and trained on."""

from __future__ import annotations

from typing import Annotated

import tyro

from flywheel.cli.console import progress, say
from flywheel.cli.store_common import StorePath
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.sync import sync as sync_store


def sync(path: StorePath, url: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]) -> None:
    """Copy the sealed part of a store to another folder or an object store; done again, it adds what is new.

    Args:
        path: The store's folder, or a root that holds one store.
        url: Where to, for example s3://bucket/lift; every command that reads a store takes the same URL.
    """
    store = EpisodeStore.open(path)
    with progress("Copying", "bytes") as on_progress:
        done = sync_store(store, url, on_progress)
    say(f"{done.shards:,} shards ({done.bytes:,} bytes) copied, {done.there:,} were there already.")
    if done.unsealed:
        say(f"{done.unsealed:,} episodes are in the journals of writers and follow once these are closed.")
