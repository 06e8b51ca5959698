"""flywheel store stats and convert: what reads all of a very large store, on any of Apache Beam's runners."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from flywheel.cli.console import console, say
from flywheel.cli.store_common import StorePath, make_table

BeamOptions = Annotated[str, tyro.conf.arg(metavar="OPTIONS")]
_HERE = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=0"
"""Beam's own runner on all processors of this machine."""


def stats(path: StorePath, where: str = "", beam: BeamOptions = _HERE) -> None:
    """Show count, mean, spread and range of every number in a store, over all of its episodes.

    Args:
        path: The store's folder or URL.
        where: Only of these episodes, for example "task = 'lift' and success".
        beam: Options for Apache Beam; --runner=FlinkRunner and others use more than this machine.
    """
    from flywheel.datasets.beam import statistics

    found = statistics(path, where or None, beam.split())
    table = make_table("array", "number >", "count >", "mean >", "std >", "lowest >", "highest >")
    for name, about in sorted(found.items()):
        for number, values in enumerate(zip(about.mean, about.std, about.low, about.high, strict=True)):
            table.add_row(name, str(number), f"{about.count:,}", *(f"{value:.4g}" for value in values))
    console.print(table)


def convert(
    path: StorePath,
    url: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")],
    pictures: Literal["png", "jpeg", "raw"],
    beam: BeamOptions = _HERE,
) -> None:
    """Copy a store to an empty folder with its pictures in another encoding; started again, it goes on.

    Args:
        path: The store's folder or URL.
        url: Where to: a folder, or a URL that every worker can write to.
        pictures: The encoding of the copy; jpeg loses some detail.
        beam: Options for Apache Beam; --runner=FlinkRunner and others use more than this machine.
    """
    from flywheel.datasets.beam import convert as convert_store

    shards = convert_store(path, url, pictures, beam.split())
    say(f"{sum(shards.lengths):,} episodes are in {len(shards.lengths):,} shards at {url}.")
