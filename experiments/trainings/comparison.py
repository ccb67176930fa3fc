"""The grid of `tutelage compare`: its description, its cells, its table."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tutelage.envs.contract.described_tasks import task_space_to_json
from tutelage.envs.contract.names import folder_name
from tutelage.envs.contract.state import write_json
from tutelage.experiments.runs.config import CellConfig, GridConfig, hyperparameters
from tutelage.experiments.runs.grid import MADE, Charts, Member, provenance, run_grid
from tutelage.experiments.runs.locking import grow_config
from tutelage.experiments.runs.pool import Job
from tutelage.experiments.worlds.catalogue import build_task_teacher, task_env_card

TRAINING = "tutelage.experiments.trainings.taught_student"


class Comparison:
    """The cells of one comparison in its folder.

    Args:
        grid: the comparison.
        out: its folder.
        command: what the user typed, for the report.

    Raises:
        FolderError: when the folder is of another comparison.
    """

    def __init__(self, grid: GridConfig, out: Path, command: str) -> None:
        self.grid, self.out = grid, out
        self.card = task_env_card(grid.env)
        self.cells = grid.cells()
        # Lists may grow: cells that are there stay. Only what changes a cell is refused.
        grow_config(
            out / "grid.json",
            self._description(command),
            lists=("seeds",),
            tables=("task_teachers", "students", "sweep"),
            ignore=(*MADE, "baseline", "env.summary"),
        )
        write_json(
            out / "test_sets.json", {name: tasks.tolist() for name, tasks in self.card.test_sets().items()}
        )

    def run(self, workers: int, console: Console) -> int:
        """Train all cells that are not finished, `workers` at once; return how many failed."""
        jobs = [
            Job(cell.folder, f"{TRAINING}:train_student", cell.to_json(), cell.steps) for cell in self.cells
        ]
        members = [
            Member(cell.folder, self._group(cell), cell.seed, hyperparameters(cell)) for cell in self.cells
        ]
        primary = self.card.primary_test_set
        charts = Charts(
            metrics={"score": f"{primary}: score (% mastered, else return)"},
            curves={primary: "score"},
            final={f"evaluation/{primary}/mastered_pct": "mastered, %"},
        )
        return len(run_grid(self.out, jobs, members, charts, console, workers, preload=[TRAINING]))

    def _group(self, cell: CellConfig) -> str:
        """The cell's task teacher, and its student where there are several; its run in TensorBoard."""
        teacher = folder_name(cell.task_teacher)
        return teacher if len(self.grid.students) == 1 else f"{folder_name(cell.student)}/{teacher}"

    def _description(self, command: str) -> dict[str, Any]:
        space = self.card.task_space()
        teachers = {}
        for name, overrides in self.grid.task_teachers.items():
            built = self.grid.built_name(name)
            teacher = build_task_teacher(built, self.card, space, np.random.default_rng(0), overrides)
            config = getattr(teacher, "config", None)
            teachers[name] = (
                _plain(asdict(config)) if is_dataclass(config) and not isinstance(config, type) else {}
            )
        sweep = {name: asdict(entry) for name, entry in self.grid.sweep.items()}
        return {
            "command": command,
            **provenance(),
            "env": {
                "name": self.card.name,
                "id": self.card.env_id,
                "kwargs": {},
                "summary": self.card.summary,
                "task_space": task_space_to_json(space),
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
            **({"sweep": _plain(sweep)} if sweep else {}),
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
    from rich.markup import escape
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
        table.add_row(*(escape(row[head]) for head in heads))
    console.print(table)
