"""What a cell of `tutelage distill` writes while it learns: evaluations, status, TensorBoard events.

All are cut back to a checkpoint's step when a run continues, so that nothing is there twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.experiments.runs.records import Table, write_json
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.trainings.distill_presets import on_the_way

if TYPE_CHECKING:
    from tutelage.experiments.distill import DistillConfig
    from tutelage.students.distillation.machinery.evaluation import Evaluation
    from tutelage.students.distillation.machinery.progress import DistillationProgress

COLUMNS = {
    "step": np.int64,
    "seconds": np.float64,
    "share": np.float64,
    "test_set": object,
    "task_index": np.int64,
    "return": np.float64,
    "length": np.int64,
    "success": np.float64,
    "evaluation_seconds": np.float64,
}
"""Of ``evaluations.parquet``, one row an episode: frames and seconds of training so far (without the
expert's), the share of the budget that the evaluation was due at, the seconds of all evaluations so far."""


class StudentRecord:
    """The record of one cell.

    Args:
        config: of the cell, with all filled in.
        folder: of the cell.
        expert: ``results.json`` of the expert that is charged to this cell; empty where none is.

    Attributes:
        evaluated: how many evaluations on the way there were.
        evaluation_seconds: what all evaluations took.
        log: TensorBoard log against frames.
        by_second: the same against seconds, with the expert's; a run of its own in TensorBoard.
    """

    log: RunLog
    by_second: RunLog

    def __init__(self, config: DistillConfig, folder: Path, expert: Mapping[str, Any]) -> None:
        self.config, self.folder, self.expert = config, folder, expert
        self.evaluations = Table(folder / "evaluations.parquet", COLUMNS)
        self.evaluated = 0
        self.evaluation_seconds = 0.0
        self._curves: dict[str, list[tuple[int, float]]] = {}
        self._began, self._told = time.perf_counter(), 0.0

    def open(self, frames: int, seconds: float, resumed: bool) -> None:
        """Open the logs; where a run continues, what was logged after `frames` and `seconds` is void."""
        at_second = int(seconds + self.expert.get("seconds", 0.0))
        self.log = RunLog(self.folder, frames + 1 if resumed else None)
        self.by_second = RunLog(self.folder / "by_second", at_second + 1 if resumed else None)

    def close(self) -> None:
        """Close the logs."""
        self.log.close()
        self.by_second.close()

    def resume(self, frames: int) -> None:
        """Take up the evaluations on the way up to a checkpoint; those at the end are made again."""
        self.evaluations.resume(frames)
        columns = self.evaluations.columns()
        kept = columns["share"] < 1
        columns = {name: values[kept] for name, values in columns.items()}
        self.evaluations = Table(self.folder / "evaluations.parquet", COLUMNS)
        self.evaluations.append(**columns)
        shares = columns["share"]
        if len(shares):
            self.evaluated = round(float(shares.max()) * (self.config.evaluations or 0)) + 1
        self.evaluation_seconds = float(columns["evaluation_seconds"].max(initial=0.0))
        for share in np.unique(shares):
            for name in on_the_way(self.config.task, self.config.training_looks):
                rows = (shares == share) & (columns["test_set"] == name)
                success = float(columns["success"][rows].mean())
                self._add_score(name, int(columns["step"][rows][0]), float(share), success)

    def due(self, share: float) -> float | None:
        """The share of the budget that an evaluation is due at, where one is; ask once a round.

        Evaluations are due at 0, 1/n, ... (n-1)/n of the budget, and made after the round that comes past
        that; the first after the first round. The one at the end is not counted here.
        """
        count = self.config.evaluations or 0
        passed = min(int(share * count) + 1, count)
        if share >= 1 or passed <= self.evaluated:
            return None
        self.evaluated = passed
        return (passed - 1) / count

    def add(
        self, name: str, found: Evaluation, frames: int, seconds: float, share: float, took: float
    ) -> None:
        """Note an evaluation on one test set that took so many seconds."""
        count = len(found.successes)
        self.evaluation_seconds += took
        self.evaluations.append(
            step=np.full(count, frames),
            seconds=np.full(count, seconds),
            share=np.full(count, share),
            test_set=np.full(count, name, dtype=object),
            task_index=np.arange(count),
            length=found.lengths,
            success=found.successes,
            evaluation_seconds=np.full(count, self.evaluation_seconds),
            **{"return": found.returns},
        )
        self._add_score(name, frames, share, found.success)
        spent = seconds + self.expert.get("seconds", 0.0)
        who = {"student": found.success}
        if self.expert:
            who["expert"] = self.expert["success"][name]
        tag = name.replace(" ", "_")
        self.log.scalars({f"success_on_{tag}/{key}": value for key, value in who.items()}, frames)
        by_second = {f"success_on_{tag}/{key}_by_second": value for key, value in who.items()}
        self.by_second.scalars(by_second, int(spent))
        print(f"{frames:,} frames, {spent:.0f} s: {100 * found.success:.1f} % on {name}", flush=True)

    def add_round(
        self, progress: DistillationProgress, joints: list[str], diagnostics: Mapping[str, float]
    ) -> None:
        """Log a round: what all methods report, the error of each action, and what else a method tells."""
        scalars = {
            "distillation/loss": progress.loss,
            "distillation/learning_rate": progress.learning_rate,
            "distillation/expert_share": progress.expert_share,
            "success/roll_out": progress.success,
            "rates/rolled_frames_per_second": progress.rolled_per_second,
            "rates/trained_frames_per_second": progress.trained_per_second,
            "cost/expert_queries": float(progress.queries),
            "cost/gradient_steps": float(progress.updates),
            "cost/environment_steps": float(progress.frames + self.expert.get("steps", 0)),
            "cost/seconds": progress.seconds + self.expert.get("seconds", 0.0),
        }
        errors = zip(joints, progress.action_error.tolist(), strict=True)
        scalars |= {f"action_error/{name}": error for name, error in errors}
        scalars |= {f"diagnostics/{name}": value for name, value in diagnostics.items()}
        known = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self.log.scalars(known, progress.frames)

    def mean(self, name: str, column: str) -> float:
        """Mean of a column over the episodes at the end on one test set."""
        columns = self.evaluations.columns()
        rows = (columns["share"] == 1) & (columns["test_set"] == name)
        return float(columns[column][rows].mean())

    def write(self) -> None:
        """Write the evaluations, and all events so far."""
        self.evaluations.write()
        self.log.flush()
        self.by_second.flush()

    def status(self, state: str, frames: int, seconds: float, at_most_every: float = 0.0) -> None:
        """Write ``status.json``, unless it was written less than `at_most_every` seconds ago."""
        now = time.perf_counter()
        if now - self._told < at_most_every:
            return
        self._told = now
        values = {
            "state": state,
            "step": frames if self.config.seconds is None else int(seconds),
            "steps": planned(self.config),
            "frames": frames,
            "seconds": now - self._began,
            "message": "",
            "scores": self._curves.get(on_the_way(self.config.task, self.config.training_looks)[0], []),
            "curves": self._curves,
        }
        write_json(self.folder / "status.json", values)

    def _add_score(self, name: str, frames: int, share: float, success: float) -> None:
        """Note a score for the grid's own curves, where all seeds have the same steps."""
        at = frames if self.config.seconds is None else round(share * self.config.seconds)
        self._curves.setdefault(name, []).append((at, 100 * success))


def planned(config: DistillConfig) -> int:
    """Steps of a cell's bar: frames, or seconds where those are the budget."""
    return int(config.seconds) if config.seconds is not None else int(config.budget["frames"])
