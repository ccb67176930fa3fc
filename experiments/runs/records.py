"""The files that a cell writes while it trains: episodes, evaluations, status, timings, `monitor.csv`.

All are rewritten or cut back at a checkpoint's step when a run resumes, so that no row is there twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateError, atomic_file
from tutelage.envs.contract.tasks import Tasks, TaskSpace
from tutelage.experiments.runs.levels import LevelStore


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(values, indent=1))


def read_status(folder: Path) -> dict[str, Any]:
    """The cell's ``status.json``, or an empty one."""
    try:
        status: dict[str, Any] = json.loads((folder / "status.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return status


class Table:
    """Rows in memory, column by column, kept as one parquet file.

    Args:
        path: the file.
        columns: name -> numpy type, the same in every part, so that a resumed table equals a whole one.
    """

    def __init__(self, path: Path, columns: Mapping[str, Any]) -> None:
        self.path = path
        self._parts: dict[str, list[Any]] = {name: [np.zeros(0, dtype)] for name, dtype in columns.items()}

    def append(self, **columns: Any) -> None:
        """Add rows; every column an array or list of the same length."""
        for name, values in columns.items():
            parts = self._parts[name]
            parts.append(np.asarray(values, dtype=parts[0].dtype))

    def resume(self, step: int) -> None:
        """Take up the rows of the file up to `step`; there need not be a file.

        Raises:
            StateError: when the file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.path.exists():
            return
        try:
            rows = pq.read_table(self.path)
            kept = rows.filter(np.asarray(rows["step"]) <= step)
            for name, parts in self._parts.items():
                parts[:] = [kept[name].to_numpy().astype(parts[0].dtype)]
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise StateError(f"{self.path} is damaged ({error}); delete its folder to start anew") from None

    def write(self) -> None:
        """Write all rows, atomically."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with atomic_file(self.path) as part:
            pq.write_table(pa.table(self.columns()), part)

    def columns(self) -> dict[str, Any]:
        """All rows, each column one array."""
        for parts in self._parts.values():
            parts[:] = [np.concatenate(parts)]
        return {name: parts[0] for name, parts in self._parts.items()}


class RunRecord:
    """The record of one cell.

    Args:
        folder: the cell's folder.
        space: task space, for the columns ``task/<name>``. Where its tasks are no numbers (levels), the one
            column ``task/level`` holds their ids, which are rows of ``levels.npy``.
        steps: how many the cell trains in all.

    Attributes:
        seconds: wall clock of the run so far, over all its resumptions.
    """

    def __init__(self, folder: Path, space: TaskSpace, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self._space = space
        columns = space.describe(np.zeros((0, *space.shape), space.dtype))
        self.levels = None if columns else LevelStore(folder / "levels.npy", space)
        self._tasks = {f"task/{name}": column.dtype for name, column in columns.items()}
        self._tasks = self._tasks or {"task/level": np.dtype(np.int64)}
        common = {"step": np.int64, "seconds": np.float64}
        result = {"return": np.float64, "length": np.int64, "success": np.float64}
        self.episodes = Table(folder / "episodes.parquet", {**common, **result, **self._tasks})
        self.evaluations = Table(
            folder / "evaluations.parquet", {**common, "test_set": object, "task_index": np.int64, **result}
        )
        self._began = time.perf_counter()
        self._status_written = 0.0
        self.scores: list[tuple[int, float]] = []

    @property
    def seconds(self) -> float:
        """Wall clock since the run began, less the time it lay dead."""
        return time.perf_counter() - self._began

    def resume(self, step: int, seconds: float, scores: list[tuple[int, float]]) -> None:
        """Take up the record at a checkpoint."""
        self._began = time.perf_counter() - seconds
        self.scores = [(int(at), float(score)) for at, score in scores]
        self.episodes.resume(step)
        self.evaluations.resume(step)
        if self.levels is not None:
            self.levels.resume(int(self.episodes.columns()["task/level"].max(initial=-1)) + 1)

    def add_episodes(self, step: int, episodes: Episodes) -> None:
        """Note finished training episodes."""
        n = len(episodes)
        if self.levels is None:
            tasks = self._space.describe(episodes.tasks)
        else:
            tasks = {"level": self.levels.index(episodes.tasks)}
        self.episodes.append(
            step=np.full(n, step),
            seconds=np.full(n, self.seconds),
            length=episodes.lengths,
            success=episodes.successes,
            **{"return": episodes.returns},
            **{f"task/{name}": column for name, column in tasks.items()},
        )

    def add_evaluation(self, step: int, test_set: str, episodes: Episodes) -> None:
        """Note one evaluation on one test set."""
        n = len(episodes)
        self.evaluations.append(
            step=np.full(n, step),
            seconds=np.full(n, self.seconds),
            test_set=np.full(n, test_set),
            task_index=np.arange(n),
            length=episodes.lengths,
            success=episodes.successes,
            **{"return": episodes.returns},
        )

    def recent(self, n: int) -> tuple[Tasks, np.ndarray[Any, Any]]:
        """Tasks and returns of the last `n` training episodes; levels themselves, not their ids."""
        columns = self.episodes.columns()
        tasks = np.stack([columns[name][-n:] for name in self._tasks], axis=1)
        if self.levels is not None:
            tasks = self.levels.levels[tasks[:, 0]]
        return tasks, columns["return"][-n:]

    def write(self) -> None:
        """Write the tables, and `monitor.csv` for SB3's `load_results`; levels before the ids of them."""
        if self.levels is not None:
            self.levels.save()
        self.episodes.write()
        self.evaluations.write()
        columns = self.episodes.columns()
        with atomic_file(self.folder / "monitor.csv") as part:
            rows = zip(columns["return"], columns["length"], columns["seconds"], strict=True)
            lines = [f"{r:.6f},{int(steps)},{seconds:.6f}\n" for r, steps, seconds in rows]
            part.write_text('#{"t_start": 0.0, "env_id": "tutelage"}\nr,l,t\n' + "".join(lines))

    def status(self, state: str, step: int, message: str = "", at_most_every: float = 0.0) -> None:
        """Write ``status.json``, unless it was written less than `at_most_every` seconds ago."""
        now = time.monotonic()
        if now - self._status_written >= at_most_every:
            self._status_written = now
            values = {"state": state, "step": step, "steps": self.steps, "message": message}
            write_json(
                self.folder / "status.json", {**values, "seconds": self.seconds, "scores": self.scores}
            )
