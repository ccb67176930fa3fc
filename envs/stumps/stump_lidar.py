"""The lidar of the Box2D walkers, computed from the terrain instead of by Box2D's ray-cast callbacks."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.stumps.stump_terrain import SCALE, Terrain

LIDAR_RANGE = 160 / SCALE
RAYS = LIDAR_RANGE * np.array([(math.sin(0.15 * i), -math.cos(0.15 * i)) for i in range(10)])
"""The rays, straight down to almost straight ahead, shape ``(10, 2)``; they do not turn with the hull."""

_FARTHEST = float(RAYS[-1, 0])
_ORIGIN_CROSS_RAY = np.stack([np.zeros(10), RAYS[:, 1], -RAYS[:, 0]], axis=1)  # times (1, x, y)


class Lidar:
    """Distances to the terrain along ten fixed rays, equal to Box2D's ``RayCast`` up to rounding.

    A ray from o along d meets the segment from p to q = p + e where o + t d = p + s e, so that, with the
    cross product x of the plane, ``t = (p - o) x e / (d x e)``, and 0 <= s <= 1 means that ``o x d`` lies
    between ``p x d`` and ``q x d``. Rays and segments are known at reset: per step remain a product that
    gives t from (1, o), two comparisons, and a minimum over the segments nearby.

    As in Box2D the ground is hit from both sides, and an obstacle only from outside.

    Args:
        terrain: what the rays meet.
    """

    def __init__(self, terrain: Terrain) -> None:
        corners, polygons = terrain.ground, terrain.obstacles
        starts = np.concatenate([corners[:-1], polygons.reshape(-1, 2)])
        ends = np.concatenate([corners[1:], np.roll(polygons, -1, axis=1).reshape(-1, 2)])
        order = np.argsort(np.minimum(starts[:, 0], ends[:, 0]), kind="stable")
        starts, ends, from_outside = starts[order], ends[order], order >= len(corners) - 1

        edges = ends - starts
        facing = RAYS[:, 0] * edges[:, 1:] - RAYS[:, 1] * edges[:, :1]  # d x e, (segments, rays)
        seen = np.where(from_outside[:, None], facing < 0, facing != 0)
        ex, ey = edges.T
        coefficients = np.stack([starts[:, 0] * ey - starts[:, 1] * ex, -ey, ex], axis=1)
        self._distance = (coefficients[:, None, :] / np.where(seen, facing, np.inf)[:, :, None]).reshape(
            -1, 3
        )
        start_cross = starts[:, :1] * RAYS[:, 1] - starts[:, 1:] * RAYS[:, 0]
        end_cross = ends[:, :1] * RAYS[:, 1] - ends[:, 1:] * RAYS[:, 0]
        self._low = np.where(seen, np.minimum(start_cross, end_cross), np.inf)
        self._high = np.maximum(start_cross, end_cross)
        # A segment is nearby when it begins left of the farthest ray's tip and does not end left of the
        # lidar. All segments before the first whose running maximum of right ends reaches the lidar are
        # behind it.
        self._left = np.minimum(starts[:, 0], ends[:, 0]).tolist()
        self._right_so_far = np.maximum.accumulate(np.maximum(starts[:, 0], ends[:, 0])).tolist()

    def __call__(self, x: float, y: float) -> NDArray[np.float64]:
        """Return how far the rays from (x, y) go, as fractions of the lidar's range, shape ``(10,)``."""
        first = bisect_left(self._right_so_far, x)
        last = bisect_right(self._left, x + _FARTHEST)
        origin = np.array((1.0, x, y))
        offset = _ORIGIN_CROSS_RAY.dot(origin)
        fractions = self._distance[first * 10 : last * 10].dot(origin).reshape(-1, 10)
        hit = (self._low[first:last] <= offset) & (offset <= self._high[first:last]) & (fractions >= 0.0)
        nearest: NDArray[np.float64] = np.minimum.reduce(np.where(hit, fractions, 1.0), axis=0)
        return np.minimum(nearest, 1.0)
