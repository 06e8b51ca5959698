"""What our own exporters leave in foreign files, so that an exported data set comes back with everything that it had."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flywheel.core.episode import EpisodeMetadata
from flywheel.datasets.importers.files import reading
from flywheel.datasets.importers.mapping import FieldMap
from flywheel.datasets.schema import Schema


def own_metadata(path: Path, attributes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata that were left with an episode, and a note of the id that it had; empty for a foreign file's."""
    if "flywheel" not in attributes:
        return {}, {}
    with reading(path, "the attribute 'flywheel'"):
        found = json.loads(str(attributes["flywheel"]))
        known = EpisodeMetadata(episode_id="").to_json()
        kept = {name: found[name] for name, default in known.items() if isinstance(found.get(name), type(default))}
    notes = {"was": kept.pop("episode_id", "")}
    kept.pop("source", None)
    return kept, notes


def as_exported(path: Path, fields: FieldMap, about: Any) -> FieldMap:
    """A reader's default with the units, dtypes and action of the store that was exported; as it is for a foreign file.

    `about` is what the exporter left of the whole, as JSON or read already.
    """
    if not about:
        return fields
    with reading(path, "what Flywheel wrote of the store"):
        schema = Schema.from_json((json.loads(about) if isinstance(about, str) else about)["schema"])
    arrays = schema.observation.arrays
    observation = {
        key: replace(field, unit=arrays[key].unit, dtype=arrays[key].dtype) if key in arrays else field
        for key, field in fields.observation.items()
    }
    spec = schema.action
    meaning: dict[str, Any] = {"controller": spec.controller, "mode": spec.mode, "frame": spec.frame, "rate": spec.rate}
    action = replace(fields.action, low=spec.low, high=spec.high, means=spec.scale, **meaning)
    return replace(fields, observation=observation, action=action)
