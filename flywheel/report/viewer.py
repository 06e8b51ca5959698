"""Episodes for Rerun's viewer (rerun.io): cameras and curves on one time axis, several episodes over each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ActionSpec, Array

_SHORT = 12
"""Letters of an episode's id that are shown."""


def write_recording(path: Path, episodes: Sequence[Episode], action: ActionSpec) -> None:
    """Write episodes as a Rerun recording (.rrd): one view per camera and episode, and one per array for all of them.

    Every array is at ``<array>/<episode>``; the time axes are ``step`` and, where the action has a rate, ``seconds``, both
    counted from each episode's beginning, so that episodes are compared from the same start. The file is there whole or not
    at all.
    Raises `FlywheelError` if rerun-sdk is not installed.
    """
    rr = _rerun()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    recording = rr.RecordingStream("flywheel", recording_id=path.stem, send_properties=False)
    recording.save(temporary, default_blueprint=_blueprint(episodes))
    for name, episode in _named(episodes).items():
        _log(rr, recording, name, episode, action.rate)
    recording.flush()
    recording.disconnect()
    temporary.replace(path)


def _log(rr: Any, recording: Any, name: str, episode: Episode, rate: float) -> None:
    for key, values in _arrays(episode).items():
        entity = f"{key}/{name}"
        columns: list[Any]
        if _is_picture(values):
            height, width, channels = values.shape[1:]
            model = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
            form = rr.components.ImageFormat(width=width, height=height, color_model=model, channel_datatype="U8")
            recording.log(entity, rr.Image.from_fields(format=form), static=True)
            columns = [*rr.Image.columns(buffer=values.reshape(len(values), -1))]
        else:
            flat = values.reshape(len(values), -1).astype(np.float64)
            columns = [*rr.Scalars.columns(scalars=flat)]
        recording.send_columns(entity, indexes=_times(rr, len(values), rate), columns=columns)
    recording.log(f"about/{name}", rr.TextDocument(_about(episode), media_type="text/markdown"), static=True)


def _times(rr: Any, steps: int, rate: float) -> list[Any]:
    number = np.arange(steps)
    times = [rr.TimeColumn("step", sequence=number)]
    return [*times, rr.TimeColumn("seconds", duration=number / rate)] if rate else times


def _blueprint(episodes: Sequence[Episode]) -> Any:
    import rerun.blueprint as rrb

    arrays, named = _arrays(episodes[0]), _named(episodes)
    pictures = [
        rrb.Spatial2DView(origin=f"{key}/{name}", name=f"{key}, {name}")
        for name in named
        for key, values in arrays.items()
        if _is_picture(values)
    ]
    curves = [rrb.TimeSeriesView(origin=key, name=key) for key, values in arrays.items() if not _is_picture(values)]
    about = rrb.Tabs(*(rrb.TextDocumentView(origin=f"about/{name}", name=name) for name in named))
    left = rrb.Vertical(rrb.Grid(*pictures), about, row_shares=[4, 1]) if pictures else about
    return rrb.Blueprint(rrb.Horizontal(left, rrb.Grid(*curves, grid_columns=2), column_shares=[2, 3]), collapse_panels=True)


def _arrays(episode: Episode) -> dict[str, Array]:
    observations = {f"observation/{key}": values for key, values in sorted(episode.observation.items())}
    return {"action": episode.action[:-1], "reward": episode.reward[:-1], **observations}


def _is_picture(values: Array) -> bool:
    return values.dtype == np.uint8 and values.ndim == 4 and values.shape[-1] in (1, 3, 4)


def _named(episodes: Sequence[Episode]) -> dict[str, Episode]:
    """The episodes by what the viewer calls them: their number, as ids may differ at any place, and the end of the id."""
    return {
        f"{number}-{_plain(episode.metadata.episode_id)[-_SHORT:]}": episode for number, episode in enumerate(episodes, start=1)
    }


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)


def _about(episode: Episode) -> str:
    values = {key: value for key, value in episode.metadata.to_json().items() if value not in ("", -1, 0)}
    return "\n".join(f"- **{key}**: {value}" for key, value in values.items())


def _rerun() -> Any:
    try:
        import rerun
    except ImportError:
        raise FlywheelError("The viewer needs Rerun; install flywheel-robotics[view].") from None
    return rerun
