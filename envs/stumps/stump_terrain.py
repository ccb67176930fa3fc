"""Terrain of the Box2D tracks: where the ground and the obstacles lie, in plain numpy.

Three generators (stumps, hexagons, stump sequences) draw a `Terrain` from task parameters; the environments
of `stump_tracks` turn it into a Box2D body. Lengths are in world units unless a name says
*steps*: task parameters of Portelas et al. (2019) count terrain steps of 14/30 units, apart from the spacing
and the widths of a stump sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALE = 30.0
"""Pixels in a world unit."""
TERRAIN_STEP = 14 / SCALE
"""Length of a terrain step."""
GROUND_HEIGHT = 400 / SCALE / 4
"""Height of the start pad above the lower border of the picture."""
START_PAD = 20 * TERRAIN_STEP
"""The first obstacle begins here."""
FINISH = 190 * TERRAIN_STEP
"""Beyond this the walker has arrived."""
TERRAIN_END = 200 * TERRAIN_STEP
"""No obstacle begins beyond this."""

SIZE_NOISE = 0.1
"""Standard deviation, in the parameter's own unit, of each obstacle's height, width, rotation and corners."""
MIN_SIZE = 0.05
"""Least height and width of a stump, in the parameter's own unit: stumps of negative height are this high."""
MIN_SPACING = 0.01
"""Least distance between obstacles."""
HEXAGON = np.array([(-0.5, 0), (-0.5, 0.25), (-0.25, 0.5), (0.25, 0.5), (0.5, 0.25), (0.5, 0)])
"""Corners of the undeformed hexagon about the middle of its base, in terrain steps, shape ``(6, 2)``."""
HEXAGON_ROOM = 1.0
"""Ground that a hexagon of any shape takes up before the spacing begins."""


@dataclass(frozen=True)
class Terrain:
    """Ground and obstacles of one episode, rounded to float32 as Box2D stores them.

    Attributes:
        ground: the corners of the ground from left to right, shape ``(m, 2)``.
        obstacles: convex polygons, counter-clockwise, ordered by their leftmost points, shape ``(k, v, 2)``;
            one with fewer than `v` corners repeats its last corner.
    """

    ground: NDArray[np.float64]
    obstacles: NDArray[np.float64]


def stump_track(
    rng: np.random.Generator,
    height: float,
    spacing: float,
    width: float | None = None,
    rotation: float | None = None,
    roughness: float = 0.0,
) -> Terrain:
    """Draw a track of boxes on flat ground (Portelas et al. 2019, Stump Tracks).

    Args:
        rng: source of every random number.
        height: mean height of the stumps in terrain steps; each is ``max(0.05, N(height, 0.1))`` high.
        spacing: flat ground between two stumps, at least 0.01.
        width: mean width in terrain steps, drawn like the height; None makes every stump exactly one step
        wide. rotation: mean angle in radians by which a stump turns counter-clockwise about the middle of its
        base,
            ``N(rotation, 0.1)`` clipped to [0, 2 pi]; None leaves the stumps upright.
        roughness: how much the flat parts differ in height, see `_ground`.
    """
    spacing = max(MIN_SPACING, spacing)
    if width is None:
        count = math.ceil((TERRAIN_END - START_PAD) / (TERRAIN_STEP + spacing))
        widths = np.full(count, TERRAIN_STEP)
    else:
        count = math.ceil((TERRAIN_END - START_PAD) / (TERRAIN_STEP * MIN_SIZE + spacing))
        widths = TERRAIN_STEP * _sizes(rng, np.full(count, width))
    widths = _until_end(widths, spacing)
    heights = TERRAIN_STEP * _sizes(rng, np.full(len(widths), height))
    ground, corners = _ground(rng, widths, spacing, roughness)
    boxes = _boxes(corners, widths, heights)
    if rotation is not None:
        angles = np.clip(rng.normal(rotation, SIZE_NOISE, len(widths)), 0.0, 2 * np.pi)
        boxes = _turn(boxes, angles)
    return _terrain(ground, boxes)


def hexagon_track(
    rng: np.random.Generator, displacements: Sequence[float], spacing: float, roughness: float = 0.0
) -> Terrain:
    """Draw a track of deformed hexagons (Portelas et al. 2019, Hexagon Tracks).

    Each hexagon is the convex hull of the six corners of `HEXAGON`, moved by ``N(displacements, 0.1)``; the
    first and the last corner stay on the ground.

    Args:
        rng: source of every random number.
        displacements: twelve numbers, (x, y) of each corner, in terrain steps.
        spacing: flat ground between the room of one hexagon (one unit) and the next, at least 0.01.
        roughness: how much the flat parts differ in height, see `_ground`.
    """
    spacing = max(MIN_SPACING, spacing)
    count = math.ceil((TERRAIN_END - START_PAD) / (HEXAGON_ROOM + spacing))
    moves = rng.normal(np.reshape(displacements, (6, 2)), SIZE_NOISE, (count, 6, 2))
    moves[:, [0, -1], 1] = 0.0
    ground, corners = _ground(rng, np.full(count, HEXAGON_ROOM), spacing, roughness)
    points = corners[:, None, :] + TERRAIN_STEP * (HEXAGON + moves)
    return _terrain(ground, np.array([_convex_hull(polygon) for polygon in points.tolist()]))


def stump_sequence_track(
    rng: np.random.Generator, sizes: Sequence[float], spacing: float, roughness: float = 0.0
) -> Terrain:
    """Draw a track that repeats a sequence of adjacent boxes (Portelas et al. 2019, stump sequences).

    Args:
        rng: source of every random number.
        sizes: (height, width) of each box in turn, heights in terrain steps, widths in world units; each is
            ``max(0.05, N(size, 0.1))``.
        spacing: flat ground between two sequences, at least 0.01.
        roughness: how much the flat parts differ in height, see `_ground`.
    """
    spacing = max(MIN_SPACING, spacing)
    pairs = np.reshape(sizes, (-1, 2))
    count = math.ceil((TERRAIN_END - START_PAD) / (len(pairs) * MIN_SIZE + spacing))
    drawn = _sizes(rng, np.broadcast_to(pairs, (count, *pairs.shape)))
    widths = drawn[:, :, 1]
    totals = _until_end(widths.sum(axis=1), spacing)
    drawn, widths = drawn[: len(totals)], widths[: len(totals)]
    ground, corners = _ground(rng, totals, spacing, roughness)
    lefts = np.repeat(corners[:, None, :], len(pairs), axis=1)
    lefts[:, 1:, 0] += np.cumsum(widths, axis=1)[:, :-1]
    boxes = _boxes(lefts.reshape(-1, 2), widths.ravel(), TERRAIN_STEP * drawn[:, :, 0].ravel())
    return _terrain(ground, boxes)


def _sizes(rng: np.random.Generator, means: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(MIN_SIZE, rng.normal(means, SIZE_NOISE))


def _until_end(widths: NDArray[np.float64], spacing: float) -> NDArray[np.float64]:
    """Keep the obstacles that begin before the end of the terrain."""
    begins = START_PAD + np.concatenate([[0.0], np.cumsum(widths + spacing)[:-1]])
    return widths[begins < TERRAIN_END]


def _ground(
    rng: np.random.Generator, widths: NDArray[np.float64], spacing: float, roughness: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ground's corners and the left base point of each obstacle.

    The flat part after obstacle k lies at height ``y <- y + v``, where
    ``v <- 0.8 v + 0.01 sign(y0 - y) + U(-roughness, roughness) / 30``; the ground under the obstacle slopes
    there. The ground runs on after the last obstacle, so that it always reaches past the finish.
    """
    begins = START_PAD + np.concatenate([[0.0], np.cumsum(widths + spacing)[:-1]])
    levels = np.full(len(widths) + 1, GROUND_HEIGHT)
    if roughness > 0:
        level, velocity = GROUND_HEIGHT, 0.0
        for k, push in enumerate(rng.uniform(-roughness, roughness, len(widths)) / SCALE, start=1):
            velocity = 0.8 * velocity + 0.01 * np.sign(GROUND_HEIGHT - level) + push
            levels[k] = level = level + velocity
    corners = np.stack([begins, levels[:-1]], axis=1)
    ends = np.stack([begins + widths, levels[1:]], axis=1)
    last = (max(TERRAIN_END, float(ends[-1, 0])) + spacing, levels[-1])
    inner = np.stack([corners, ends], axis=1).reshape(-1, 2)
    return np.concatenate([[(0.0, GROUND_HEIGHT)], inner, [last]]), corners


def _boxes(
    corners: NDArray[np.float64], widths: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    boxes = np.repeat(corners[:, None, :], 4, axis=1)
    boxes[:, 1:3, 0] += widths[:, None]
    boxes[:, 2:, 1] += heights[:, None]
    return boxes


def _turn(boxes: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn each box counter-clockwise about the middle of its base."""
    pivots = boxes[:, :2].mean(axis=1, keepdims=True)
    x, y = np.moveaxis(boxes - pivots, 2, 0)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return pivots + np.stack([cos * x - sin * y, sin * x + cos * y], axis=2)


def _convex_hull(points: list[list[float]]) -> list[list[float]]:
    """Return the convex hull counter-clockwise, its last corner repeated up to the number of points."""
    hull: list[list[float]] = []
    # Andrew's monotone chain: the lower side from left to right, then the upper side back.
    for side in (sorted(points), sorted(points, reverse=True)):
        base = len(hull)
        for x, y in side:
            while len(hull) - base >= 2:
                (ax, ay), (bx, by) = hull[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 1e-9:
                    break
                hull.pop()
            hull.append([x, y])
        hull.pop()
    return hull + [hull[-1]] * (len(points) - len(hull))


def _terrain(ground: NDArray[np.float64], obstacles: NDArray[np.float64]) -> Terrain:
    ordered = obstacles[np.argsort(obstacles[:, :, 0].min(axis=1), kind="stable")]
    return Terrain(
        ground.astype(np.float32).astype(np.float64), ordered.astype(np.float32).astype(np.float64)
    )
