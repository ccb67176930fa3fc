"""Pictures of task spaces by what the space offers: a map of tasks on its axes, or else a gallery of levels.

The space draws its levels itself; frames around them show how the student did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.envs.contract.levels import DrawsTasks
from tutelage.envs.contract.tasks import Tasks, TaskSpace
from tutelage.experiments.tensorboard.pictures import (
    COLOURS,
    DPI,
    INK,
    PALE,
    colour_bar,
    colour_range,
    is_success,
    mastery_summary,
    task_space_picture,
)

_COLUMNS = 5
_SHOWN = _COLUMNS**2  # levels in each half
_SIDE = 48  # pixels that a level gets at least


def draw_task_space(
    space: TaskSpace,
    proposals: Tasks,
    returns: ArrayLike | None,
    picture: Mapping[str, Any],
    test_tasks: Tasks,
    mastery: ArrayLike,
    size: tuple[int, int] = (900, 420),
) -> NDArray[np.uint8] | None:
    """Draw recent tasks and what the student masters, as far as the space can be drawn.

    Args:
        space, proposals, returns, picture, test_tasks, mastery, size: as in `task_space_picture`.

    Returns:
        Image of shape ``(height, width, 3)``; None where the space has neither axes nor a gallery.
    """
    if space.axes:
        return task_space_picture(space, proposals, returns, picture, test_tasks, mastery, size)
    if isinstance(space, DrawsTasks):
        return level_gallery(space, proposals, returns, test_tasks, mastery, size)
    return None


def level_gallery(
    space: DrawsTasks,
    proposals: Tasks,
    returns: ArrayLike | None,
    test_tasks: Tasks,
    mastery: ArrayLike,
    size: tuple[int, int] = (900, 420),
) -> NDArray[np.uint8]:
    """Draw the most recent levels on the left, the hardest test levels on the right, 25 of each at most.

    Args:
        space: draws its levels.
        proposals: recent levels, the oldest first, shape ``(n, ...)``; n may be 0. The newest comes first.
        returns: their returns, ``(n,)``, which colour the frames; None where not known.
        test_tasks: the fixed test levels, shape ``(m, ...)``.
        mastery: on each, ``(m,)``: success from 0 to 1, or a return; those not evaluated are framed pale
            and come last.
        size: width and height in pixels.

    Returns:
        Image of shape ``(height, width, 3)``, uint8.

    Raises:
        ValueError: when the space's gallery is none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = np.asarray(mastery, dtype=np.float64)
    known = np.full(len(proposals), np.nan) if returns is None else np.asarray(returns, dtype=np.float64)
    newest, hardest = np.arange(len(proposals))[::-1][:_SHOWN], np.argsort(scores)[:_SHOWN]
    binary = is_success(scores)
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    last = f"last {len(newest)} levels, newest first" if len(newest) else "no level yet"
    halves = (
        (0.03, f"Task teacher: {last}", proposals[newest], known[newest], colour_range(known), "return"),
        (
            0.53,
            f"{mastery_summary(scores, binary)}, hardest first",
            test_tasks[hardest],
            scores[hardest],
            (0.0, 1.0) if binary else colour_range(scores),
            "success" if binary else "return",
        ),
    )
    for x, title, tasks, values, limits, label in halves:
        figure.text(x, 0.925, title, fontsize=10, color=INK)
        if len(tasks):
            _draw_levels(figure, x, _pictures_of(space, tasks), values, limits, label)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _pictures_of(space: DrawsTasks, tasks: Tasks) -> NDArray[np.uint8]:
    drawn = np.asarray(space.gallery(tasks))
    if drawn.ndim != 4 or drawn.shape[0] != len(tasks) or drawn.shape[-1] != 3 or drawn.dtype != np.uint8:
        raise ValueError(
            f"{type(space).__name__}.gallery drew {len(tasks)} tasks as an array of shape {drawn.shape} and "
            f"type {drawn.dtype}; it must return (n, height, width, 3) of uint8"
        )
    return drawn


def _draw_levels(
    figure: Any,
    x: float,
    pictures: NDArray[np.uint8],
    values: NDArray[np.float64],
    limits: tuple[float, float],
    label: str,
) -> None:
    """A sheet of framed levels, row by row, with a colour scale where a value is known."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    frames = ScalarMappable(cmap=colormaps[COLOURS].with_extremes(bad=PALE))
    frames.set_clim(*limits)
    colours = frames.to_rgba(np.ma.masked_invalid(values), bytes=True)[:, :3]
    axes = figure.add_axes((x, 0.04, 0.38, 0.85), xticks=[], yticks=[], frame_on=False)
    axes.set_anchor("N")
    axes.imshow(level_sheet(pictures, np.asarray(colours, np.uint8)), interpolation="nearest")
    if np.isfinite(values).any():
        colour_bar(figure, frames, (x + 0.385, 0.04, 0.012, 0.85), label)


def level_sheet(pictures: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Arrange pictures on a sheet of five columns, each in a frame of its colour.

    Args:
        pictures: ``(n, height, width, 3)``, n at least 1.
        colours: of the frames, ``(n, 3)``.

    Returns:
        The sheet, ``(rows * h, 5 * w, 3)``: a picture takes h by w pixels with its frame and a white gap.
    """
    factor = max(1, _SIDE // max(pictures.shape[1:3]))
    large = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    n, height, width, _ = large.shape
    gap, inner = 2, 6  # white pixels around a frame; those and the frame
    rows = -(-n // _COLUMNS)
    tiles = np.full((rows * _COLUMNS, height + 2 * inner, width + 2 * inner, 3), 255, np.uint8)
    tiles[:n, gap:-gap, gap:-gap] = colours[:, None, None]
    tiles[:n, inner:-inner, inner:-inner] = large
    grid = tiles.reshape(rows, _COLUMNS, *tiles.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * tiles.shape[1], _COLUMNS * tiles.shape[2], 3)
