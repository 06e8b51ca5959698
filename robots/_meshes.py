"""Visual meshes with fewer triangles, so that pictures of a robosuite scene are drawn several times as fast in software.

Only what is drawn changes: a mesh that anything can collide with is left as it is, and inertia was computed when the model was
compiled, so that the physics stays the same to the bit.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array

_CREASE = np.cos(np.deg2rad(40.0))
"""Faces that meet at a flatter angle than this are shaded as one round surface."""


def simplify_visual_meshes(model: Any, most: int) -> int:
    """Let no mesh that is only drawn have more than `most` triangles; returns how many triangles there are then.

    Changes a compiled MuJoCo model in place, and has to be called before it is first drawn. A mesh that would need more room than
    it has, as its corners do not share normals, stays as it is. Raises `FlywheelError` without the package fast-simplification.
    """
    for mesh in _only_drawn(model):
        if model.mesh_facenum[mesh] > most:
            _simplify(model, mesh, most)
    return int(model.mesh_facenum.sum())


def _only_drawn(model: Any) -> list[int]:
    """The meshes that geoms show and none collides with."""
    of_mesh = (model.geom_dataid >= 0) & (model.geom_type == _MESH)
    collides = (model.geom_contype > 0) | (model.geom_conaffinity > 0)
    shown = set(model.geom_dataid[of_mesh & ~collides].tolist())
    return sorted(shown - set(model.geom_dataid[of_mesh & collides].tolist()))


_MESH = 7
"""mujoco.mjtGeom.mjGEOM_MESH."""


def _simplify(model: Any, mesh: int, most: int) -> None:
    vertices, faces = _welded(*_geometry(model, mesh))
    points, triangles = _reduce(vertices, faces, most)
    normals, of_corner = np.unique(_corner_normals(points, triangles).reshape(-1, 3), axis=0, return_inverse=True)
    if len(points) > model.mesh_vertnum[mesh] or len(normals) > model.mesh_normalnum[mesh]:
        return
    start, face = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
    at_normal, count = int(model.mesh_normaladr[mesh]), len(triangles)
    model.mesh_vert[start : start + len(points)] = points
    model.mesh_face[face : face + count] = triangles
    model.mesh_normal[at_normal : at_normal + len(normals)] = normals
    model.mesh_facenormal[face : face + count] = of_corner.reshape(-1, 3)
    model.mesh_facenum[mesh] = count


def _geometry(model: Any, mesh: int) -> tuple[Array, Array]:
    """The vertices (V, 3) and the faces (F, 3) of a mesh."""
    start, face = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
    vertices = model.mesh_vert[start : start + int(model.mesh_vertnum[mesh])]
    return vertices, model.mesh_face[face : face + int(model.mesh_facenum[mesh])]


def _welded(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """The same surface with vertices that faces share."""
    points, place = np.unique(vertices, axis=0, return_inverse=True)
    return points, place.reshape(-1)[faces]


def _reduce(vertices: Array, faces: Array, most: int) -> tuple[Array, Array]:
    try:
        import fast_simplification
    except ImportError:
        raise FlywheelError("Cameras need fast-simplification; install flywheel-robotics[sim].") from None
    points, triangles = fast_simplification.simplify(vertices, faces.astype(np.int32), target_count=most)
    return points, triangles


def _corner_normals(points: Array, triangles: Array) -> Array:
    """(F, 3, 3): at each corner of each face the mean normal of the faces around it that do not meet it at a crease."""
    first, second, third = (points[triangles[:, k]] for k in range(3))
    areas = np.cross(second - first, third - first)  # twice each face's area, along its normal
    normals = areas / np.maximum(np.linalg.norm(areas, axis=1, keepdims=True), 1e-12)
    corner = triangles.reshape(-1)
    face = np.repeat(np.arange(len(triangles)), 3)
    order = np.argsort(corner, kind="stable")
    bounds = np.flatnonzero(np.r_[True, np.diff(corner[order]) > 0, True])
    found = np.empty((len(corner), 3), np.float32)
    for begin, end in itertools.pairwise(bounds):
        around = face[order[begin:end]]
        smooth = normals[around] @ normals[around].T > _CREASE
        mixed = smooth @ areas[around]
        found[order[begin:end]] = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
    return found.reshape(-1, 3, 3)
