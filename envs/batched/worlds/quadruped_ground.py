"""The ground of `QuadrupedTerrain`: a corridor of boxes whose heights differ between environments.

The corridor runs along x, from a flat platform over `COLUMNS` columns of `LANES` cells to another one. A
cell is a static box of fixed size, moved up and down through the model field ``geom_pos``; so one model
serves all terrains, on both simulators, and heights of the ground anywhere are one gather, without rays.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

CELL = 0.3  # m, side of an inner cell
COLUMNS, LANES = 20, 5  # the lanes at both sides are wide, so that nothing walks off the corridor
FIRST = 0.6  # m, where the first column begins; the platform before it reaches back to FIRST - PLATFORM
PLATFORM, SIDE = 3.0, 2.0  # m: length of a platform, width of a lane at the side
HALF_DEPTH = 0.35  # m: half the height of a box, more than half the highest stairs
STAIRS = (1, 2, 3, 4, 4, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 4, 4, 3, 2, 1)  # height of each column in steps
INNER = (LANES - 2) * CELL / 2  # m, y where the lanes at the sides begin
END = FIRST + COLUMNS * CELL  # m, where the last platform begins


def add_ground(world: mujoco.MjsBody) -> None:
    """Add the boxes to the world, at height 0; they collide with geoms of ``contype`` 1."""

    def box(name: str, x: float, y: float, half_x: float, half_y: float, shade: float) -> None:
        world.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[half_x, half_y, HALF_DEPTH],
            pos=[x, y, -HALF_DEPTH],
            contype=0,
            conaffinity=1,
            rgba=[0.62 * shade, 0.58 * shade, 0.5 * shade, 1],
        )

    box("platform_start", FIRST - PLATFORM / 2, 0, PLATFORM / 2, INNER + SIDE, 1.0)
    box("platform_end", END + PLATFORM / 2, 0, PLATFORM / 2, INNER + SIDE, 1.0)
    for column in range(COLUMNS):
        for lane in range(LANES):
            side = (lane == LANES - 1) - (lane == 0)
            half = SIDE / 2 if side else CELL / 2
            y = side * (INNER + half) if side else (lane - (LANES - 1) / 2) * CELL
            shade = 1.0 if (column + lane) % 2 else 0.8  # a chequerboard: cells tell themselves apart
            box(f"cell{column}_{lane}", FIRST + (column + 0.5) * CELL, y, CELL / 2, half, shade)


def stair_profile(device: torch.device | str = "cpu") -> Tensor:
    """Height of every cell's stair in steps, float32 ``(COLUMNS * LANES,)``: what `draw_heights` needs."""
    return torch.tensor(STAIRS, dtype=torch.float32, device=device).repeat_interleave(LANES)


def draw_heights(uniform: Tensor, roughness: Tensor, step_height: Tensor, stairs: Tensor) -> Tensor:
    """Heights of all cells: stairs, and on each cell a random height of its own.

    Args:
        uniform: random numbers in [0, 1), shape ``(n, COLUMNS * LANES)``.
        roughness: of which a cell is at most this much higher than its stair, m, shape ``(n,)``.
        step_height: of the stairs, m, shape ``(n,)``.
        stairs: of `stair_profile`, on the same device.

    Returns:
        Metres, shape ``(n, (COLUMNS + 2) * LANES)``: by column, platforms (of height 0) included.
    """
    cells = step_height[:, None] * stairs + roughness[:, None] * uniform
    return torch.nn.functional.pad(cells, (LANES, LANES))


def ground_height(heights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Height of the ground below points.

    Args:
        heights: of `draw_heights`, shape ``(n, (COLUMNS + 2) * LANES)``.
        x, y: of the points, m, shape ``(n, k)``.

    Returns:
        Metres, shape ``(n, k)``; beyond the corridor that of its nearest cell.
    """
    column = ((x - FIRST) / CELL).floor().clamp(-1, COLUMNS) + 1
    lane = ((y + INNER) / CELL).floor().clamp(-1, LANES - 2) + 1
    return heights.gather(1, (column * LANES + lane).long())
