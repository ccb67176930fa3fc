"""Ray-casting of MuJoCo's primitives on CPU threads: which geom each pixel shows, and how far away.

`cast` is the first half of `cpu_cameras`; `tutelage.envs.batched.cameras.shading` colours what
it finds. Per environment and geom, only the pixels of the geom's rectangle on the screen are tried, a row at
a time and without branches, so that the compiler makes vector instructions of it. Rays are
``(x, y, -1)`` in the camera's frame: what is solved for is then the depth along the camera's axis itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

PLANE, HFIELD, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH, SDF = range(9)
"""``mjtGeom``, as numbers that kernels can use."""

TINY = np.float32(1e-12)
TIE = np.float32(1 + 1e-6)  # relative; of equally distant geoms the later one is shown, as on Warp


class Geoms(NamedTuple):
    """Geoms of the model; arrays with a leading 1 instead of `num_envs` are shared by all environments.

    Attributes:
        ids: those to cast, ascending, int32.
        types: ``mjtGeom`` of every geom, int32.
        visible: bool, ``(num_envs or 1, ngeom)``.
        size: ``(num_envs or 1, ngeom, 3)``.
        position, rotation: ``(num_envs, ngeom, 3)`` and ``(num_envs, ngeom, 9)``, in the world.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    visible: NDArray[np.bool_]
    size: Floats
    position: Floats
    rotation: Floats


class View(NamedTuple):
    """One camera in all environments.

    Attributes:
        position, rotation: ``(num_envs, 3)`` and ``(num_envs, 9)``, in the world.
        frustum: ``(num_envs or 1, 4)``: centre and half width, centre and half height at distance 1.
        columns, rows: where pixel centres are between -1 (left, bottom) and 1 (right, top).
        far: depth beyond which nothing is seen.
    """

    position: Floats
    rotation: Floats
    frustum: Floats
    columns: Floats
    rows: Floats
    far: np.float32


def kernel(function: Function) -> Function:
    """Compile by numba; kept on disk where that can be written, so that the next process need not compile.

    Kernels release the interpreter's lock. NaN and infinity keep their meaning; sums may be reordered.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"contract", "reassoc", "arcp", "nsz", "afn"},
    }
    try:
        compiled: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        compiled = numba.njit(**options)(function)
    return compiled


@kernel
def _span(v: float, z: float, radius: float) -> tuple[float, float]:
    """Slopes of the two tangents from the origin to a circle around (v, z); everything, if z <= radius."""
    space = z * z - radius * radius
    if z <= radius or space < 1e-9:
        return -1e9, 1e9
    reach = radius * math.sqrt(v * v + space)
    return (v * z - reach) / space, (v * z + reach) / space


@kernel
def _pixels(low: float, high: float, centre: float, half: float, count: int) -> tuple[int, int]:
    """First pixel, and the one after the last, whose centre may lie between two slopes."""
    scale = 0.5 * count / half
    first = math.floor((low - centre + half) * scale - 0.5)
    last = math.ceil((high - centre + half) * scale - 0.5) + 1.0
    return int(min(max(first, 0.0), count)), int(min(max(last, 0.0), count))


@kernel
def _bounds(kind, size, local, axes, frustum, width, height):  # type: ignore[no-untyped-def]
    """Rectangle of pixels that can show a geom: columns and rows, each from and to.

    A geom lies in the hull of spheres: one around it, one at each end of a capsule or cylinder, and of radius
    0 at a box's corners. `local` is minus the camera's position in the geom's frame, `axes` the camera's axes
    in it.
    """
    if kind == PLANE:
        return 0, width, 0, height
    corners, radius = 1, size[0]
    if kind == BOX:
        corners, radius = 8, np.float32(0)
    elif kind in (CAPSULE, CYLINDER):
        corners = 2
    elif kind == ELLIPSOID:
        radius = max(size[0], size[1], size[2])
    left, right, bottom, top, ahead = 1e9, -1e9, 1e9, -1e9, False
    for corner in range(corners):
        x, y, z = local[0], local[1], local[2]
        if kind == BOX:
            x += size[0] if corner & 1 else -size[0]
            y += size[1] if corner & 2 else -size[1]
            z += size[2] if corner & 4 else -size[2]
        elif corners == 2:
            z += size[1] if corner else -size[1]
        depth = -(axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z)
        ahead = ahead or depth > -radius
        low, high = _span(axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z, depth, radius)
        left, right = min(left, low), max(right, high)
        low, high = _span(axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z, depth, radius)
        bottom, top = min(bottom, low), max(top, high)
    if not ahead:
        return 0, 0, 0, 0
    first, last = _pixels(left, right, frustum[0], frustum[1], width)
    upper, lower = _pixels(-top, -bottom, -frustum[2], frustum[3], height)
    return first, last, upper, lower


@kernel
def _cast_plane(depth, seg, xs, g, size, o, d, a):  # type: ignore[no-untyped-def]
    """A row of pixels of rays ``o + t (d + x a)`` in the geom's frame; as the following ones."""
    ox, oy, oz = o
    dx, dy, dz = d
    ax, ay, az = a
    wide = size[0] if size[0] > 0 else np.float32(1e9)
    deep = size[1] if size[1] > 0 else np.float32(1e9)
    for j in range(depth.shape[0]):
        x = xs[j]
        t = -oz / min(dz + x * az, -TINY)  # not from below
        inside = (abs(ox + t * (dx + x * ax)) <= wide) & (abs(oy + t * (dy + x * ay)) <= deep)
        hit = inside & (dz + x * az < -TINY) & (t > 0) & (t <= depth[j] * TIE)
        depth[j] = t if hit else depth[j]
        seg[j] = g if hit else seg[j]


@kernel
def _cast_ellipsoid(depth, seg, xs, g, size, o, d, a):  # type: ignore[no-untyped-def]
    ix, iy, iz = np.float32(1) / size[0], np.float32(1) / size[1], np.float32(1) / size[2]
    ox, oy, oz = o[0] * ix, o[1] * iy, o[2] * iz
    dx, dy, dz = d[0] * ix, d[1] * iy, d[2] * iz
    ax, ay, az = a[0] * ix, a[1] * iy, a[2] * iz
    for j in range(depth.shape[0]):
        x = xs[j]
        vx, vy, vz = dx + x * ax, dy + x * ay, dz + x * az
        square = np.float32(1) / (vx * vx + vy * vy + vz * vz)
        nearest = -(ox * vx + oy * vy + oz * vz) * square
        # the distance of closest approach cancels less than the usual discriminant does
        cx, cy, cz = ox + nearest * vx, oy + nearest * vy, oz + nearest * vz
        inside = np.float32(1) - (cx * cx + cy * cy + cz * cz)
        t = nearest - math.sqrt(max(inside, np.float32(0)) * square)
        hit = (inside > 0) & (t > 0) & (t <= depth[j] * TIE)
        depth[j] = t if hit else depth[j]
        seg[j] = g if hit else seg[j]


@kernel
def _cast_round(depth, seg, xs, g, size, o, d, a, capsule):  # type: ignore[no-untyped-def]
    """Capsules and cylinders: where the line enters the endless cylinder decides what it can hit."""
    ox, oy, oz = o
    dx, dy, dz = d
    ax, ay, az = a
    radius2, half = size[0] * size[0], size[1]
    for j in range(depth.shape[0]):
        x = xs[j]
        vx, vy, vz = dx + x * ax, dy + x * ay, dz + x * az
        flat = max(vx * vx + vy * vy, TINY)
        square = np.float32(1) / flat
        nearest = -(ox * vx + oy * vy) * square
        cx, cy = ox + nearest * vx, oy + nearest * vy
        inside = radius2 - (cx * cx + cy * cy)
        side = nearest - math.sqrt(max(inside, np.float32(0)) * square)
        z = oz + side * vz
        end = half if z > 0 else -half
        if capsule:
            square = np.float32(1) / (flat + vz * vz)
            below = oz - end
            nearest = -(ox * vx + oy * vy + below * vz) * square
            cx, cy, cz = ox + nearest * vx, oy + nearest * vy, below + nearest * vz
            within = radius2 - (cx * cx + cy * cy + cz * cz)
            cap = nearest - math.sqrt(max(within, np.float32(0)) * square)
        else:
            vz = vz if abs(vz) > TINY else TINY
            cap = (end - oz) / vz
            cx, cy = ox + cap * vx, oy + cap * vy
            within = radius2 - (cx * cx + cy * cy)
        round_side = abs(z) <= half
        t = side if round_side else cap
        hit = (inside > 0) & (round_side | (within > 0)) & (t > 0) & (t <= depth[j] * TIE)
        depth[j] = t if hit else depth[j]
        seg[j] = g if hit else seg[j]


@kernel
def _cast_box(depth, seg, xs, g, size, o, d, a):  # type: ignore[no-untyped-def]
    ox, oy, oz = o
    dx, dy, dz = d
    ax, ay, az = a
    sx, sy, sz = size[0], size[1], size[2]
    for j in range(depth.shape[0]):
        x = xs[j]
        vx, vy, vz = dx + x * ax, dy + x * ay, dz + x * az
        ix = np.float32(1) / (vx if abs(vx) > TINY else TINY)
        iy = np.float32(1) / (vy if abs(vy) > TINY else TINY)
        iz = np.float32(1) / (vz if abs(vz) > TINY else TINY)
        px, py, pz = sx * abs(ix), sy * abs(iy), sz * abs(iz)
        t = max(max(-ox * ix - px, -oy * iy - py), -oz * iz - pz)
        leave = min(min(-ox * ix + px, -oy * iy + py), -oz * iz + pz)
        hit = (t <= leave) & (t > 0) & (t <= depth[j] * TIE)
        depth[j] = t if hit else depth[j]
        seg[j] = g if hit else seg[j]


@kernel
def cast(  # type: ignore[no-untyped-def]
    envs: NDArray[np.int64],
    geoms: Geoms,
    view: View,
    depth: Floats,
    segmentation: NDArray[np.int32],
):
    """Fill the depth and segmentation of some environments.

    Args:
        envs: which ones.
        geoms, view: see there.
        depth: ``(num_envs, height, width)``, out: along the camera's axis, infinite for nothing.
        segmentation: int32, out: id of the geom, -1 for nothing.
    """
    height, width = depth.shape[1:]
    axes, local, size = np.empty((3, 3), np.float32), np.empty(3, np.float32), np.empty(3, np.float32)
    slopes = np.empty(width, np.float32)
    for n in envs:
        frustum = view.frustum[n if view.frustum.shape[0] > 1 else 0]
        visible = geoms.visible[n if geoms.visible.shape[0] > 1 else 0]
        sizes = geoms.size[n if geoms.size.shape[0] > 1 else 0]
        camera, turn = view.position[n], view.rotation[n]
        depth[n] = view.far
        segmentation[n] = -1
        for j in range(width):
            slopes[j] = frustum[0] + frustum[1] * view.columns[j]
        for g in geoms.ids:
            if not visible[g]:
                continue
            kind = geoms.types[g]
            rotation = geoms.rotation[n, g]
            qx = geoms.position[n, g, 0] - camera[0]
            qy = geoms.position[n, g, 1] - camera[1]
            qz = geoms.position[n, g, 2] - camera[2]
            for k in range(3):
                size[k] = sizes[g, 0 if kind == SPHERE else k]
                local[k] = rotation[k] * qx + rotation[3 + k] * qy + rotation[6 + k] * qz
                for c in range(3):
                    axes[c, k] = (
                        rotation[k] * turn[c] + rotation[3 + k] * turn[3 + c] + rotation[6 + k] * turn[6 + c]
                    )
            first, last, upper, lower = _bounds(kind, size, local, axes, frustum, width, height)
            if first >= last:
                continue
            o = (-local[0], -local[1], -local[2])
            a = (axes[0, 0], axes[0, 1], axes[0, 2])
            xs = slopes[first:last]
            for i in range(upper, lower):
                y = frustum[2] + frustum[3] * view.rows[i]
                d = (
                    y * axes[1, 0] - axes[2, 0],
                    y * axes[1, 1] - axes[2, 1],
                    y * axes[1, 2] - axes[2, 2],
                )
                row, ids = depth[n, i, first:last], segmentation[n, i, first:last]
                if kind == PLANE:
                    _cast_plane(row, ids, xs, g, size, o, d, a)
                elif kind == BOX:
                    _cast_box(row, ids, xs, g, size, o, d, a)
                elif kind == CAPSULE:
                    _cast_round(row, ids, xs, g, size, o, d, a, True)
                elif kind == CYLINDER:
                    _cast_round(row, ids, xs, g, size, o, d, a, False)
                else:
                    _cast_ellipsoid(row, ids, xs, g, size, o, d, a)
        for i in range(height):
            row, ids = depth[n, i], segmentation[n, i]
            for j in range(width):
                row[j] = np.float32(np.inf) if ids[j] < 0 else row[j]
