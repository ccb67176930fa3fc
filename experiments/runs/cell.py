"""One run in its folder: train to the next evaluation, evaluate, write down, save; and go on after a kill.

This is the only loop there is: students under task teachers, distilled students, experts, cloned students
and specialists are all a `tutelage.experiments.runs.training.Training` in it. A killed run continues from its
last checkpoint with identical numbers.
"""

from __future__ import annotations

import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import write_json
from tutelage.envs.contract.tasks import TaskSpace
from tutelage.experiments.runs.locking import check_same_config, locked
from tutelage.experiments.runs.records import RunRecord, read_status
from tutelage.experiments.runs.report import Report
from tutelage.experiments.runs.training import Costs, Training
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.students.sb3.checkpoint import untouched_generators

CHECKPOINTS = "checkpoints"
"""Folder, in the run's, that a killed run continues from."""

EVALUATION_SEED = 10_000  # of test episodes: the same in all runs
STATUS_EVERY = 0.5  # seconds


def run_cell(
    make: Callable[[], Training],
    description: Mapping[str, Any],
    folder: Path,
    *,
    undecisive: tuple[str, ...] = (),
    save_every: float | None = None,
    complete: Callable[[], None] | None = None,
) -> None:
    """Train a cell to its end, from its last checkpoint if it has one.

    Args:
        make: builds the training; called where there is something left to do.
        description: all that decides its results, for ``config.json``.
        folder: of the run.
        undecisive: keys of the description that decide no number.
        save_every: seconds between checkpoints, of trainings that can be saved in mid-stage; None: after each
            evaluation.
        complete: called for a run that had finished before: adds what it may lack.

    Raises:
        FolderError: when the folder belongs to another configuration or is in use.
        StateError: when the checkpoint is damaged.
    """
    with locked(folder):
        check_same_config(folder / "config.json", dict(description), ignore=undecisive)
        if read_status(folder).get("state") != "finished":
            Run(make(), folder, save_every).train()
        elif complete is not None:
            complete()


def score_of(episodes: Episodes) -> float:
    """Percentage of mastered tasks, or the mean return where success is not defined."""
    defined = episodes.successes[~np.isnan(episodes.successes)]
    return 100 * float(defined.mean()) if len(defined) else float(episodes.returns.mean())


class Run:
    """One training, its record and its logs.

    Args:
        training: freshly built.
        folder: of the run.
        save_every: see `run_cell`.
    """

    def __init__(self, training: Training, folder: Path, save_every: float | None = None) -> None:
        self.training, self.folder, self.save_every = training, folder, save_every
        space: TaskSpace | None = getattr(training, "task_space", None)
        self.record = RunRecord(folder, space)
        self.evaluated = 0  # evaluations made, or passed over because a round went beyond two
        self._saved = time.monotonic()

    def train(self) -> None:
        """Resume, then train, evaluate and save in turn until the end."""
        training = self.training
        with ExitStack() as stack:
            stack.callback(training.close)
            resumed = self._resume()
            log = RunLog(self.folder, purge_step=training.step + 1 if resumed else None)
            self.report = Report(self.folder, self.record, log, self._on_progress)
            stack.callback(self.report.close)
            if not resumed:
                log.hparams(training.hyperparameters())
            self._status("running")
            while self.evaluated < len(training.evaluations):
                share = training.evaluations[self.evaluated]
                untrained = share == 0 and training.evaluates_untrained
                if not untrained and (training.spent < share or training.step == 0):
                    training.advance(share, self.report)
                if self.save_every is not None and share == 1:
                    self._checkpoint()  # what follows takes minutes where episodes are many
                self._evaluate()
                if self.save_every is None or time.monotonic() - self._saved >= self.save_every:
                    self._checkpoint()
            results = training.finish(self.report)
            self.record.finish()
            self._write_timings()
            if results:
                write_json(self.folder / "results.json", results)
        self._status("finished")
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)

    def _on_progress(self, saveable: bool = False) -> None:
        """Write the status; where the training can be saved, and that is due, save it."""
        self._status("running", STATUS_EVERY)
        if self.save_every is None or time.monotonic() - self._saved < self.save_every:
            return
        due = max(self.training.evaluations[self.evaluated], 1e-12)
        if saveable and self.training.spent < due:  # else it is saved after its evaluation
            self._checkpoint()

    def _evaluate(self) -> None:
        """Evaluate all policies on the test sets; note, score and log the student's episodes."""
        training, record = self.training, self.record
        passed = bisect_right(training.evaluations, min(training.spent, 1.0))
        self.evaluated = max(self.evaluated + 1, passed)
        share = training.evaluations[self.evaluated - 1]
        progress = training.progress
        at = round(share * progress.total) if progress.unit == "seconds" else int(progress.at)
        results: dict[str, dict[str, Episodes]] = {}
        with untouched_generators():
            for policy, play in training.policies().items():
                student = not results
                results[policy] = {}
                for name in training.test_sets(share == 1):
                    began = time.perf_counter()
                    results[policy][name] = episodes = play(name, share == 1)
                    record.evaluation_seconds += time.perf_counter() - began
                    training.costs.evaluation += int(episodes.lengths.sum())
                    if student:
                        seconds = getattr(training, "seconds", None)
                        record.add_evaluation(
                            training.step,
                            name,
                            episodes,
                            seconds=record.seconds if seconds is None else seconds,
                            share=share,
                            charged=training.costs.charged,
                        )
                        record.curves.setdefault(name, []).append((at, score_of(episodes)))
            mine = next(iter(results.values()))
            if mine:
                record.scores.append((at, score_of(next(iter(mine.values())))))
            self.report.scalars(training.scores(mine), training.step)
            began = time.perf_counter()
            training.evaluated(results, self.report)
            record.evaluation_seconds += time.perf_counter() - began

    def _checkpoint(self) -> None:
        """Write the record, then save the training; nothing before the checkpoint is logged again."""
        self.record.write()
        self._write_timings()
        self.report.flush()
        state = {
            "record": self.record.state_dict(),
            "evaluated": self.evaluated,
            "costs": {f.name: getattr(self.training.costs, f.name) for f in fields(Costs)},
        }
        self.training.save(self.folder / CHECKPOINTS, state)
        self._saved = time.monotonic()
        self._status("running")

    def _resume(self) -> bool:
        """Load the last checkpoint; tell whether there was one."""
        state = self.training.load(self.folder / CHECKPOINTS)
        if state is None:
            return False
        self.record.load_state_dict(state["record"])
        self.evaluated = state["evaluated"]
        for name, value in state["costs"].items():
            setattr(self.training.costs, name, value)
        print(f"continues at {self.training.step:,}", flush=True)
        return True

    def _write_timings(self) -> None:
        """Write what the seconds went to, and all costs."""
        costs = self.training.costs
        seconds = {
            **costs.seconds,
            "evaluation": self.record.evaluation_seconds,
            "total": self.record.seconds,
        }
        seconds["other"] = seconds["total"] - sum(v for k, v in seconds.items() if k != "total")
        episodes = self.record.episodes
        written = {
            "seconds": seconds,
            "steps": self.training.step,
            "episodes": -1 if episodes is None else episodes.rows,
            "costs": costs.to_json(),
        }
        write_json(self.folder / "timings.json", written)

    def _status(self, state: str, at_most_every: float = 0.0) -> None:
        progress = self.training.progress
        values = {
            "state": state,
            "step": int(progress.at),
            "steps": int(progress.total),
            "unit": progress.unit,
            "frames": self.training.step,
            "message": "",
        }
        self.record.status(values, at_most_every)
