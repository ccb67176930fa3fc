"""The grid of any command: its jobs run side by side, its own curves over the seeds, its provenance."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from tutelage.experiments.runs.cell import CHECKPOINTS
from tutelage.experiments.runs.executor import Executor, LocalProcesses
from tutelage.experiments.runs.pool import Job, JobPool
from tutelage.experiments.runs.records import read_status
from tutelage.experiments.tensorboard.event_log import Layout
from tutelage.experiments.tensorboard.grid_log import CELL_LAYOUT, GridLog

PACKAGES = (
    "tutelage",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "gymnasium",
    "numpy",
    "scikit-learn",
    "box2d",
    "mujoco",
)
MADE = ("command", "created", "versions", "machine")
"""Keys of a grid's description that say how it came about, not what it is."""


def provenance() -> dict[str, Any]:
    """When a grid was made, with which versions of packages, on which machine."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # not all have wheels for every Python
        return "not installed"


@dataclass(frozen=True)
class Member:
    """A run of a grid, as its curves see it.

    Attributes:
        folder: relative to the grid's; its name in TensorBoard.
        group: runs of one group differ by their seed alone.
        seed: its seed.
        hyperparameters: what distinguishes it.
    """

    folder: str
    group: str
    seed: int
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Charts:
    """What TensorBoard shows of a whole grid.

    Attributes:
        metrics: metric -> title of its chart over the seeds, the most important first.
        curves: test set, as in the ``curves`` of a run's status -> the metric that it is a curve of.
        final: scalar tag of the runs -> column of the HParams tab.
        cells: charts of the single runs.
        logs: names of further TensorBoard logs inside the runs' folders, whose curves are grouped too.
    """

    metrics: Mapping[str, str]
    curves: Mapping[str, str]
    final: Mapping[str, str]
    cells: Layout = field(default_factory=lambda: CELL_LAYOUT)
    logs: Sequence[str] = ()


def run_grid(
    out: Path,
    jobs: Sequence[Job],
    members: Iterable[Member],
    charts: Charts,
    console: Console,
    workers: int,
    *,
    preload: Sequence[str] = (),
    executor: Executor | None = None,
) -> list[Job]:
    """Run all jobs that are not finished, `workers` at once, and keep the grid's curves up to date.

    Args:
        out: the grid's folder.
        jobs: in the order in which they are to begin.
        members: all runs of the folder whose curves are shown, those of earlier commands too.
        charts: of TensorBoard.
        console: where progress is shown.
        workers: how many at once.
        preload: modules that all jobs need.
        executor: where they run; default: processes of this machine.

    Returns:
        The jobs that failed.
    """
    by_name = {member.folder: member for member in members}
    groups = list(dict.fromkeys(member.group for member in by_name.values()))
    logs = {member.folder: (member.group, member.seed) for member in by_name.values()}
    for name in charts.logs:
        logs |= {f"{m.folder}/{name}": (f"{m.group}/{name}", m.seed) for m in by_name.values()}
    log = GridLog(out, charts.metrics, groups, cells=charts.cells, cell_groups=logs)
    log.hparams([member.hyperparameters for member in by_name.values()], charts.final)

    def show(member: Member, status: Mapping[str, Any]) -> None:
        for test_set, metric in charts.curves.items():
            for step, score in status.get("curves", {}).get(test_set, []):
                log.update(step, member.group, {metric: {member.seed: score}})

    def on_status(job: Job, status: dict[str, Any]) -> None:
        if job.name in by_name:
            show(by_name[job.name], status)
        log.refresh()

    mine = {job.name for job in jobs}
    for member in by_name.values():
        if member.folder not in mine:
            show(member, read_status(out / member.folder))
    try:
        failed = JobPool(out, jobs, console, executor or LocalProcesses(preload), on_status).run(workers)
    finally:
        log.close()
    for job in jobs:  # a kill may have come between a run's end and its tidying up
        if read_status(out / job.name).get("state") == "finished":
            shutil.rmtree(out / job.name / CHECKPOINTS, ignore_errors=True)
    return failed
