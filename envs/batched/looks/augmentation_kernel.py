"""Shift, colours and cut-outs of RGB in one pass over each image: what `ImageAugmentation` runs on a CPU.

Bytes stay as they lie in memory, red, green and blue in turn, and every loop goes along them, so that the
compiler makes vector instructions of it: about ten times as fast as the same in batched tensor operations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tutelage.envs.batched.cameras.ray_caster import kernel

Array = np.ndarray[Any, Any]


@kernel
def _shift(image: Array, dy: int, dx: int, out: Array) -> None:
    """Move an image by whole pixels, its border repeated."""
    height, bytes_ = image.shape
    width = bytes_ // 3
    low, high = min(max(0, -dx), width), max(min(width, width - dx), 0)
    for y in range(height):
        source, row = image[min(max(y + dy, 0), height - 1)], out[y]
        for x in range(low):
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = source[0], source[1], source[2]
        row[3 * low : 3 * high] = source[3 * (low + dx) : 3 * (high + dx)]
        for x in range(high, width):
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = source[-3], source[-2], source[-1]


@kernel
def _inside(box: Array, height: int, width: int) -> tuple[int, int, int, int]:
    """Rows and columns, from and below, of the pixels whose centres are inside (top, bottom, left, right)."""
    first_row, last_row = math.floor(box[0] - 0.5) + 1, math.ceil(box[1] - 0.5) - 1
    first, last = math.floor(box[2] - 0.5) + 1, math.ceil(box[3] - 0.5) - 1
    return max(first_row, 0), min(last_row, height - 1) + 1, max(first, 0), min(last, width - 1) + 1


@kernel
def _mean_colour(image: Array, sums: Array, mean: Array) -> None:
    """Mean red, green and blue; ``sums`` (3 w) is room to work in."""
    height, bytes_ = image.shape
    sums[:] = 0
    for y in range(height):
        row = image[y]
        for x in range(bytes_):
            sums[x] += row[x]
    mean[:] = 0
    for x in range(bytes_):
        mean[x % 3] += np.float32(sums[x]) / np.float32(height * bytes_ // 3)


@kernel
def _map_colours(
    image: Array, colour_map: Array, lift: float, factors: Array, padded: Array, out: Array
) -> None:
    """Multiply the colours by a matrix, and add `lift`.

    ``factors`` (5, 3 w) and ``padded`` (3 w + 4, finite numbers) are room to work in.
    """
    height, count = image.shape
    # The colours of byte x's pixel are in the bytes x - 2 to x + 2; those of other pixels count 0 times.
    for x in range(count):
        for k in range(5):
            other = x % 3 + k - 2
            factors[k, x] = colour_map[x % 3, other] if 0 <= other < 3 else np.float32(0.0)
    rounded = np.float32(lift + 0.5)
    for y in range(height):
        row, target = image[y], out[y]
        for x in range(count):
            padded[x + 2] = row[x]
        for x in range(count):
            value = (
                factors[0, x] * padded[x]
                + factors[1, x] * padded[x + 1]
                + factors[2, x] * padded[x + 2]
                + factors[3, x] * padded[x + 3]
                + factors[4, x] * padded[x + 4]
                + rounded
            )
            target[x] = np.uint8(np.int32(min(max(value, np.float32(0.0)), np.float32(255.0))))


@kernel
def _fill(image: Array, box: Array, colour: Array) -> None:
    """Fill a box."""
    height, bytes_ = image.shape
    first_row, end_row, first, end = _inside(box, height, bytes_ // 3)
    half = np.float32(0.5)
    red, green, blue = np.uint8(colour[0] + half), np.uint8(colour[1] + half), np.uint8(colour[2] + half)
    for y in range(first_row, end_row):
        row = image[y]
        for x in range(first, end):
            row[3 * x], row[3 * x + 1], row[3 * x + 2] = red, green, blue


@kernel
def augment(
    images: Array,
    offsets: Array,
    maps: Array,
    lifts: Array,
    boxes: Array,
    fills: Array,
    out: Array,
) -> None:
    """Write augmented images into `out`.

    Boxes are (top, bottom, left, right) in pixels; inside are pixels whose centre is.

    Args:
        images: uint8 ``(n, height, 3 * width)``.
        offsets: int64 ``(n, 2)``: the pixel at (y, x) is then the one at (y, x) + offset; borders repeat.
        maps: float32 ``(n, 3, 3)``: colours are multiplied by it.
        lifts: float32 ``(n, 3)``: times the image's mean red, green and blue, their sum is added to all.
        boxes: float32 ``(c, n, 4)``: boxes that are filled in the end.
        fills: float32 ``(c, n, 3)``: with which colours, 0 to 255.
        out: uint8 ``(n, height, 3 * width)``.
    """
    n, height, bytes_ = images.shape
    moved, sums, mean = (
        np.empty((height, bytes_), np.uint8),
        np.empty(bytes_, np.int32),
        np.empty(3, np.float32),
    )
    factors, padded = np.empty((5, bytes_), np.float32), np.zeros(bytes_ + 4, np.float32)
    for i in range(n):
        _shift(images[i], offsets[i, 0], offsets[i, 1], moved)
        _mean_colour(moved, sums, mean)
        lift = lifts[i, 0] * mean[0] + lifts[i, 1] * mean[1] + lifts[i, 2] * mean[2]
        _map_colours(moved, maps[i], lift, factors, padded, out[i])
        for c in range(len(boxes)):
            _fill(out[i], boxes[c, i], fills[c, i])
