"""What TensorBoard shows: charts of a run, Stable-Baselines3's own numbers, the curves of a whole grid."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.experiments.tensorboard.event_log import Band, Layout, RunLog, event_files
from tutelage.experiments.tensorboard.grid_curves import GridCurves, band_layout

if TYPE_CHECKING:
    from stable_baselines3.common.logger import KVWriter

GRID_FOLDER = "_grid"
"""Folder of a grid that holds its own curves, one TensorBoard run for each group of cells."""

CELL_LAYOUT: Layout = {
    "Student": {
        "mastered test tasks (%)": ["evaluation/.*/mastered_pct"],
        "return on the test tasks": ["evaluation/.*/return"],
        "return in training": ["rollout/ep_rew_mean"],
    },
    "Task teacher": {"metrics": ["task_teacher/.*"]},
    "Throughput": {
        "environment steps per second": ["time/steps_per_second", "time/fps"],
        "shares of the time": ["time/.*_share"],
    },
}
"""The charts of one run."""


# Reads as a class, but is a function, so that torch is loaded only by those who call it.
def SB3Output(log: RunLog) -> KVWriter:
    """Output format of Stable-Baselines3's logger that writes to `log`, so that a run has one event log.

    Numbers become scalars, strings texts, `Video` clips, `HParam` hyperparameters. Figures and images are
    refused by SB3's own `FormatUnsupportedError`; give those to `RunLog.image`.

    Example:
        ``model.set_logger(Logger(folder=None, output_formats=[SB3Output(log)]))``
    """
    from stable_baselines3.common import logger as sb3

    class Output(sb3.KVWriter):
        def write(
            self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
        ) -> None:
            numbers: dict[str, float] = {}
            for key, value in key_values.items():
                if "tensorboard" in (key_excluded.get(key) or ()):
                    continue
                if isinstance(value, str):
                    log.text(key, value, step)
                elif isinstance(value, sb3.Video):
                    log.clip(key, list(value.frames[0].permute(0, 2, 3, 1).numpy()), step, float(value.fps))
                elif isinstance(value, sb3.HParam):
                    log.hparams(value.hparam_dict)
                    numbers |= value.metric_dict
                elif isinstance(value, sb3.Figure | sb3.Image):
                    raise sb3.FormatUnsupportedError(["tensorboard"], type(value).__name__.lower())
                elif np.ndim(value) == 0 and value is not None:
                    numbers[key] = float(value)
            if numbers:
                log.scalars(numbers, step)
            log.flush()

        def close(self) -> None:
            log.flush()  # whoever made the log closes it

    return Output()


class GridLog:
    """Curves of a whole grid: for each group of cells the value over its seeds, with an interval.

    Every group (``"ppo/alp-gmm"``, or ``"alp-gmm"`` alone) is a TensorBoard run ``_grid/<group>`` with tags
    ``grid/<metric>``, ``grid/<metric>/lower``, ``grid/<metric>/upper`` and ``grid/seeds`` (how many seeds
    have reported so far). Groups share their tags, so that one chart compares them all, with bands in the
    Custom Scalars tab. Files are written anew from what `update` was told, never appended to: on opening,
    the curves of an earlier process are void, so tell it the finished evaluations again.

    Whatever the cells themselves log is read from their event files, and becomes ``grid/<tag>`` likewise:
    see `GridCurves`. One group is brought up to date in a call, at most every `write_seconds`, and that takes
    no more than a twentieth of the time of the process that calls.

    Args:
        folder: the grid's folder.
        metrics: metric -> title of its chart, the most important first.
        groups: groups of cells, in the order in which they get their colours; others follow.
        confidence: of the intervals, in (0, 1).
        write_seconds: curves are written at most so often, and on `close`.
        cells: charts of the cells.
        cell_groups: folder of a cell, relative to the grid's -> its group and seed, to aggregate all curves.
        cells_folder: where those folders are, if not in `folder`.
    """

    def __init__(
        self,
        folder: str | Path,
        metrics: Mapping[str, str],
        groups: Iterable[str] = (),
        confidence: float = 0.95,
        write_seconds: float = 10.0,
        cells: Layout = CELL_LAYOUT,
        cell_groups: Mapping[str, tuple[str, int]] | None = None,
        cells_folder: Path | None = None,
    ) -> None:
        self.folder = Path(folder) / GRID_FOLDER
        self.metrics, self.confidence, self.write_seconds = dict(metrics), confidence, write_seconds
        self.cells = cells
        # group -> step -> metric -> seed -> value
        self._values: dict[str, dict[int, dict[str, dict[int, float]]]] = {group: {} for group in groups}
        # group -> step -> tag -> value, as written; a step that is missing is out of date
        self._points: dict[str, dict[int, dict[str, float]]] = {}
        self.curves = GridCurves(cells_folder or Path(folder), {}, confidence)
        self._changed: set[str] = set()
        self._due: dict[str, float] = {}  # group -> when it may be written again
        self._look: dict[str, float] = {}  # group -> when its cells' curves are to be read again
        self._opened, self._pause = time.monotonic(), -np.inf
        self._tags_shown: set[str] = set()
        for path in self.folder.rglob("*tfevents*"):
            path.unlink()
        # Beginnings long before those of all cells: the groups head the list of runs and differ in colour.
        self._log = RunLog(self.folder, began=1e6)
        self.add_cells(cell_groups or {})
        self._write_layout()

    def add_cells(self, cell_groups: Mapping[str, tuple[str, int]]) -> None:
        """Aggregate the curves of more cells: folder -> group and seed."""
        self.curves.add(cell_groups)
        for group in self.curves.groups:
            self._values.setdefault(group, {})

    def update(self, step: int, group: str, values: Mapping[str, Mapping[int, float]]) -> None:
        """Take in evaluations: metric -> seed -> value at a training step.

        Seeds may come one by one, in any order, and twice: the last value counts.

        Raises:
            ValueError: for a metric that was not named at the start.
        """
        from tutelage.experiments.runs.reading import check_name

        at_step = self._values.setdefault(group, {}).setdefault(int(step), {})
        for metric, by_seed in values.items():
            check_name("metric", metric, self.metrics)
            known = at_step.setdefault(metric, {})
            fresh = {seed: float(value) for seed, value in by_seed.items() if known.get(seed) != value}
            known.update(fresh)
            if fresh:
                self._points.setdefault(group, {}).pop(int(step), None)
                self._changed.add(group)
        self.refresh()

    def refresh(self, share: float = 0.05) -> bool:
        """Bring the group that has waited longest up to date, if one is due; call it again and again.

        Args:
            share: of the caller's time that this may take; the next calls do nothing until then.

        Returns:
            Whether anything was read or written.
        """
        now = time.monotonic()
        if now < self._pause or not self._values:
            return False
        group = min(self._values, key=lambda group: self._due.get(group, -np.inf))
        if (due := self._due.get(group, -np.inf)) > now:
            self._pause = min(due, now + 1.0)  # where new groups may have come
            return False
        written = behind = False
        if now >= self._look.get(group, -np.inf):
            if self.curves.update(group):
                self._changed.add(group)
            if not (behind := self.curves.behind(group)):  # Later in a long grid, curves grow slowly.
                self._look[group] = now + max(3 * self.write_seconds, 0.02 * (now - self._opened))
        if not behind:  # While there is more to read, writing waits.
            if written := group in self._changed:
                self._write_group(group)
            self._due[group] = now + self.write_seconds
        self._pause = now + (time.monotonic() - now) / share
        return behind or written

    def hparams(self, runs: Iterable[Mapping[str, Any]], metrics: Mapping[str, str]) -> None:
        """Describe the HParams tab of the grid; each cell logs its own with `RunLog.hparams`.

        Args:
            runs: hyperparameters of the cells; those of one kind of student may lack in others.
            metrics: scalar tag of the cells -> name of its column; the last value is shown.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        seen: dict[str, set[Any]] = {}
        for run in runs:
            for name, value in run.items():
                if value is not None:
                    seen.setdefault(name, set()).add(value)
        experiment = api_pb2.Experiment(time_created_secs=time.time())
        for name, choices in seen.items():
            info = experiment.hparam_infos.add(name=name, differs=len(choices) > 1)
            if all(isinstance(value, bool) for value in choices):
                info.type = api_pb2.DATA_TYPE_BOOL
                info.domain_discrete.extend(sorted(choices))
            elif all(isinstance(value, int | float) for value in choices):
                info.type = api_pb2.DATA_TYPE_FLOAT64
                info.domain_interval.min_value, info.domain_interval.max_value = min(choices), max(choices)
            else:
                info.type = api_pb2.DATA_TYPE_STRING
                info.domain_discrete.extend(sorted(map(str, choices)))
        for tag, title in metrics.items():
            experiment.metric_infos.add(name={"tag": tag}, display_name=title)
        data = HParamsPluginData(experiment=experiment, version=metadata.PLUGIN_DATA_VERSION)
        described = metadata.create_summary_metadata(data)
        self._log.summary(
            [Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=described, tensor=metadata.NULL_TENSOR)], 0
        )
        self._log.flush()

    def write(self) -> None:
        """Write the curves of all groups that have changed."""
        for group in list(self._values):
            if group in self._changed:
                self._write_group(group)

    def close(self) -> None:
        """Read and write what has changed."""
        for group in self.curves.groups:
            while self.curves.update(group):
                self._changed.add(group)
        self.write()
        self._log.close()

    def _write_group(self, group: str) -> None:
        self._changed.discard(group)
        folder = self.folder / group
        older = event_files(folder)
        points = self._points.setdefault(group, {})
        rows = self.curves.points(group)
        for step, values in self._values[group].items():
            if step not in points:
                points[step] = self._point(step, values)
            rows.setdefault(step, {}).update(points[step])
        # One file for the whole curve, and only then away with the older: loaders never see half of it.
        with RunLog(folder, began=1.0 + list(self._values).index(group)) as log:
            for step, row in sorted(rows.items()):
                log.scalars(row, step)
        for path in older:
            path.unlink()
        if self.curves.tags != self._tags_shown:
            self._write_layout()

    def _write_layout(self) -> None:
        """Write which charts are shown; those of single cells come last where the curves over seeds are."""
        # TensorBoard shows the bands of a category in reverse.
        scores = {title: Band(f"grid/{metric}") for metric, title in reversed(self.metrics.items())}
        charts: dict[str, Mapping[str, Sequence[str] | Band]] = {}
        if scores:
            charts["Comparison over seeds"] = scores
        seeds = {"seeds that have reported": ["grid/seeds"]}
        single: list[str] = []
        if tags := self.curves.tags - set(self.metrics):
            charts |= {**band_layout(tags, self.cells), "Seeds": seeds}
            single = [f"Run by run: {category}" for category in self.cells]
            charts |= dict(zip(single, self.cells.values(), strict=True))
        else:
            charts |= {**self.cells, "Seeds": seeds}
        self._log.layout(charts, closed=single)
        self._log.flush()
        self._tags_shown = set(self.curves.tags)

    def _point(self, step: int, values: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
        """Scalars of one step: interquartile mean and bootstrap interval over the seeds."""
        from tutelage.experiments.runs.statistics import bootstrap, iqm

        point = {"grid/seeds": float(max(map(len, values.values())))}
        for metric, by_seed in values.items():
            scores = np.array([by_seed[seed] for seed in sorted(by_seed)])
            scores = scores[np.isfinite(scores)]
            if len(scores) == 0:
                continue
            # A generator of its own for each step: the interval does not depend on what came before.
            rng = np.random.default_rng(step)
            found = bootstrap([scores], iqm, rng, confidence=self.confidence)
            value = float(found.value)
            ends = (float(found.low), float(found.high)) if len(scores) > 1 else (value, value)
            point |= {
                f"grid/{metric}": value,
                f"grid/{metric}/lower": ends[0],
                f"grid/{metric}/upper": ends[1],
            }
        return point
