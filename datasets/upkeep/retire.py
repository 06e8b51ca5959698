"""Old generations: kept for the readers that have them open, and removed later."""

from __future__ import annotations

import time
from pathlib import Path

from flywheel.datasets.filesystem import refusing
from flywheel.datasets.index import EpisodeIndex
from flywheel.datasets.layout import Layout


def mark_retired(layout: Layout) -> list[Path]:
    """Note of every generation before the listed one that it is an old one now; returns the notes, oldest generation first."""
    current = layout.read_shards().generation
    layout.retired.mkdir(exist_ok=True)
    notes = []
    for generation in (number for number in layout.generations() if number < current):
        note = layout.retired / f"{generation:04d}"
        if any(layout.generation_files(generation)):
            if not note.exists():
                note.touch()
            notes.append(note)
    return notes


def remove_retired(layout: Layout, grace_seconds: float) -> list[int]:
    """Remove generations that have been old for so long; returns which. Call it under `Layout.compacting`.

    Age goes by the clock, on which nothing else depends: one that is set back keeps a generation longer, and one that is set
    forward costs nobody but a plain TFDS reader, who is told that a file is missing.
    """
    removed = []
    with refusing(layout.path), layout.locked():
        for note in mark_retired(layout):
            generation = int(note.name)
            if grace_seconds and not time.time() - note.stat().st_mtime >= grace_seconds:
                continue
            for path in layout.generation_files(generation):
                path.unlink()
            if generation:
                layout.generation_folder(generation).rmdir()
            note.unlink()
            removed.append(generation)
    if removed:
        EpisodeIndex(layout.index).keep(layout.read_shards().names)
    return removed
