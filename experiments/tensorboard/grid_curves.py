"""Every curve of the cells of a grid, over their seeds: mean, interval, and how many seeds it is of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.experiments.tensorboard.event_log import Band, Layout
from tutelage.experiments.tensorboard.event_reading import RunReader

FloatArray = NDArray[np.float64]

_RESAMPLES = 1000


@dataclass(frozen=True)
class CurveBand:
    """A curve over seeds; all arrays have shape ``(points,)``.

    Attributes:
        steps: rising.
        value: interquartile mean over the seeds that reach a step.
        low, high: ends of its bootstrap interval; both equal `value` where one seed reaches a step.
        seeds: how many do.
    """

    steps: NDArray[np.int64]
    value: FloatArray
    low: FloatArray
    high: FloatArray
    seeds: NDArray[np.int64]


def at_common_steps(
    curves: Sequence[tuple[ArrayLike, ArrayLike]],
) -> tuple[NDArray[np.int64], FloatArray]:
    """Curves at the steps of the one with most points, interpolated linearly.

    Where others reach further, before its first step or behind its last, their own steps are added. No
    curve is continued beyond its own first and last step: it is NaN there.

    Args:
        curves: steps, rising, and values of each; not empty.

    Returns:
        Steps ``(points,)`` and values ``(curves, points)``.

    Example:
        >>> steps, values = at_common_steps([([0, 10, 20], [0.0, 1.0, 2.0]), ([5, 15, 25], [2.0, 4.0, 6.0])])
        >>> steps.tolist(), values[1].tolist()
        ([0, 10, 20, 25], [nan, 3.0, 5.0, 6.0])
    """
    arrays = [(np.asarray(steps, np.int64), np.asarray(values, np.float64)) for steps, values in curves]
    common = np.zeros(0, np.int64)
    for steps, _ in sorted(arrays, key=lambda curve: -len(curve[0])):
        if len(common):
            steps = steps[(steps < common[0]) | (steps > common[-1])]
        common = np.sort(np.concatenate([common, steps]))
    rows = [np.interp(common, steps, values, left=np.nan, right=np.nan) for steps, values in arrays]
    return common, np.stack(rows)


def iqm_band(steps: NDArray[np.int64], values: FloatArray, confidence: float = 0.95) -> CurveBand:
    """Interquartile mean and interval over the seeds at each step, of those seeds that are not NaN there.

    What `tutelage.experiments.runs.statistics.bootstrap` gives of `iqm`, faster: the same resamples of
    the seeds are taken at all steps, so that the mean of each is a fixed weighting of the sorted values.

    Args:
        steps: shape ``(points,)``.
        values: shape ``(seeds, points)``, NaN where a seed has no value.
        confidence: of the interval, in (0, 1).
    """
    seeds = np.isfinite(values).sum(axis=0)
    ordered = np.sort(values, axis=0)  # NaN last
    value, low, high = (np.full(len(steps), np.nan) for _ in range(3))
    for n in np.unique(seeds[seeds > 0]).tolist():
        here = seeds == n
        kept, cut = ordered[:n, here], n // 4
        value[here] = low[here] = high[here] = kept[cut : n - cut].mean(axis=0)
        if n > 1:
            weights, tail = _resampling(n, confidence)
            low[here], high[here] = np.quantile(weights @ kept, [tail, 1 - tail], axis=0)
    return CurveBand(steps, value, low, high, seeds)


@lru_cache(maxsize=64)
def _resampling(n: int, confidence: float) -> tuple[FloatArray, float]:
    """Weights of n sorted values in the interquartile mean of each resample, and the share to cut off."""
    from tutelage.experiments.runs.statistics import expanded_tail

    drawn = np.sort(np.random.default_rng(n).integers(0, n, (_RESAMPLES, n)), axis=1)
    inner = drawn[:, n // 4 : n - n // 4]
    weights = (inner[:, :, None] == np.arange(n)).mean(axis=1)
    return weights, expanded_tail(confidence, n)


class GridCurves:
    """The curves of all cells, group by group, read as they are logged; nothing is written.

    Args:
        folder: the grid's.
        cells: folder of a cell, relative to the grid's -> its group and its seed. Seeds put the cells of a
            group in order; two cells of one seed count twice.
        confidence: of the intervals, in (0, 1).
    """

    def __init__(
        self, folder: Path, cells: Mapping[str, tuple[str, int]] | None = None, confidence: float = 0.95
    ) -> None:
        self.folder, self.confidence = folder, confidence
        self.tags: set[str] = set()
        self._readers: dict[str, dict[tuple[int, str], RunReader]] = {}  # group -> seed and name
        self.add(cells or {})

    @property
    def groups(self) -> list[str]:
        """Groups that have cells, whether these have logged anything or not."""
        return list(self._readers)

    def add(self, cells: Mapping[str, tuple[str, int]]) -> None:
        """Add cells; those that are there stay as they are."""
        for name, (group, seed) in cells.items():
            readers = self._readers.setdefault(group, {})
            readers.setdefault((seed, name), RunReader(self.folder / name))

    def update(self, group: str) -> bool:
        """Read some of what the cells of a group have logged since; whether there was anything."""
        readers = self._readers.get(group, {}).values()
        news = [reader.update() for reader in readers]
        for reader in readers:
            self.tags.update(reader.curves)
        return any(news)

    def behind(self, group: str) -> bool:
        """Whether `update` left something for its next call."""
        return any(reader.behind for reader in self._readers.get(group, {}).values())

    def bands(self, group: str) -> dict[str, CurveBand]:
        """Tag -> its curve over the seeds of a group."""
        readers = [reader for _, reader in sorted(self._readers.get(group, {}).items())]
        found = {}
        for tag in sorted({tag for reader in readers for tag in reader.curves}):
            curves = [reader.curves[tag] for reader in readers if tag in reader.curves]
            if any(len(curve.steps) for curve in curves):
                steps, values = at_common_steps([(curve.steps, curve.values) for curve in curves])
                found[tag] = iqm_band(steps, values, self.confidence)
        return found

    def points(self, group: str) -> dict[int, dict[str, float]]:
        """Step -> scalars ``grid/<tag>``, ``.../lower``, ``.../upper``, as a grid logs them.

        ``grid/seeds``, how many seeds a point is of, is that of the tag with most points; tags may be
        logged at steps of different kinds, such as updates and seconds.
        """
        bands = self.bands(group)
        points: dict[int, dict[str, float]] = {}

        def add(tag: str, steps: NDArray[np.int64], values: NDArray[np.float64 | np.int64]) -> None:
            for step, value in zip(steps.tolist(), values.tolist(), strict=True):
                points.setdefault(step, {})[tag] = value

        for tag, band in bands.items():
            add(f"grid/{tag}", band.steps, band.value)
            add(f"grid/{tag}/lower", band.steps, band.low)
            add(f"grid/{tag}/upper", band.steps, band.high)
        if bands:
            densest = max(bands.values(), key=lambda band: len(band.steps))
            add("grid/seeds", densest.steps, densest.seeds)
        return points


def band_layout(tags: Iterable[str], cells: Layout) -> dict[str, dict[str, Sequence[str] | Band]]:
    """Charts with bands of all aggregated tags, in the categories of the cells' own layout.

    Where an expression of a chart matches several tags, each has a chart of its own, named as the tag.
    Tags that are in no chart of the cells come last, in categories named by what stands before the slash.

    Args:
        tags: of the cells.
        cells: layout of one cell.
    """
    left = sorted(tags)
    layout: dict[str, dict[str, Sequence[str] | Band]] = {}

    def put(category: str, charts: Mapping[str, str]) -> None:
        layout.setdefault(category, {}).update({title: Band(f"grid/{tag}") for title, tag in charts.items()})

    for category, charts in cells.items():
        for title, content in charts.items():
            expressions = [re.escape(content.tag)] if isinstance(content, Band) else content
            matched = [tag for tag in left if any(re.fullmatch(regex, tag) for regex in expressions)]
            left = [tag for tag in left if tag not in matched]
            put(category, {title: matched[0]} if len(matched) == 1 else {tag: tag for tag in matched})
    for tag in left:
        head, slash, _ = tag.partition("/")
        put(head.strip() if slash else "Others", {tag: tag})
    # TensorBoard shows the bands of a category in reverse.
    return {category: dict(reversed(charts.items())) for category, charts in layout.items() if charts}
