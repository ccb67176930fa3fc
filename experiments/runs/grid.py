"""The grid of `tutelage compare`: its description, its cells, its own curves."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tutelage.experiments.runs.config import CellConfig, GridConfig, folder_name, hyperparameters
from tutelage.experiments.runs.locking import check_same_config
from tutelage.experiments.runs.processes import Job, JobPool
from tutelage.experiments.runs.records import write_json
from tutelage.experiments.tensorboard.grid_log import GridLog
from tutelage.experiments.worlds.catalogue import build_task_teacher, task_env_card

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


def provenance() -> dict[str, Any]:
    """What a grid was made with, and when: versions of packages, the machine."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
    }


class GridRun:
    """The cells of one grid in its folder: which are finished, which run, which failed.

    Args:
        grid: the comparison.
        out: its folder.
        command: what the user typed, for the report.
        console: where progress is shown.

    Raises:
        FolderError: when the folder is of another comparison.
    """

    def __init__(self, grid: GridConfig, out: Path, command: str, console: Console) -> None:
        self.grid, self.out, self.console = grid, out, console
        self.card = task_env_card(grid.env)
        self.cells = grid.cells()
        check_same_config(
            out / "grid.json",
            self._description(command),
            ignore=("command", "created", "versions", "machine"),
        )
        write_json(
            out / "test_sets.json", {name: tasks.tolist() for name, tasks in self.card.test_sets().items()}
        )

    def run(self, workers: int) -> int:
        """Train all cells that are not finished, `workers` at once; return how many failed."""
        groups = list(dict.fromkeys(self._group(cell) for cell in self.cells))
        log = GridLog(
            self.out, {"score": f"{self.card.primary_test_set}: score (% mastered, else return)"}, groups
        )
        tag = f"evaluation/{self.card.primary_test_set}/mastered_pct"
        log.hparams([hyperparameters(cell) for cell in self.cells], {tag: "mastered, %"})
        cells = {cell.folder: cell for cell in self.cells}
        jobs = [
            Job(name, "tutelage.experiments.runs.worker:train_cell", cell.to_json(), cell.steps)
            for name, cell in cells.items()
        ]
        pool = JobPool(
            self.out,
            jobs,
            self.console,
            preload=["tutelage.experiments.runs.cell"],
            on_status=lambda job, status: self._log_scores(log, cells[job.name], status),
            on_finished=lambda folder: shutil.rmtree(folder / "checkpoints", ignore_errors=True),
        )
        try:
            return len(pool.run(workers))
        finally:
            log.close()

    def _log_scores(self, log: GridLog, cell: CellConfig, status: dict[str, Any]) -> None:
        """Bring the grid's own charts up to the cell's evaluations."""
        for step, score in status.get("scores", []):
            log.update(step, self._group(cell), {"score": {cell.seed: score}})

    def _group(self, cell: CellConfig) -> str:
        """The cell's task teacher, and its student where there are several; its run in TensorBoard."""
        teacher = folder_name(cell.task_teacher)
        return teacher if len(self.grid.students) == 1 else f"{folder_name(cell.student)}/{teacher}"

    def _description(self, command: str) -> dict[str, Any]:
        space = self.card.task_space()
        teachers = {}
        for name, overrides in self.grid.task_teachers.items():
            teacher = build_task_teacher(name, self.card, space, np.random.default_rng(0), overrides)
            config = getattr(teacher, "config", None)
            teachers[name] = (
                _plain(asdict(config)) if is_dataclass(config) and not isinstance(config, type) else {}
            )
        return {
            "command": command,
            **provenance(),
            "env": {
                "name": self.card.name,
                "id": self.card.env_id,
                "kwargs": {},
                "summary": self.card.summary,
                "task_space": space.to_json(),
                "primary_test_set": self.card.primary_test_set,
                "mastered": self.card.mastered,
                "return_range": self.card.return_range,
            },
            "task_teachers": teachers,
            "baseline": self.grid.baseline,
            "students": {name: asdict(config) for name, config in self.grid.students.items()},
            "seeds": list(self.grid.seeds),
            "steps": self.grid.steps,
            "evaluate_every": self.grid.evaluate_every,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def print_summary(out: Path, console: Console) -> None:
    """Print the table of the comparison."""
    from rich.table import Table

    from tutelage.experiments.reports.summary import readable, summary_table
    from tutelage.experiments.runs.reading import read_grid

    grid = read_grid(out)
    figures = summary_table(grid)
    rows = [readable(row) for row in figures]
    left_out = ("mean", "return", "area", "seconds")  # these are in the report
    heads = [head for head in rows[0] if not head.startswith(left_out) and not head.endswith(left_out[:2])]
    if len({row["student"] for row in rows}) == 1:
        heads.remove("student")
    steps = " and ".join(f"{step:,}" for step in dict.fromkeys(row["step"] for row in figures))
    table = Table(*heads, title=f"{grid.env['name']}, at step {steps}")
    for row in rows:
        table.add_row(*(row[head] for head in heads))
    console.print(table)
