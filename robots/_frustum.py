"""What a camera can see, so that a picture costs no time for what lies beside it: in software even unseen triangles do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from flywheel.core.specs import Array

_HIDDEN_GROUP = 5
"""A group of geoms that MuJoCo does not draw unless it is told to."""


@contextmanager
def only_in_view(model: Any, data: Any, camera: int, aspect: float) -> Iterator[None]:
    """Within it MuJoCo draws only the geoms that a camera can see in a picture with this aspect, width over height.

    The picture is the same to the bit. Physics does not read what is changed meanwhile, the geoms' groups. Where a light casts
    shadows, everything is drawn, as what is out of view may throw one into it.
    """
    if model.light_castshadow.any():
        yield
        return
    groups = model.geom_group.copy()
    model.geom_group[~in_view(model, data, camera, aspect)] = _HIDDEN_GROUP
    try:
        yield
    finally:
        model.geom_group[:] = groups


def in_view(model: Any, data: Any, camera: int, aspect: float) -> Array:
    """(G,) bool: the geoms whose bounding spheres reach into the pyramid that a camera sees; planes have none, and always do."""
    away = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)  # it looks along -z
    radius, depth = model.geom_rbound, -away[:, 2]
    upwards = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    seen = depth > -radius
    for sideways, slope in ((away[:, 0], upwards * aspect), (away[:, 1], upwards)):
        # A sphere lies wholly outside of a plane through the eye when its centre is further from it than its radius.
        seen &= (np.abs(sideways) - depth * slope) / np.hypot(1.0, slope) < radius
    found: Array = seen | (radius == 0)
    return found
