"""Running a grid of cells in parallel processes, and showing how it goes."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import time
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tutelage.experiments.catalogue import build_task_teacher, task_env_card
from tutelage.experiments.config import CellConfig, GridConfig, folder_name, hyperparameters
from tutelage.experiments.folders import check_same_config
from tutelage.experiments.records import read_status, write_json
from tutelage.experiments.tensorboard import GridLog
from tutelage.experiments.worker import train_in_process

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
THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
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
        os.environ.update(THREADS)  # before the server of forks starts and imports torch
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tutelage.experiments.cell"])
        waiting = [cell for cell in self.cells if self.status(cell).get("state") != "finished"]
        running: list[tuple[CellConfig, BaseProcess]] = []
        failed: list[CellConfig] = []
        groups = list(dict.fromkeys(self._group(cell) for cell in self.cells))
        log = GridLog(
            self.out, {"score": f"{self.card.primary_test_set}: score (% mastered, else return)"}, groups
        )
        tag = f"evaluation/{self.card.primary_test_set}/mastered_pct"
        log.hparams([hyperparameters(cell) for cell in self.cells], {tag: "mastered, %"})
        for cell in self.cells:
            self._log_scores(log, cell, self.status(cell))
        display = _Display(self.console, len(self.cells), len(self.cells) - len(waiting), self.grid.steps)
        try:
            with display.progress:
                while waiting or running:
                    while waiting and len(running) < workers:
                        cell = waiting.pop(0)
                        running.append((cell, self._start(context, cell)))
                    time.sleep(0.25)
                    for entry in list(running):
                        cell, process = entry
                        status = self.status(cell)
                        display.show(cell, status)
                        self._log_scores(log, cell, status)
                        if not process.is_alive():
                            running.remove(entry)
                            failed += [cell] if self._ended(cell, process) else []
                            status = self.status(cell)
                            display.ended(cell, status)
                            self._log_scores(log, cell, status)
        except KeyboardInterrupt:
            self.console.print("Stopped. The same command continues where it was.")
            raise
        finally:
            for _, process in running:
                process.terminate()
            log.close()
        self._print_failures(failed)
        return len(failed)

    def _print_failures(self, failed: list[CellConfig]) -> None:
        for cell in failed:
            folder = self.out / cell.folder
            message = escape(f"{cell.folder}: {read_status(folder).get('message')}; see {folder / 'log.txt'}")
            self.console.print(f"[red]failed[/red] {message}", soft_wrap=True)
        if failed:
            self.console.print("The same command tries them again, from their last checkpoints.")

    def status(self, cell: CellConfig) -> dict[str, Any]:
        """The cell's ``status.json``, or an empty one."""
        return read_status(self.out / cell.folder)

    def _start(self, context: Any, cell: CellConfig) -> BaseProcess:
        folder = self.out / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "status.json").unlink(missing_ok=True)  # of a failure that is being tried again
        process: BaseProcess = context.Process(target=train_in_process, args=(cell.to_json(), str(folder)))
        process.start()
        return process

    def _ended(self, cell: CellConfig, process: BaseProcess) -> bool:
        """Tell whether the cell failed; note it where the process could not."""
        status = self.status(cell)
        if process.exitcode == 0 and status.get("state") == "finished":
            shutil.rmtree(self.out / cell.folder / "checkpoints", ignore_errors=True)
            return False
        if status.get("state") != "failed":
            code = process.exitcode or 0
            why = f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
            if code >= 0:
                log = (self.out / cell.folder / "log.txt").read_text(errors="replace").strip()
                why = log.rpartition("\n")[2] or f"exit code {code}"
            status = {"step": 0, "steps": cell.steps, **status, "state": "failed", "message": why}
            write_json(self.out / cell.folder / "status.json", status)
        return True

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
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in PACKAGES},
            },
            "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
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


class _Display:
    """A bar for the grid and one for each running cell; plain lines where there is no terminal."""

    def __init__(self, console: Console, cells: int, done: int, steps: int) -> None:
        self.console, self.steps = console, steps
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.total = self.progress.add_task("grid", total=cells, completed=done, note="cells")
        self.bars: dict[str, TaskID] = {}
        self.printed: dict[str, int] = {}  # evaluations already printed, by cell
        if done:
            console.print(f"{done} of {cells} cells are finished already")

    def show(self, cell: CellConfig, status: dict[str, Any]) -> None:
        """Move the bar of a running cell; without a terminal, print a line for each evaluation."""
        if cell.folder not in self.bars:
            self.bars[cell.folder] = self.progress.add_task(cell.folder, total=self.steps, note="starting")
        step, scores = status.get("step", 0), status.get("scores") or []
        note = f"{step / max(status.get('seconds', 1.0), 1e-9):,.0f} steps/s" if step else "starting"
        if scores:
            note += f", score {scores[-1][1]:.1f}"
        self.progress.update(self.bars[cell.folder], completed=min(step, self.steps), note=note)
        if not self.console.is_terminal and len(scores) > self.printed.get(cell.folder, 1):
            self.printed[cell.folder] = len(scores)
            at, score = scores[-1]
            line = f"{cell.folder}: {at:,} of {self.steps:,} steps, score {score:.1f}"
            self.console.print(escape(line), soft_wrap=True)

    def ended(self, cell: CellConfig, status: dict[str, Any]) -> None:
        """Take away the bar of a cell, and say how it ended."""
        if cell.folder in self.bars:
            self.progress.remove_task(self.bars.pop(cell.folder))
        self.progress.advance(self.total)
        if status.get("state") == "failed":
            message = escape(f"{cell.folder}: {status.get('message', '')}")
            self.console.print(f"[red]failed[/red]   {message}", soft_wrap=True)
            return
        scores = status.get("scores") or [[0, float("nan")]]
        line = f"finished {cell.folder}: score {scores[-1][1]:.1f} in {status.get('seconds', 0):.0f} s"
        self.console.print(escape(line), soft_wrap=True)


def print_summary(out: Path, console: Console) -> None:
    """Print the table of the comparison."""
    from rich.table import Table

    from tutelage.experiments.runs import read_grid
    from tutelage.experiments.summary import readable, summary_table

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
