"""Reading a grid folder: what `tutelage compare` wrote, as typed arrays for statistics and plots.

A grid folder holds `grid.json` (what was asked for), `test_sets.json` (the fixed test tasks) and one folder
for each cell, `<student>/<task teacher>/seed-<k>/`. Cells may be missing, unfinished, failed or damaged: a
grid reads all the same, and each cell says what is wrong with it. Only a folder that is no grid at all, or
whose two JSON files cannot be understood, raises `GridError`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.described_tasks import DescribedTasks, task_space_from_json
from tutelage.envs.contract.names import folder_name, unknown_name
from tutelage.envs.contract.tasks import BoxTasks, DiscreteTasks
from tutelage.experiments.runs.records import read_table

FloatArray = NDArray[np.float64]

_EVALUATION_COLUMNS = ("step", "seconds", "test_set", "task_index", "return", "length", "success")
_EPISODE_COLUMNS = ("step", "seconds", "return", "length", "success")


class GridError(ValueError):
    """A folder that is no grid, or a grid whose description cannot be understood."""


@dataclass(frozen=True)
class Evaluations:
    """All evaluations of one cell.

    Attributes:
        steps: training steps at each evaluation, increasing, shape ``(evaluations,)``.
        seconds: wall clock since the cell's start, same shape.
        returns: test set -> ``(evaluations, tasks)``; NaN where an evaluation lacks the test set.
        successes: test set -> ``(evaluations, tasks)``, 1 where the task is mastered; NaN where undefined.
    """

    steps: NDArray[np.int64]
    seconds: FloatArray
    returns: dict[str, FloatArray]
    successes: dict[str, FloatArray]


@dataclass(frozen=True)
class Cell:
    """One run of a grid: a student, a task teacher, a seed.

    Attributes:
        state: ``finished``, ``running``, ``waiting``, ``failed``, ``missing`` (no folder or no status), or
            ``damaged`` (its evaluations cannot be read).
        step, steps: training steps done and asked for.
        message: what its status, or the reader, says about it.
        last_log_line: last line of its log that is not blank.
        evaluations: None where there are none yet.
        timings: seconds by part (``total``, ``environment``, ``student``, ``task_teacher``, ``evaluation``,
            ``other``); empty where not written yet.
        episodes: number of training episodes; -1 where not written yet.
    """

    student: str
    task_teacher: str
    seed: int
    folder: Path
    state: str
    step: int
    steps: int
    message: str
    last_log_line: str
    evaluations: Evaluations | None
    timings: dict[str, float]
    episodes: int

    @property
    def name(self) -> str:
        """Its folder relative to the grid's, e.g. ``ppo/alp-gmm/seed-0``."""
        return f"{folder_name(self.student)}/{folder_name(self.task_teacher)}/seed-{self.seed}"

    def training_episodes(self) -> TrainingEpisodes | None:
        """Read its training episodes; None where the file is missing or damaged."""
        try:
            table = read_table(self.folder / "episodes.parquet")
            columns = {name: table.column(name).to_numpy() for name in table.column_names}
            plain = [np.asarray(columns[name], dtype=np.float64) for name in _EPISODE_COLUMNS]
        except (OSError, KeyError, TypeError, ValueError):
            return None
        tasks = [np.asarray(columns[name], np.float64) for name in columns if name.startswith("task/")]
        stacked = np.stack(tasks, axis=1) if tasks else np.empty((table.num_rows, 0))
        return TrainingEpisodes(plain[0], plain[1], plain[2], plain[3], plain[4], stacked)


@dataclass(frozen=True)
class TrainingEpisodes:
    """Training episodes of one cell, in order; arrays ``(n,)``, and `tasks` ``(n, parameters)``."""

    steps: FloatArray
    seconds: FloatArray
    returns: FloatArray
    lengths: FloatArray
    successes: FloatArray
    tasks: FloatArray


@dataclass(frozen=True)
class Scores:
    """Results of one student on one test set, aligned over the cells.

    Attributes:
        steps: common evaluation steps, shape ``(evaluations,)``.
        seconds: task teacher -> ``(seeds, evaluations)``.
        values: task teacher -> ``(seeds, evaluations, tasks)``. NaN where a cell has no such evaluation.
    """

    steps: FloatArray
    seconds: dict[str, FloatArray]
    values: dict[str, FloatArray]


@dataclass(frozen=True)
class Grid:
    """A comparison as far as it has come.

    Attributes:
        folder: where it lies.
        description: `grid.json` as read: command, created, versions, machine, configs.
        task_space: of the environment; its kind and axes alone where it is neither box nor discrete, since
            only its own code can make it again.
        test_sets: name -> tasks ``(tasks, parameters)``; the primary one first.
        primary: name of the test set that task teachers are compared on.
        task_teachers, students: names, in the grid's order.
        seeds: in order.
        steps, evaluate_every: training steps of each cell, and between evaluations.
        baseline: the task teacher that others are compared with.
        cells: every cell that was asked for, there or not.
    """

    folder: Path
    description: dict[str, Any]
    task_space: BoxTasks | DiscreteTasks | DescribedTasks
    test_sets: dict[str, FloatArray]
    primary: str
    task_teachers: tuple[str, ...]
    students: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    evaluate_every: int
    baseline: str
    cells: tuple[Cell, ...]

    @property
    def env(self) -> dict[str, Any]:
        """The environment's entry of `grid.json`."""
        return dict(self.description["env"])

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the task parameters; none for levels, which have no axes to be drawn on."""
        return tuple(axis.name for axis in self.task_space.axes)

    @property
    def bounds(self) -> FloatArray:
        """Lower and upper bound of each task parameter, shape ``(parameters, 2)``."""
        return np.array([(axis.low, axis.high) for axis in self.task_space.axes]).reshape(-1, 2)

    def cells_of(self, student: str, task_teacher: str) -> list[Cell]:
        """The cells of one student and task teacher, in the order of the seeds."""
        return [c for c in self.cells if c.student == student and c.task_teacher == task_teacher]

    def has_success(self) -> bool:
        """Whether any evaluation defines success, so that tasks can be mastered."""
        read = [cell.evaluations for cell in self.cells if cell.evaluations is not None]
        return any(np.isfinite(values).any() for e in read for values in e.successes.values())

    def scores(self, student: str, test_set: str, measure: str = "success") -> Scores:
        """Evaluations of one student on one test set: task teacher -> (seeds, evaluations, tasks).

        Cells that evaluated at slightly different steps (students round to their own batches) are
        interpolated linearly to common ones; no cell is extended by more than half an evaluation interval.

        Args:
            measure: ``"success"`` (0 or 1) or ``"return"``.

        Raises:
            GridError: for a name that the grid does not have.
        """
        check_name("student", student, self.students)
        check_name("test set", test_set, self.test_sets)
        check_name("measure", measure, ("success", "return"))
        cells = [cell for cell in self.cells if cell.student == student]
        steps = _common_steps([c.evaluations.steps for c in cells if c.evaluations is not None])
        shape = (len(self.seeds), len(steps), len(self.test_sets[test_set]))
        values = {name: np.full(shape, np.nan) for name in self.task_teachers}
        seconds = {name: np.full(shape[:2], np.nan) for name in self.task_teachers}
        for cell in cells:
            e = cell.evaluations
            if e is None or test_set not in e.returns:
                continue
            table = (e.successes if measure == "success" else e.returns)[test_set]
            columns = np.column_stack([table, e.seconds])
            there = np.isfinite(e.returns[test_set]).all(axis=1)
            row = _resample(e.steps[there], columns[there], steps, self.evaluate_every / 2)
            seed = self.seeds.index(cell.seed)
            values[cell.task_teacher][seed], seconds[cell.task_teacher][seed] = row[:, :-1], row[:, -1]
        return Scores(steps, seconds, values)


def check_name(kind: str, name: str, known: Any) -> None:
    """Raise `GridError` with the nearest name unless `name` is one of `known`."""
    if name not in known:
        raise GridError(unknown_name(kind, name, known))


def _common_steps(steps: list[NDArray[np.int64]]) -> FloatArray:
    """Steps of the cell with most evaluations: all others' where the steps agree, as they mostly do."""
    return max(steps, key=lambda s: (len(s), s[-1] if len(s) else 0), default=np.empty(0)).astype(np.float64)


def _resample(at: NDArray[Any], table: FloatArray, steps: FloatArray, tolerance: float) -> FloatArray:
    """Rows of `table` (made at steps `at`) at `steps`; NaN more than `tolerance` beyond either end."""
    out = np.full((len(steps), table.shape[1]), np.nan)
    if len(at) == 0:
        return out
    inside = (steps >= at[0] - tolerance) & (steps <= at[-1] + tolerance)
    right = np.searchsorted(at, steps[inside]).clip(0, len(at) - 1)
    left = np.where(at[right] > steps[inside], np.maximum(right - 1, 0), right)
    gap = np.maximum(at[right] - at[left], 1)
    weight = np.clip((steps[inside] - at[left]) / gap, 0, 1)[:, None]
    # A weight of nothing must not let the other row's NaN in (success can be undefined).
    out[inside] = np.where(weight > 0, table[left] * (1 - weight) + table[right] * weight, table[left])
    return out


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GridError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise GridError(f"{path} cannot be read as JSON ({error}); it was cut off or is not ours") from None


def _read_evaluations(path: Path, test_sets: dict[str, FloatArray]) -> Evaluations:
    """Read one cell's evaluations; ValueError names what is wrong with the file."""
    table = read_table(path)
    if absent := [name for name in _EVALUATION_COLUMNS if name not in table.column_names]:
        raise ValueError(f"evaluations.parquet lacks the column(s) {', '.join(absent)}")
    data = {name: table.column(name).to_numpy() for name in _EVALUATION_COLUMNS if name != "test_set"}
    names = np.array(table.column("test_set").to_pylist(), dtype=object)
    steps, row = np.unique(data["step"].astype(np.int64), return_inverse=True)
    seconds = np.zeros(len(steps))
    np.maximum.at(seconds, row, data["seconds"].astype(np.float64))
    returns: dict[str, FloatArray] = {}
    successes: dict[str, FloatArray] = {}
    for name, tasks in test_sets.items():
        mine = names == name
        index = data["task_index"][mine].astype(np.int64)
        if len(index) and not (index.min() >= 0 and index.max() < len(tasks)):
            raise ValueError(
                f"evaluations.parquet has task {index.max()} of {name!r}, which has {len(tasks)}"
            )
        for column, out in (("return", returns), ("success", successes)):
            out[name] = np.full((len(steps), len(tasks)), np.nan)
            out[name][row[mine], index] = data[column][mine].astype(np.float64)
    return Evaluations(steps, seconds, returns, successes)


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _read_cell(folder: Path, key: tuple[str, str, int], steps: int, sets: dict[str, FloatArray]) -> Cell:
    state, message, done = "missing", "there is no such run folder", 0
    if folder.is_dir():
        message = "its run folder has no status.json"
    try:
        status = _read_json(folder / "status.json")
        state, done = str(status["state"]), int(status.get("step", 0))
        message, steps = str(status.get("message") or ""), int(status.get("steps", steps))
    except GridError as error:
        if (folder / "status.json").exists():
            state, message = "damaged", str(error)
    except (KeyError, TypeError, ValueError, AttributeError):
        state, message = "damaged", "status.json does not name its state"
    evaluations: Evaluations | None = None
    try:
        evaluations = _read_evaluations(folder / "evaluations.parquet", sets)
    except FileNotFoundError:
        if state == "finished":
            state, message = "damaged", "it is finished but has no evaluations.parquet"
    except (ValueError, TypeError) as error:
        state, message = "damaged", str(error)
    timings: dict[str, float] = {}
    episodes = -1
    try:
        read = _read_json(folder / "timings.json")
        timings = {str(part): float(value) for part, value in read["seconds"].items()}
        episodes = int(read.get("episodes", -1))
    except (GridError, KeyError, TypeError, ValueError, AttributeError):
        timings = {}
    last = _last_line(folder / "log.txt")
    return Cell(*key, folder, state, done, steps, message, last, evaluations, timings, episodes)


def _folder_hint(folder: Path) -> str:
    """What a user who gave the wrong folder probably meant."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    names = ("grid.json", "distill.json")
    for parent in folder.resolve().parents:
        if any((parent / name).exists() for name in names):
            return f"{folder} lies inside a grid; give {parent}"
    inside = sorted(path.parent.name for name in names for path in folder.glob(f"*/{name}"))
    if inside:
        return f"{folder} holds {len(inside)} grid(s); give one of them: {', '.join(inside[:5])}"
    return (
        f"{folder} has no grid.json and no distill.json; give the folder that `tutelage compare` or "
        "`tutelage distill` wrote"
    )


def read_grid(folder: Path | str) -> Grid:
    """Read a grid folder, complete or not.

    Raises:
        GridError: when it is no grid folder, or `grid.json` or `test_sets.json` is damaged.
    """
    folder = Path(folder)
    if not (folder / "grid.json").exists():
        raise GridError(_folder_hint(folder))
    text = _read_json(folder / "grid.json")
    sets = _read_json(folder / "test_sets.json")
    try:
        env = text["env"]
        space = task_space_from_json(env["task_space"])
        tasks = {str(name): np.asarray(rows, np.float64) for name, rows in sets.items()}
        for name, rows in tasks.items():
            dim = len(space.axes) or math.prod(rows.shape[1:])
            tasks[name] = rows.reshape(len(rows), dim)
        primary, teachers, students = (
            str(env["primary_test_set"]),
            tuple(text["task_teachers"]),
            tuple(text["students"]),
        )
        seeds, steps, every = tuple(map(int, text["seeds"])), int(text["steps"]), int(text["evaluate_every"])
    except KeyError as error:
        raise GridError(
            f"{folder / 'grid.json'} lacks {error}; it is not a grid of `tutelage compare`"
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise GridError(f"{folder}: grid.json or test_sets.json is not as expected: {error}") from None
    if not (teachers and students and seeds):
        raise GridError(f"{folder / 'grid.json'} names no task teachers, students or seeds")
    check_name("primary test set", primary, tasks)
    baseline = text.get("baseline") or teachers[0]
    check_name("baseline", baseline, teachers)
    ordered = {primary: tasks[primary], **tasks}
    cells = tuple(
        _read_cell(folder / folder_name(s) / folder_name(t) / f"seed-{k}", (s, t, k), steps, ordered)
        for s in students
        for t in teachers
        for k in seeds
    )
    return Grid(
        folder, text, space, ordered, primary, teachers, students, seeds, steps, every, baseline, cells
    )
