"""Pictures of the task space: where a task teacher proposes, what it holds, and what the student masters.

Drawn at every evaluation, hence with matplotlib's Agg canvas alone: no pyplot, no global state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.envs.contract.tasks import Axis, TaskSpace

COLOURS = "viridis"  # even in lightness, so that colour-blind readers and grey prints see it too
INK, PALE, _DRAWN = "#222222", "#d9d9d9", "#d55e00"
DPI = 100


def task_space_picture(
    space: TaskSpace,
    proposals: ArrayLike,
    returns: ArrayLike | None,
    picture: Mapping[str, Any],
    test_tasks: ArrayLike,
    mastery: ArrayLike,
    size: tuple[int, int] = (900, 420),
) -> NDArray[np.uint8]:
    """Draw the task teacher's recent tasks on the left, the student's mastery of the test tasks on the right.

    In one dimension the left panel is a histogram of the tasks, their returns above it; in two the tasks
    are dots over the task space, with the task teacher's Gaussians (outline at two standard deviations) and
    boxes; in more, the first two dimensions so, and below them a histogram of every dimension.

    Args:
        space: the task space, with at least one axis.
        proposals: recent tasks, the oldest first, shape ``(n, d)``; n may be 0.
        returns: their returns, shape ``(n,)``, which colour them; None where not known.
        picture: `TaskTeacher.picture()`; unknown keys are passed over.
        test_tasks: the fixed test tasks, shape ``(m, d)``.
        mastery: on each, shape ``(m,)``: success from 0 to 1, or a return; NaN is drawn pale.
        size: width and height in pixels.

    Returns:
        Image of shape ``(height, width, 3)``, uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dims = space.axes
    tasks = np.asarray(proposals, dtype=np.float64).reshape(-1, len(dims))
    coloured = None if returns is None or len(tasks) == 0 else np.asarray(returns, dtype=np.float64)
    tests = np.asarray(test_tasks, dtype=np.float64).reshape(-1, len(dims))
    scores = np.asarray(mastery, dtype=np.float64)

    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    deep = len(dims) > 2
    bottom = 0.42 if deep else 0.13
    height = 0.89 - bottom
    left = _panel(figure, (0.065, bottom, 0.34, height))
    right = _panel(figure, (0.565, bottom, 0.34, height))
    if len(dims) == 1:
        _task_histogram(left, dims, tasks, coloured)
        _outlines_1d(left, dims, picture)
    else:
        dots = _task_dots(left, dims, tasks, coloured)
        if dots is not None:
            colour_bar(figure, dots, (0.415, bottom, 0.012, height), "return")
        _outlines_2d(left, picture)

    binary = is_success(scores)
    cells = _test_cells(right, dims, tests, scores, binary)
    if cells is not None:
        colour_bar(figure, cells, (0.915, bottom, 0.012, height), "success" if binary else "return")

    last = f"last {len(tasks)} tasks" if len(tasks) else "no task yet"
    # Text of the figure, not titles of the axes, whose place is worked out from all their ticks.
    for x, title in ((0.065, f"Task teacher: {last}"), (0.565, mastery_summary(scores, binary))):
        figure.text(x, 0.925, title, fontsize=11, color=INK)
    if deep:
        _histograms(figure, dims, tasks)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _panel(figure: Any, where: tuple[float, float, float, float], ticks: int = 6) -> Any:
    """Axes with few and small ticks: they are most of the drawing time."""
    axes = figure.add_axes(where)
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.locator_params(nbins=ticks)
    for spine in axes.spines.values():
        spine.set_color("#999999")
    return axes


def is_success(scores: NDArray[np.float64]) -> bool:
    """Tell whether all known scores lie from 0 to 1, as success does and returns hardly ever."""
    return bool(np.isnan(scores).all() or (np.nanmin(scores) >= 0 and np.nanmax(scores) <= 1))


def mastery_summary(scores: NDArray[np.float64], binary: bool) -> str:
    """What the student achieves on the test tasks, in words."""
    known = scores[np.isfinite(scores)]
    if len(known) == 0:
        return "Student: not evaluated yet"
    if binary:
        return f"Student: {100 * known.mean():.0f} % of {len(scores)} test tasks mastered"
    return f"Student: mean return {known.mean():.4g}, {len(scores)} test tasks"


def _name_axes(axes: Any, dims: tuple[Axis, ...], two: bool) -> None:
    labels = [axis.name.replace("_", " ") for axis in dims]
    axes.set_xlim(dims[0].low, dims[0].high)
    axes.set_xlabel(labels[0], fontsize=9)
    if dims[0].whole:
        axes.locator_params(axis="x", integer=True)
    if two:
        axes.set_ylim(dims[1].low, dims[1].high)
        axes.set_ylabel(labels[1], fontsize=9)


def colour_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Colour range without the outliers that would wash out all others."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return 0.0, 1.0
    low, high = np.percentile(known, [2, 98])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def _task_dots(
    axes: Any, dims: tuple[Axis, ...], tasks: NDArray[np.float64], returns: NDArray[np.float64] | None
) -> Any:
    _name_axes(axes, dims, two=True)
    if returns is None:
        axes.plot(tasks[:, 0], tasks[:, 1], ".", color=INK, markersize=4, alpha=0.6)
        return None
    low, high = colour_range(returns)
    return axes.scatter(
        tasks[:, 0],
        tasks[:, 1],
        c=returns,
        s=14,
        cmap=COLOURS,
        vmin=low,
        vmax=high,
        linewidths=0,
        clip_on=False,
    )


def _task_histogram(axes: Any, dims: tuple[Axis, ...], tasks: NDArray[np.float64], returns: Any) -> None:
    axes.hist(tasks[:, 0], bins=list(dims[0].edges(30)), color="#8fa8c8")
    _name_axes(axes, dims, two=False)
    axes.set_ylabel("tasks", fontsize=9)
    if returns is not None:
        above = axes.twinx()
        above.tick_params(labelsize=8, colors=INK, length=3)
        above.plot(tasks[:, 0], returns, ".", color=INK, markersize=4, alpha=0.6)
        above.set_ylabel("return (dots)", fontsize=9)
        above.set_xlim(dims[0].low, dims[0].high)


def _outlines_2d(axes: Any, picture: Mapping[str, Any]) -> None:
    """Gaussians as ellipses at two standard deviations, boxes as rectangles; the heavier, the bolder."""
    from matplotlib.collections import LineCollection

    outlines, weights = [], []
    if "gaussians" in picture:
        circle = np.linspace(0, 2 * np.pi, 65)
        around = np.stack([np.cos(circle), np.sin(circle)])
        mixture = picture["gaussians"]
        for mean, covariance in zip(mixture["means"], mixture["covariances"], strict=True):
            values, vectors = np.linalg.eigh(np.asarray(covariance)[:2, :2])
            outlines.append(np.asarray(mean)[:2] + (vectors * 2 * np.sqrt(np.maximum(values, 0)) @ around).T)
        weights += list(mixture["weights"])
    if "boxes" in picture:
        boxes = picture["boxes"]
        for low, high in zip(boxes["low"], boxes["high"], strict=True):
            outlines.append(
                np.array(
                    [[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]], low[:2]]
                )
            )
        weights += list(boxes["weights"])
    if outlines:
        widths = 0.8 + 2.2 * np.asarray(weights) / max(float(np.max(weights)), 1e-12)
        axes.add_collection(LineCollection(outlines, colors=_DRAWN, linewidths=widths, alpha=0.9))


def _outlines_1d(axes: Any, dims: tuple[Axis, ...], picture: Mapping[str, Any]) -> None:
    """Gaussians as densities scaled to the panel, boxes as shaded spans."""
    top = axes.get_ylim()[1]
    if "gaussians" in picture:
        at = np.linspace(dims[0].low, dims[0].high, 200)
        mixture = picture["gaussians"]
        mean, variance = np.asarray(mixture["means"])[:, 0], np.asarray(mixture["covariances"])[:, 0, 0]
        peaks = np.asarray(mixture["weights"]) / np.sqrt(variance)
        bells = peaks[:, None] * np.exp(-((at - mean[:, None]) ** 2) / (2 * variance[:, None]))
        axes.plot(at, (0.95 * top / bells.max() * bells).T, color=_DRAWN, linewidth=1.5)
    if "boxes" in picture:
        boxes = picture["boxes"]
        weights = np.asarray(boxes["weights"]) / max(float(np.max(boxes["weights"])), 1e-12)
        for low, high, weight in zip(boxes["low"], boxes["high"], weights, strict=True):
            axes.axvspan(
                low[0], high[0], facecolor=_DRAWN, alpha=0.05 + 0.3 * float(weight), edgecolor=_DRAWN
            )


def _grid_sides(tests: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Coordinates along the first two dimensions when the test tasks fill a grid there; else None."""
    sides = [np.unique(np.round(tests[:, i], 9)) for i in range(2)]
    full = len(np.unique(np.round(tests[:, :2], 9), axis=0)) == len(sides[0]) * len(sides[1])
    return (sides[0], sides[1]) if full and min(map(len, sides)) > 1 else None


def _edges(centres: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return np.concatenate([[low], (centres[1:] + centres[:-1]) / 2, [high]])


def _test_cells(
    axes: Any, dims: tuple[Axis, ...], tests: NDArray[np.float64], scores: NDArray[np.float64], binary: bool
) -> Any:
    """Mean score in each cell of the test tasks' grid, or a dot for each task where they make no grid."""
    from matplotlib import colormaps

    _name_axes(axes, dims, two=len(dims) > 1)
    low, high = (0.0, 1.0) if binary else colour_range(scores)
    if len(dims) == 1:
        axes.scatter(
            tests[:, 0],
            scores,
            c=scores,
            cmap=COLOURS,
            vmin=low,
            vmax=high,
            s=30,
            edgecolors=INK,
            linewidths=0.5,
        )
        axes.set_ylabel("success" if binary else "return", fontsize=9)
        if binary:
            axes.set_ylim(-0.05, 1.05)
        return None
    axes.set_facecolor(PALE)
    sides = _grid_sides(tests)
    if sides is None:
        # Those best mastered last, so that a pile of dots does not hide them.
        order = np.argsort(np.where(np.isfinite(scores), scores, -np.inf))
        return axes.scatter(
            *tests[order, :2].T,
            c=scores[order],
            cmap=COLOURS,
            vmin=low,
            vmax=high,
            s=30,
            edgecolors="white",
            linewidths=0.4,
        )
    rows = [np.searchsorted(side, np.round(tests[:, i], 9)) for i, side in enumerate(sides)]
    totals, counts = np.zeros((2, len(sides[0]), len(sides[1])))
    known = np.isfinite(scores)
    np.add.at(totals, (rows[0][known], rows[1][known]), scores[known])
    np.add.at(counts, (rows[0][known], rows[1][known]), 1)
    cells = np.ma.masked_invalid(np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)).T
    edges = [_edges(side, float(dims[i].low), float(dims[i].high)) for i, side in enumerate(sides)]
    colours = colormaps[COLOURS].with_extremes(bad=PALE)
    return axes.pcolormesh(
        *edges, cells, cmap=colours, vmin=low, vmax=high, edgecolors="white", linewidth=0.4
    )


def colour_bar(figure: Any, coloured: Any, where: tuple[float, float, float, float], label: str) -> None:
    """Colour scale beside a panel; plain text instead of ticks, which takes a fraction of the time."""
    x, y, width, height = where
    axes = figure.add_axes(where, xticks=[], yticks=[], frame_on=False)
    axes.imshow(np.linspace(0, 1, 128)[:, None], cmap=coloured.get_cmap(), origin="lower", aspect="auto")
    low, high = coloured.get_clim()
    for share in (0.0, 0.5, 1.0):
        text = f"{low + share * (high - low):.3g}"
        figure.text(x + width + 0.004, y + share * height, text, fontsize=8, color=INK, va="center")
    figure.text(x + width + 0.038, y + height / 2, label, fontsize=9, rotation=90, va="center", ha="center")


def _histograms(figure: Any, dims: tuple[Axis, ...], tasks: NDArray[np.float64]) -> None:
    """A strip below the panels: how often each value of each dimension was proposed."""
    shown = min(len(dims), 8)
    width = 0.857 / shown
    for i in range(shown):
        axes = _panel(figure, (0.065 + i * width, 0.11, width * 0.86, 0.15), ticks=4)
        axes.hist(tasks[:, i], bins=list(dims[i].edges(20)), color="#8fa8c8")
        axes.set_xlim(dims[i].low, dims[i].high)
        axes.set_yticks([])
        axes.set_xlabel(dims[i].name.replace("_", " "), fontsize=8)
