"""One episode at a glance: frames of its cameras over the curves of action, gripper and reward, on one time axis."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flywheel.core.episode import Episode
from flywheel.core.specs import ActionSpec, Array
from flywheel.report.plots import GRID, INK, MUTED, PALETTE

_FRAMES, _GAP = 8, 2
"""How many frames stand side by side, and how many white pixels between them."""
_WIDTH, _CURVE = 12.0, 1.5
"""Inches: the strip's width, and the height of a row of curves."""
_LINES = ("-", "--", ":")
_STYLE: Any = {"text.parse_math": False, "font.size": 9, "axes.edgecolor": GRID, "text.color": INK, "axes.labelcolor": MUTED}


def write_strip(path: Path, episode: Episode, action: ActionSpec) -> None:
    """Draw an episode of T transitions as a PNG: a row of frames for each camera, then action, gripper and reward over seconds.

    Cameras are observations of shape (T + 1, H, W, 1, 3 or 4) uint8; the gripper's are those that have it in their name. Time is
    in steps where the action has no rate. The file is there whole or not at all.
    """
    cameras = {key: value for key, value in sorted(episode.observation.items()) if _is_camera(value)}
    curves = _curves(episode)
    heights = [_frame_height(value) for value in cameras.values()] + [_CURVE] * len(curves)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, sum(heights) + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(_title(episode), x=0.01, ha="left", fontsize=11)
        rows = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, frames) in zip(rows, cameras.items(), strict=False):
            _draw_frames(axes, name, frames)
        seconds = np.arange(len(episode)) / (action.rate or 1.0)
        for axes, (name, values) in zip(rows[len(cameras) :], curves.items(), strict=True):
            _draw_curves(axes, name, seconds[: len(values)], values, (0.0, seconds[-1]))
        rows[-1].tick_params(labelbottom=True)
        rows[-1].set_xlabel("seconds" if action.rate else "steps")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)


def _is_camera(value: Array) -> bool:
    return value.dtype == np.uint8 and value.ndim == 4 and value.shape[-1] in (1, 3, 4)


def _curves(episode: Episode) -> Mapping[str, Array]:
    """What is drawn below the frames: (T,) or (T + 1,) times the number of curves."""
    gripper = {key: value for key, value in episode.observation.items() if "gripper" in key and value.ndim <= 2}
    own = {key: value for key, value in sorted(gripper.items()) if "_to_" not in key}  # not where something is from the gripper
    return {"action": episode.action[:-1], **own, "reward": episode.reward[:-1]}


def _title(episode: Episode) -> str:
    about = episode.metadata
    end = "succeeded" if about.success else "failed"
    return (
        f"{about.episode_id}    {about.task or 'no task'}, {about.agent_id or 'no agent'}, {episode.transitions:,} steps, {end}"
    )


def _frame_height(frames: Array) -> float:
    return float(_WIDTH / _FRAMES * frames.shape[1] / frames.shape[2] + 0.15)


def _draw_frames(axes: Axes, name: str, frames: Array) -> None:
    """Frames evenly from first to last, side by side."""
    chosen = frames[np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)]
    gap = np.full((len(chosen), frames.shape[1], _GAP, frames.shape[3]), 255, np.uint8)
    strip = np.concatenate(list(np.concatenate([chosen, gap], axis=2)), axis=1)[:, :-_GAP]
    axes.imshow(strip[..., 0] if strip.shape[-1] == 1 else strip, cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.set_title(name, loc="left", color=MUTED, fontsize=9)
    axes.set_axis_off()


def _draw_curves(axes: Axes, name: str, seconds: Array, values: Array, span: tuple[float, float]) -> None:
    columns = values.reshape(len(values), -1).astype(np.float64)
    for number, column in enumerate(columns.T):
        again, colour = divmod(number, len(PALETTE))
        axes.plot(seconds, column, color=PALETTE[colour], linestyle=_LINES[again % len(_LINES)], linewidth=1.2, label=str(number))
    axes.set_ylabel(name)
    axes.set_xlim(*span)
    axes.tick_params(labelbottom=False)
    axes.grid(color=GRID, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if columns.shape[1] > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7, handlelength=1.0)
