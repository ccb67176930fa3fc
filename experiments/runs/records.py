"""The files that a run writes while it trains: episodes, evaluations, scores, status, `monitor.csv`.

Tables grow by parts: a checkpoint writes the rows since the last one, however many there are already, into
``<name>.parquet.parts``; the end of the run makes one ``<name>.parquet`` of them, a row group each. What a
killed run wrote beyond its checkpoint is cut off when it resumes, so that no row is there twice.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateError, atomic_file, write_json
from tutelage.envs.contract.tasks import Tasks, TaskSpace
from tutelage.experiments.runs.levels import LevelStore

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

MOST_PARTS = 256  # beyond that they are merged, so that a folder never holds thousands of files
RECENT = 1000  # training episodes that are kept in memory

RESULT = {"return": np.float64, "length": np.int64, "success": np.float64}
COMMON = {"step": np.int64, "seconds": np.float64}
EVALUATION_COLUMNS: dict[str, Any] = {
    **COMMON,
    "test_set": object,
    "task_index": np.int64,
    **RESULT,
    "share": np.float64,
    "charged_steps": np.int64,
    "evaluation_seconds": np.float64,
}
"""Of ``evaluations.parquet``, a row an episode: the student's steps, seconds of the run (of distillation: of
roll-outs and learning), where in the budget the evaluation was due (0 to 1), all steps charged so far, and
seconds of all evaluations so far."""


def read_status(folder: Path) -> dict[str, Any]:
    """The run's ``status.json``, or an empty one."""
    return read_json(folder / "status.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that may be missing or damaged; then an empty one."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def read_table(path: Path) -> pa.Table:
    """All rows of a table, of a run that has ended or is under way.

    Raises:
        FileNotFoundError: when there are none.
        ValueError: when a file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [file for file in (path, *_parts(path)) if file.exists()]
    if not files:
        raise FileNotFoundError(f"{path} is missing")
    try:
        return pa.concat_tables([pq.read_table(file) for file in files], promote_options="default")
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from None


def _parts(path: Path) -> list[Path]:
    return sorted(path.with_name(f"{path.name}.parts").glob("[0-9]*.parquet"))


class Table:
    """A table that grows, column by column.

    Args:
        path: the file at the end.
        columns: name -> numpy type, the same in every part, so that a resumed table equals a whole one.
        kept: rows that stay in memory for `recent`, at least; None: all, for small tables.
    """

    def __init__(self, path: Path, columns: Mapping[str, Any], kept: int | None = None) -> None:
        self.path, self.columns, self.kept = path, dict(columns), kept
        self.rows = 0
        self.unwritten_from = 0  # rows before this are on disk
        self._recent: list[dict[str, NDArray[Any]]] = []

    def append(self, **values: Any) -> None:
        """Add rows; every column an array or list of the same length."""
        part = {name: np.asarray(values[name], dtype=dtype) for name, dtype in self.columns.items()}
        self._recent.append(part)
        self.rows += len(next(iter(part.values())))

    def recent(self, n: int | None = None) -> dict[str, NDArray[Any]]:
        """The last `n` rows, as far as they are kept; None for all that are."""
        empty = {name: np.zeros(0, dtype) for name, dtype in self.columns.items()}
        joined = {name: np.concatenate([part[name] for part in [empty, *self._recent]]) for name in empty}
        return (
            joined
            if n is None
            else {name: values[len(values) - min(n, len(values)) :] for name, values in joined.items()}
        )

    def write(self) -> None:
        """Write the rows since the last time, in a part of their own, atomically."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.rows > self.unwritten_from or not (self.path.exists() or _parts(self.path)):
            with atomic_file(self._next_part()) as part:
                fresh = self.recent(self.rows - self.unwritten_from)
                pq.write_table(pa.table(fresh, schema=self._schema()), part)
            self.unwritten_from = self.rows
            if len(_parts(self.path)) > MOST_PARTS:
                self.finish()
        if self.kept is not None:
            self._recent = [self.recent(self.kept)]

    def finish(self) -> None:
        """Make one file of all parts; they stay until it is whole."""
        import pyarrow.parquet as pq

        if not (parts := _parts(self.path)):
            return
        files = [pq.ParquetFile(file) for file in (self.path, *parts) if file.exists()]
        with atomic_file(self.path) as whole, pq.ParquetWriter(whole, self._schema()) as writer:
            for file in files:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))
        shutil.rmtree(parts[0].parent)

    def resume(self, rows: int | None = None, step: int | None = None) -> None:
        """Take up the first `rows` rows of the files, or those up to a `step`; there need not be any.

        Raises:
            StateError: when a file is damaged, or holds fewer rows than that.
        """
        import pyarrow as pa

        try:
            found = read_table(self.path)
            if step is not None:
                rows = int(np.count_nonzero(np.asarray(found["step"]) <= step))
            kept = found.slice(0, rows)
            if rows is not None and len(kept) < rows:
                raise ValueError(f"it has {len(kept)} rows; the checkpoint was made after {rows}")
            part = {
                name: kept[name].to_numpy().astype(dtype)
                if name in kept.column_names
                else np.full(len(kept), -1, dtype)  # a column that earlier versions did not have
                for name, dtype in self.columns.items()
            }
        except FileNotFoundError:
            return
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise StateError(f"{self.path} is damaged ({error}); delete its folder to start anew") from None
        if len(kept) < len(found) or set(found.column_names) != set(self.columns):
            shutil.rmtree(self._next_part().parent, ignore_errors=True)
            self.path.unlink(missing_ok=True)
            self.unwritten_from = 0
        else:
            self.unwritten_from = len(kept)
        self.rows, self._recent = len(kept), [part]
        self.write()

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        kinds = {n: pa.string() if t is object else pa.from_numpy_dtype(t) for n, t in self.columns.items()}
        return pa.schema(list(kinds.items()))

    def _next_part(self) -> Path:
        folder, parts = self.path.with_name(f"{self.path.name}.parts"), _parts(self.path)
        return folder / f"{int(parts[-1].stem) + 1 if parts else 0:06}.parquet"


class RunRecord:
    """The record of one run.

    Args:
        folder: the run's folder.
        space: task space of its training episodes, for the columns ``task/<name>``; None where a training
            has no episodes to record. Where its tasks are no numbers (levels), the one column ``task/level``
            holds their ids, which are rows of ``levels.npy``.

    Attributes:
        scores: the score after each evaluation, for status and bars: step and score.
        curves: test set -> the same, in percent; for the curves of the grid.
    """

    def __init__(self, folder: Path, space: TaskSpace | None) -> None:
        self.folder = folder
        self.evaluations = Table(folder / "evaluations.parquet", EVALUATION_COLUMNS)
        self.episodes: Table | None = None
        self.levels: LevelStore | None = None
        self.regret: Table | None = None
        self._space = space
        if space is not None:
            described = space.describe(np.zeros((0, *space.shape), space.dtype))
            if not described:
                self.levels = LevelStore(folder / "levels.npy", space)
                described = {"level": np.zeros(0, np.int64)}
            self._tasks = {f"task/{name}": column.dtype for name, column in described.items()}
            counted = dict.fromkeys(("id", "environment", "started"), np.int64)
            columns = {**COMMON, **RESULT, **self._tasks, **counted}
            self.episodes = Table(folder / "episodes.parquet", columns, kept=RECENT)
        self._monitor_rows = 0
        self._began = time.perf_counter()
        self._status_written = 0.0
        self.scores: list[tuple[float, float]] = []
        self.curves: dict[str, list[tuple[float, float]]] = {}
        self.evaluation_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Wall clock since the run began, less the time it lay dead."""
        return time.perf_counter() - self._began

    def state_dict(self) -> dict[str, Any]:
        """How far the record has come, to be saved beside a checkpoint that is made after `write`."""
        tables = {"evaluations": self.evaluations, "episodes": self.episodes, "regret": self.regret}
        return {
            "rows": {name: table.rows for name, table in tables.items() if table is not None},
            "levels": 0 if self.levels is None else len(self.levels),
            "regret_columns": [] if self.regret is None else list(self.regret.columns),
            "seconds": self.seconds,
            "scores": self.scores,
            "curves": self.curves,
            "evaluation_seconds": self.evaluation_seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the record where a checkpoint was made; what was written later is cut off."""
        self._began = time.perf_counter() - state["seconds"]
        self.scores = [(at, float(score)) for at, score in state["scores"]]
        self.curves = {name: [(at, float(s)) for at, s in points] for name, points in state["curves"].items()}
        self.evaluation_seconds = state["evaluation_seconds"]
        if self.levels is not None:
            self.levels.resume(state["levels"])
        if state["regret_columns"]:
            self._make_regret(state["regret_columns"][2:])
        for name, rows in state["rows"].items():
            getattr(self, name).resume(rows)

    def add_episodes(self, step: int, episodes: Episodes) -> None:
        """Note finished training episodes."""
        assert self.episodes is not None, "this run has no task space"
        assert self._space is not None
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
            id=episodes.ids,
            environment=episodes.environments,
            started=episodes.started,
            **{"return": episodes.returns},
            **{f"task/{name}": column for name, column in tasks.items()},
        )

    def add_scores(
        self, step: int, ids: NDArray[np.int64], scores: Mapping[str, NDArray[np.float64]]
    ) -> None:
        """Note scores of episodes, or of pieces of them, by the proposals' ids, into ``scores.parquet``."""
        if self.regret is None:
            self._make_regret(list(scores))
        assert self.regret is not None
        self.regret.append(step=np.full(len(ids), step), id=ids, **scores)

    def add_evaluation(
        self, step: int, test_set: str, episodes: Episodes, *, seconds: float, share: float, charged: int
    ) -> None:
        """Note one evaluation on one test set."""
        n = len(episodes)
        self.evaluations.append(
            step=np.full(n, step),
            seconds=np.full(n, seconds),
            test_set=np.full(n, test_set, dtype=object),
            task_index=np.arange(n),
            length=episodes.lengths,
            success=episodes.successes,
            share=np.full(n, share),
            charged_steps=np.full(n, charged),
            evaluation_seconds=np.full(n, self.evaluation_seconds),
            **{"return": episodes.returns},
        )

    def recent(self, n: int) -> tuple[Tasks, NDArray[np.float64]]:
        """Tasks and returns of the last `n` training episodes; levels themselves, not their ids."""
        assert self.episodes is not None, "this run has no task space"
        columns = self.episodes.recent(n)
        tasks = np.stack([columns[name] for name in self._tasks], axis=1)
        if self.levels is not None:
            tasks = self.levels.levels[tasks[:, 0]]
        return tasks, columns["return"]

    def write(self) -> None:
        """Write all that is new, `monitor.csv` for SB3's `load_results` included; levels before their ids."""
        if self.levels is not None:
            self.levels.save()
        if self.episodes is not None:
            self._write_monitor(self.episodes)
        for table in (self.evaluations, self.episodes, self.regret):
            if table is not None:
                table.write()

    def finish(self) -> None:
        """Write everything, each table in one file."""
        self.write()
        for table in (self.evaluations, self.episodes, self.regret):
            if table is not None:
                table.finish()

    def status(self, values: Mapping[str, Any], at_most_every: float = 0.0) -> None:
        """Write ``status.json``, unless it was written less than `at_most_every` seconds ago."""
        now = time.monotonic()
        if now - self._status_written >= at_most_every:
            self._status_written = now
            known = {"seconds": self.seconds, "scores": self.scores, "curves": self.curves}
            write_json(self.folder / "status.json", {**values, **known})

    def _write_monitor(self, episodes: Table) -> None:
        """Append episodes to `monitor.csv`; after a resume the file is made anew."""
        path = self.folder / "monitor.csv"
        if self._monitor_rows == 0:
            columns = {k: np.asarray(v) for k, v in self._all_episodes(episodes).items()}
            path.write_text('#{"t_start": 0.0, "env_id": "tutelage"}\nr,l,t\n')
        else:
            columns = episodes.recent(episodes.rows - self._monitor_rows)
        rows = zip(columns["return"], columns["length"], columns["seconds"], strict=True)
        with path.open("a") as stream:
            stream.writelines(f"{r:.6f},{int(steps)},{seconds:.6f}\n" for r, steps, seconds in rows)
        self._monitor_rows = episodes.rows

    @staticmethod
    def _all_episodes(episodes: Table) -> Mapping[str, Any]:
        """All rows, those on disk and those not yet written."""
        fresh = episodes.recent(episodes.rows - episodes.unwritten_from)
        if not episodes.unwritten_from:
            return fresh
        stored = read_table(episodes.path)
        return {k: np.concatenate([stored[k].to_numpy(), fresh[k]]) for k in ("return", "length", "seconds")}

    def _make_regret(self, names: list[str]) -> None:
        columns = {"step": np.int64, "id": np.int64, **dict.fromkeys(names, np.float64)}
        self.regret = Table(self.folder / "scores.parquet", columns, kept=RECENT)
