"""Plots of a comparison, as matplotlib `Figure` objects without pyplot and its global state.

Each function draws one figure from arrays that `runs` and `summary` prepared, and knows nothing of files.
Colours follow the task teacher through all figures, and can be told apart by colour-blind readers (palette
of Okabe and Ito, without its yellow); the baseline is always grey.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from tutelage.experiments.runs.reading import FloatArray, Grid
from tutelage.experiments.runs.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1a1a1a", "#5c5c5c", "#dcdcdc"
BASELINE = "#6b6b6b"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#332288", "#117733")
PARTS = {
    "environment": "#56b4e9",
    "student": "#0072b2",
    "task_teacher": "#d55e00",
    "evaluation": "#009e73",
    "other": "#bdbdbd",
}
"""Where the time of a run goes, with the colour of each part."""

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def colours(names: Sequence[str], baseline: str) -> dict[str, str]:
    """One colour for each of what is compared, in this order; the baseline grey."""
    others = [name for name in names if name != baseline]
    return {baseline: BASELINE} | {n: PALETTE[i % len(PALETTE)] for i, n in enumerate(others)}


P = ParamSpec("P")


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this module's style, and leave matplotlib's settings as they were."""

    @functools.wraps(draw)
    def styled(*args: P.args, **options: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # names are checked by matplotlib
            return draw(*args, **options)

    return styled


def _figure(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Figure, Any]:
    """A figure and its axes, always as a 2-D array."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _legend(figure: Figure, names: Sequence[str], palette: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=palette[name], linewidth=3, label=name) for name in names]
    room = 72 * figure.get_figwidth()
    columns = next(n for n in range(min(len(names), 8), 0, -1) if n == 1 or _legend_width(names, n) < room)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)


def _legend_width(names: Sequence[str], columns: int) -> float:
    """Points that a legend takes, about: a column's lines, and its longest name."""
    rows = -(-len(names) // columns)
    return sum(45 + 4.8 * max(map(len, names[i : i + rows])) for i in range(0, len(names), rows))


def _short_number(value: float, _: object = None) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def _score_axis(axis: Any, percent: bool) -> None:
    if percent:
        axis.set_ylim(-3, 103)


@_styled
def curves(
    panels: Sequence[tuple[str, dict[str, tuple[FloatArray, Estimate]]]],
    palette: dict[str, str],
    *,
    x_label: str,
    y_label: str,
    percent: bool,
    mark: float | None = None,
) -> Figure:
    """Lines with shaded intervals, one panel for each test set.

    Args:
        panels: title, and task teacher -> (x, estimates) with equal shapes; NaN leaves a gap.
        palette: task teacher -> colour.
        x_label, y_label: of all panels.
        percent: whether the vertical axis runs from 0 to 100.
        mark: where to draw a thin vertical line, e.g. at the step of the comparison.
    """
    figure, axes = _figure(4.6 * len(panels) + 0.6, 3.5, 1, len(panels), sharey=percent)
    for axis, (title, lines) in zip(axes[0], panels, strict=True):
        axis.set_title(title)
        axis.grid(True)
        for name, (x, e) in lines.items():
            axis.fill_between(x, e.low, e.high, color=palette[name], alpha=0.13, linewidth=0)
            axis.plot(x, e.value, color=palette[name], marker="o" if len(x) <= 30 else "", markersize=2.4)
        if mark is not None:
            axis.axvline(mark, color=MUTED, linewidth=0.8, linestyle=":")
        axis.set_xlabel(x_label)
        axis.xaxis.set_major_formatter(_short_number)
        _score_axis(axis, percent)
    axes[0, 0].set_ylabel(y_label)
    _legend(figure, list(panels[0][1]), palette)
    return figure


@_styled
def final_scores(
    panels: Sequence[tuple[str, dict[str, tuple[FloatArray, Estimate]]]],
    palette: dict[str, str],
    *,
    label: str,
    percent: bool,
) -> Figure:
    """Every run as a faint dot, its task teacher's IQM and interval over them.

    Args:
        panels: title, and task teacher -> (scores of the runs, estimate); may hold no runs.
        palette: task teacher -> colour.
        label: of the horizontal axis.
        percent: whether it runs from 0 to 100.
    """
    names = list(panels[0][1])
    figure, axes = _figure(4.6 * len(panels) + 0.6, 0.36 * len(names) + 1.0, 1, len(panels), sharey=True)
    for axis, (title, dots) in zip(axes[0], panels, strict=True):
        axis.set_title(title)
        axis.grid(True, axis="x")
        for height, (name, (runs, e)) in enumerate(dots.items()):
            spread = (
                height + np.linspace(-0.18, 0.18, len(runs)) if len(runs) > 1 else np.full(len(runs), height)
            )
            axis.scatter(runs, spread, s=16, color=palette[name], alpha=0.45, linewidths=0)
            _interval(axis, height, e, palette[name])
        axis.set_yticks(range(len(names)), names, color=INK)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlabel(label)
        if percent:
            axis.set_xlim(-3, 103)
    return figure


def _interval(axis: Axes, height: float, e: Estimate, colour: str) -> None:
    if np.isfinite(e.low):
        axis.plot([float(e.low), float(e.high)], [height, height], color=colour, linewidth=2.2)
    if np.isfinite(e.value):
        axis.plot(float(e.value), height, "D", color=colour, markersize=6.5, markeredgecolor="white")


@_styled
def improvement(chances: dict[str, Estimate], palette: dict[str, str], baseline: str) -> Figure:
    """Probability that a run of each task teacher beats a run of the baseline, with intervals."""
    figure, axes = _figure(5.6, 0.36 * len(chances) + 1.0, 1, 1)
    axis = axes[0, 0]
    axis.grid(True, axis="x")
    axis.axvline(0.5, color=MUTED, linewidth=1, linestyle="--")
    for height, (name, e) in enumerate(chances.items()):
        _interval(axis, height, e, palette[name])
    axis.set_yticks(range(len(chances)), list(chances), color=INK)
    axis.set_ylim(len(chances) - 0.4, -0.6)
    axis.set_xlim(-0.03, 1.03)
    axis.set_xlabel(f"probability that a run beats a run of {baseline}")
    return figure


@_styled
def profiles(
    panels: Sequence[tuple[str, FloatArray, dict[str, Estimate]]], palette: dict[str, str]
) -> Figure:
    """Performance profiles: share of scores above each threshold.

    Args:
        panels: label of the horizontal axis, thresholds, and task teacher -> estimates at them.
        palette: task teacher -> colour.
    """
    figure, axes = _figure(4.6 * len(panels) + 0.6, 3.3, 1, len(panels), sharey=True)
    for axis, (label, thresholds, lines) in zip(axes[0], panels, strict=True):
        axis.grid(True)
        for name, e in lines.items():
            axis.fill_between(thresholds, e.low, e.high, color=palette[name], alpha=0.13, linewidth=0)
            axis.plot(thresholds, e.value, color=palette[name])
        axis.set_xlabel(label)
        axis.set_ylim(-0.03, 1.03)
    axes[0, 0].set_ylabel("share above it")
    _legend(figure, list(panels[0][2]), palette)
    return figure


@_styled
def time_shares(seconds: dict[str, dict[str, float]], parts: dict[str, str] = PARTS) -> Figure:
    """Mean seconds of a run, one stacked bar for each of what is compared.

    Args:
        seconds: name -> part -> seconds.
        parts: part -> colour.
    """
    figure, axes = _figure(5.6, 0.36 * len(seconds) + 1.0, 1, 1)
    axis = axes[0, 0]
    axis.grid(True, axis="x")
    left = np.zeros(len(seconds))
    for part, colour in parts.items():
        width = np.array([times.get(part, 0.0) for times in seconds.values()])
        axis.barh(
            range(len(seconds)), width, left=left, height=0.62, color=colour, label=part.replace("_", " ")
        )
        left += width
    axis.set_yticks(range(len(seconds)), list(seconds), color=INK)
    axis.set_ylim(len(seconds) - 0.4, -0.6)
    axis.set_xlabel("seconds a run")
    figure.legend(loc="outside upper center", ncols=len(parts), handlelength=1, columnspacing=1)
    return figure


@_styled
def bars(values: dict[str, dict[str, Estimate]], palette: dict[str, str], *, label: str) -> Figure:
    """Bars with their intervals, side by side for each of what is compared.

    Args:
        values: name -> kind -> estimate; kinds may lack.
        palette: name -> colour.
        label: of the vertical axis.
    """
    kinds = list(dict.fromkeys(kind for estimates in values.values() for kind in estimates))
    figure, axes = _figure(max(5.6, 0.25 * len(kinds) * len(values) + 1.5), 2.9, 1, 1)
    axis, width = axes[0, 0], 0.8 / max(len(values), 1)
    axis.grid(True, axis="y")
    for i, (name, estimates) in enumerate(values.items()):
        for at, kind in enumerate(kinds):
            if kind in estimates and np.isfinite(estimates[kind].value):
                e, x = estimates[kind], at + (i - (len(values) - 1) / 2) * width
                axis.bar(x, float(e.value), width=0.92 * width, color=palette[name])
                if np.isfinite(e.low):
                    axis.plot([x, x], [float(e.low), float(e.high)], color=INK, linewidth=1)
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set_ylabel(label)
    _legend(figure, list(values), palette)
    return figure


def _image_of(tasks: FloatArray, values: FloatArray) -> FloatArray | None:
    """Values as an image ``(rows, columns)`` if the tasks' first two parameters form a full grid, else None.

    Tasks that differ only in later parameters are averaged.
    """
    x, column = np.unique(tasks[:, 0].round(9), return_inverse=True)
    y, row = np.unique(tasks[:, 1].round(9), return_inverse=True)
    count = np.zeros((len(y), len(x)))
    np.add.at(count, (row, column), 1)
    if min(len(x), len(y)) < 2 or not count.all():
        return None
    total = np.zeros_like(count)
    np.add.at(total, (row, column), values)
    return np.asarray(total / count)


def _window(grid: Grid, tasks: FloatArray) -> FloatArray:
    """Limits ``(2, 2)`` of a map: the task space, or the tasks' surroundings where they fill little of it."""
    bounds = grid.bounds[:2]
    low, high = tasks[:, :2].min(axis=0), tasks[:, :2].max(axis=0)
    if ((high - low) < 0.35 * (bounds[:, 1] - bounds[:, 0])).all() and (high > low).all():
        margin = 0.15 * (high - low)
        return np.stack([low - margin, high + margin], axis=1)
    return bounds


def _task_axes(axis: Axes, grid: Grid, window: FloatArray, *, bottom: bool, left: bool, ticks: bool) -> None:
    """Limits, ticks and names of a panel over the first one or two task parameters."""
    from matplotlib.ticker import MaxNLocator

    names = [name.replace("_", " ") for name in grid.parameters]
    axis.set_xlim(*window[0])
    axis.xaxis.set_major_locator(MaxNLocator(3, integer=grid.task_space.axes[0].whole))
    axis.set_xlabel(names[0] if bottom else "")
    if len(names) > 1:
        axis.set_ylim(*window[1])
        axis.yaxis.set_major_locator(MaxNLocator(3))
        axis.set_ylabel(names[1] if left else "")
    axis.tick_params(labelbottom=bottom or ticks, labelleft=left, labelsize=7)


def _row_label(axis: Axes, text: str) -> None:
    where: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    style: dict[str, Any] = {"rotation": 90, "va": "center", "ha": "right", "weight": "bold"}
    axis.annotate(text, (0, 0.5), xytext=(-44, 0), **where, **style)


@_styled
def mastery_maps(
    grid: Grid, rows: dict[str, dict[str, FloatArray]], *, percent: bool, counts: dict[str, int]
) -> Figure:
    """Maps of mastery over task space, for the students of each task teacher.

    Test sets that fill little of the task space are shown enlarged.

    Args:
        grid: for task space and test sets.
        rows: test set -> task teacher -> score of each task, mean over runs, shape ``(tasks,)``; an empty
            array where there is no run.
        percent: whether scores run from 0 to 100; else they are returns.
        counts: task teacher -> number of runs in the mean.
    """
    names = list(counts)
    (low, high) = (0.0, 100.0) if percent else grid.env.get("return_range") or (None, None)
    flat = len(grid.parameters) == 1
    size = (1.75 * len(names) + 1.3, 1.75 * len(rows) + 0.6)
    figure, axes = _figure(*size, len(rows), len(names), sharey="row" if flat else False)
    drawn: Any = None
    windows = {name: grid.bounds if flat else _window(grid, grid.test_sets[name]) for name in rows}
    zoomed = any((window != grid.bounds[:2]).any() for window in windows.values())
    for i, (test_set, scores) in enumerate(rows.items()):
        tasks, window = grid.test_sets[test_set], windows[test_set]
        for j, name in enumerate(names):
            axis: Axes = axes[i, j]
            if i == 0:
                axis.set_title(name, fontsize=9)
            _task_axes(axis, grid, window, bottom=i == len(rows) - 1, left=j == 0, ticks=zoomed)
            if j == 0:
                _row_label(axis, test_set)
            axis.set_facecolor("#f2f2f2")
            if not len(scores[name]):
                axis.text(0.5, 0.5, "no run", transform=axis.transAxes, ha="center", color=MUTED)
                continue
            if flat:
                axis.plot(tasks[:, 0], scores[name], "o", color=PALETTE[0], markersize=3)
                _score_axis(axis, percent)
                continue
            image = _image_of(tasks, scores[name])
            style: dict[str, Any] = {"cmap": "cividis", "vmin": low, "vmax": high}
            if image is None:
                style |= {"s": 13, "linewidths": 0.3, "edgecolors": MUTED}
                drawn = axis.scatter(tasks[:, 0], tasks[:, 1], c=scores[name], **style)
            else:
                extent = (*grid.bounds[0], *grid.bounds[1])
                drawn = axis.imshow(image, origin="lower", aspect="auto", extent=extent, **style)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, fraction=0.025, pad=0.01)
        bar.set_label("% of runs that mastered it" if percent else "mean return")
        bar.outline.set_visible(False)
    return figure


@_styled
def proposal_maps(grid: Grid, proposals: dict[str, list[FloatArray]], labels: Sequence[str]) -> Figure:
    """Maps of each task teacher's training tasks, early, in the middle and late.

    Density over the first two task parameters, each panel by its own maximum; crosses are the tasks of the
    primary test set where they do not fill the space.

    Args:
        grid: for task space and test sets.
        proposals: task teacher -> tasks ``(n, parameters)`` of all its runs, one array for each period.
        labels: names of the periods.
    """
    names, flat = list(proposals), len(grid.parameters) == 1
    figure, axes = _figure(1.75 * len(names) + 0.9, 1.75 * len(labels) + 0.6, len(labels), len(names))
    x, y = (grid.task_space.axes[i].edges(32) for i in (0, -1 if flat else 1))
    target = grid.test_sets[grid.primary]
    for j, name in enumerate(names):
        for i, tasks in enumerate(proposals[name]):
            axis: Axes = axes[i, j]
            if i == 0:
                axis.set_title(name, fontsize=9)
            _task_axes(axis, grid, grid.bounds[:2], bottom=i == len(labels) - 1, left=j == 0, ticks=False)
            if j == 0:
                _row_label(axis, labels[i])
            if not len(tasks):
                axis.text(0.5, 0.5, "no episodes", transform=axis.transAxes, ha="center", color=MUTED)
            elif flat:
                axis.hist(tasks[:, 0], bins=list(x), density=True, color=PALETTE[0])
                axis.set_yticks([])
            else:
                density = np.histogram2d(tasks[:, 0], tasks[:, 1], bins=(x, y))[0].T
                # The square root keeps the thin background of uniform proposals visible beside a peak.
                axis.pcolormesh(x, y, np.sqrt(density), cmap="Blues", rasterized=True)
                if _image_of(target, np.zeros(len(target))) is None:
                    # Not clipped: target tasks often lie on the border of the task space.
                    cross: dict[str, Any] = {"markersize": 3.5, "markeredgewidth": 0.8, "clip_on": False}
                    axis.plot(target[:, 0], target[:, 1], "x", color="#d55e00", **cross)
    return figure
