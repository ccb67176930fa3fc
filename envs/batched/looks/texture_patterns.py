"""Procedural textures: grey bitmaps of two families that have no type of pattern in common.

`textures` puts them on geoms: the one family to train with, the other to see whether
that was enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TextureFamily = Literal["training", "held_out"]
Floats64 = NDArray[np.float64]
Pattern = Callable[[Floats64, Floats64, int, np.random.Generator], Floats64]

SIZE = 32
"""Texels on a side of a bitmap."""

VARIANTS = 4
"""Bitmaps of each type of pattern."""

_SEED = 20170907
_SHARPNESS = 4  # samples of a pattern along a texel's side


_DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))


def _checker(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    across, up = ((2, 2), (2, 4), (4, 2), (4, 4))[variant]
    return (np.floor(across * x) + np.floor(up * y)) % 2


def _stripes(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    across, up = _DIRECTIONS[variant]
    count, width = rng.integers(1, 3), rng.uniform(0.3, 0.7)
    return ((count * (across * x + up * y)) % 1 < width).astype(float)


def _dots(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    """In rows, or every second row shifted."""
    count, shift = ((1, 0.0), (2, 0.0), (2, 0.25), (2, 0.5))[variant]
    u, v = (count * x + shift * np.floor(count * y)) % 1 - 0.5, (count * y) % 1 - 0.5
    return (np.hypot(u, v) < rng.uniform(0.28, 0.42)).astype(float)


def _noise(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    """Clouds: waves of few periods, in all directions."""
    waves = [(i, j) for i in range(3) for j in range(-2, 3) if (i, j) > (0, 0)]
    clouds = sum(
        rng.normal() / math.hypot(i, j) * np.cos(2 * math.pi * (i * x + j * y + rng.uniform()))
        for i, j in waves
    )
    return np.asarray(clouds)


def _gradient(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    across, up = _DIRECTIONS[variant]
    return np.abs(2 * ((across * x + up * y) % 1) - 1) ** rng.uniform(0.7, 1.4)


def _bricks(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    """Of different shades, every second row shifted by half of one, in dark mortar."""
    rows, columns = ((2, 1), (4, 2), (4, 1), (2, 2))[variant]
    mortar, row = rng.uniform(0.06, 0.1), np.floor(rows * y).astype(int)
    along = (columns * x + 0.5 * (row % 2)) % columns
    shades = rng.uniform(0.5, 1.0, (rows, columns))[row, np.floor(along).astype(int)]
    joint = (along % 1 < mortar) | ((rows * y) % 1 < mortar * rows / columns)
    return np.where(joint, 0.0, shades)


def _marble(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    """Thin bent veins."""
    across, up = _DIRECTIONS[variant]
    bend = _noise(x, y, variant, rng)
    bend *= 0.3 / bend.std()
    return 1 - np.abs(np.sin(math.pi * (across * x + up * y + bend))) ** 0.5


def _rings(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    count = (2, 3, 4, 5)[variant]
    distance = np.hypot(x - 0.5, y - 0.5)
    return ((count * distance) % 1 < rng.uniform(0.4, 0.6)).astype(float)


def _zigzag(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    count, along, over = ((1, x, y), (2, x, y), (1, y, x), (2, y, x))[variant]
    bend = rng.uniform(0.4, 0.8) * np.abs(2 * ((count * along) % 1) - 1)
    return ((count * over + bend) % 1 < 0.5).astype(float)


def _cells(x: Floats64, y: Floats64, variant: int, rng: np.random.Generator) -> Floats64:
    """Every point has the shade of the nearest of a few (Voronoi)."""
    count = (4, 5, 7, 9)[variant]
    points, shades = rng.uniform(size=(count, 2)), rng.permutation(count) / (count - 1)
    across, up = ((axis[..., None] - points[:, i] + 0.5) % 1 - 0.5 for i, axis in enumerate((x, y)))
    return np.asarray(shades[np.hypot(across, up).argmin(-1)])


PATTERNS: dict[TextureFamily, dict[str, Pattern]] = {
    "training": {
        "checker": _checker,
        "stripes": _stripes,
        "dots": _dots,
        "noise": _noise,
        "gradient": _gradient,
    },
    "held_out": {
        "bricks": _bricks,
        "marble": _marble,
        "rings": _rings,
        "zigzag": _zigzag,
        "cells": _cells,
    },
}
"""Types of pattern: values of any range at (x, y) in [0, 1), where 0 follows on 1; and the variant."""


@cache
def make_bitmaps() -> dict[str, NDArray[np.uint8]]:
    """All bitmaps, ``<family>/<pattern>/<variant>`` -> ``(SIZE, SIZE)``, the same in every process.

    The lightest texel is white, the darkest has 30 to 60 % of that.
    """
    rng = np.random.default_rng(_SEED)
    points = (np.arange(SIZE * _SHARPNESS) + 0.5) / (SIZE * _SHARPNESS)
    x, y = np.meshgrid(points, points)
    bitmaps = {}
    for family, patterns in PATTERNS.items():
        for kind, pattern in patterns.items():
            for variant in range(VARIANTS):
                fine = pattern(x, y, variant, rng)
                values = fine.reshape(SIZE, _SHARPNESS, SIZE, _SHARPNESS).mean((1, 3))
                values = (values - values.min()) / np.ptp(values)
                if rng.uniform() < 0.5:
                    values = 1 - values
                dark = rng.uniform(0.3, 0.6)
                shades = np.round(255 * (dark + (1 - dark) * values)).astype(np.uint8)
                bitmaps[f"{family}/{kind}/{variant}"] = shades
    return bitmaps
