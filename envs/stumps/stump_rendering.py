"""Pictures of the Box2D tracks, drawn with Pillow: no window, no OpenGL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.stumps.stump_lidar import RAYS
from tutelage.envs.stumps.stump_terrain import FINISH, GROUND_HEIGHT, SCALE, Terrain

WIDTH, HEIGHT = 600, 400
SKY, GROUND, GROUND_LINE = (226, 235, 248), (111, 153, 92), (72, 108, 60)
OBSTACLE, OBSTACLE_LINE = (150, 144, 140), (84, 80, 78)
HULL, NEAR_LEG, FAR_LEG, BODY_LINE = (127, 102, 229), (178, 112, 152), (128, 68, 112), (60, 48, 92)
FLAG, POLE, RAY = (230, 60, 30), (50, 50, 50), (235, 90, 90)

Polygon = Sequence[tuple[float, float]]


def draw_track(
    terrain: Terrain, parts: Iterable[Polygon], hull: tuple[float, float], lidar: NDArray[np.float64] | None
) -> NDArray[np.uint8]:
    """Draw what a camera sees that keeps the walker at a fifth of the picture's width.

    Args:
        terrain: ground and obstacles.
        parts: the walker's polygons in world units, hull first, then far and near legs in turn.
        hull: the hull's centre.
        lidar: fractions of the rays to draw, shape ``(10,)``, or None.

    Returns:
        The picture, shape ``(400, 600, 3)``.
    """
    from PIL import Image, ImageDraw

    left = hull[0] - WIDTH / SCALE / 5
    right = left + WIDTH / SCALE

    def pixels(points: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
        return [((x - left) * SCALE, HEIGHT - y * SCALE) for x, y in points]

    image = Image.new("RGB", (WIDTH, HEIGHT), SKY)
    draw = ImageDraw.Draw(image)

    for obstacle in terrain.obstacles:
        if obstacle[:, 0].min() < right and obstacle[:, 0].max() > left:
            draw.polygon(pixels(obstacle), fill=OBSTACLE, outline=OBSTACLE_LINE)
    xs = terrain.ground[:, 0]
    seen = terrain.ground[max(0, np.searchsorted(xs, left) - 1) : np.searchsorted(xs, right) + 1]
    surface = pixels(seen)
    draw.polygon([(surface[0][0], HEIGHT), *surface, (surface[-1][0], HEIGHT)], fill=GROUND)
    draw.line(surface, fill=GROUND_LINE, width=2)

    (flag_x, flag_y), *_ = pixels([(FINISH, GROUND_HEIGHT)])
    draw.line([(flag_x, flag_y), (flag_x, flag_y - 60)], fill=POLE, width=2)
    draw.polygon([(flag_x, flag_y - 60), (flag_x, flag_y - 42), (flag_x + 30, flag_y - 51)], fill=FLAG)

    if lidar is not None:
        for fraction, (dx, dy) in zip(lidar.tolist(), RAYS.tolist(), strict=True):
            draw.line(pixels([hull, (hull[0] + fraction * dx, hull[1] + fraction * dy)]), fill=RAY)

    polygons = list(parts)
    legs = polygons[1:]
    half = len(legs) // 2
    for index, leg in enumerate(legs):
        draw.polygon(pixels(leg), fill=FAR_LEG if index < half else NEAR_LEG, outline=BODY_LINE)
    draw.polygon(pixels(polygons[0]), fill=HULL, outline=BODY_LINE)
    return np.asarray(image, dtype=np.uint8)
