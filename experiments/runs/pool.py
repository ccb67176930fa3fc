"""Jobs of a grid: which waits, which runs, which has ended, and how that is shown.

A job says how it stands in the ``status.json`` of its folder, with ``state``, ``step``, ``steps``,
``seconds``, ``message`` and ``scores`` (pairs of step and score).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

from tutelage.envs.contract.state import write_json
from tutelage.experiments.runs.executor import Executor
from tutelage.experiments.runs.records import read_status


@dataclass(frozen=True)
class Job:
    """Something to run in a process of its own.

    Attributes:
        name: its folder, relative to the grid's.
        target: ``module:function``, called with `values` and the folder.
        values: JSON values.
        steps: how many it will make, for its bar.
        unit: what steps are called.
        after: names of jobs that must have finished before.
        again: run it although its status says that it has finished; that status stays if it fails.
    """

    name: str
    target: str
    values: Mapping[str, Any]
    steps: int
    unit: str = "steps"
    after: tuple[str, ...] = ()
    again: bool = False


class JobPool:
    """The jobs of one grid in its folder.

    Args:
        out: the grid's folder.
        jobs: all of them, in the order in which they are to begin.
        console: where progress is shown.
        executor: runs them.
        on_status: called with a job and its status as long as it runs, and when it has ended.
    """

    def __init__(
        self,
        out: Path,
        jobs: Sequence[Job],
        console: Console,
        executor: Executor,
        on_status: Callable[[Job, dict[str, Any]], None] = lambda job, status: None,
    ) -> None:
        self.out, self.jobs, self.console, self.executor = out, list(jobs), console, executor
        self.on_status = on_status
        self._why: dict[str, str] = {}  # of jobs that failed

    def status(self, job: Job) -> dict[str, Any]:
        """The job's ``status.json``, or an empty one."""
        return read_status(self.out / job.name)

    def done(self, job: Job) -> bool:
        """Whether there is nothing to do for a job."""
        return not job.again and self.status(job).get("state") == "finished"

    def run(self, workers: int) -> list[Job]:
        """Run all jobs that are not done, `workers` at once; return those that failed, and name them."""
        waiting = [job for job in self.jobs if not self.done(job)]
        running: dict[str, Job] = {}
        failed: list[Job] = []
        for job in self.jobs:
            self.on_status(job, self.status(job))
        display = _Display(self.console, len(self.jobs), len(self.jobs) - len(waiting))
        try:
            with display.progress:
                while waiting or running:
                    for job in self._hopeless(waiting, failed):
                        waiting.remove(job)
                        failed.append(job)
                        display.failed(job, self._why[job.name])
                    while len(running) < workers and (ready := self._next(waiting, running)) is not None:
                        waiting.remove(ready)
                        running[ready.name] = ready
                        self._start(ready)
                    time.sleep(0.25)
                    ended = self.executor.poll()
                    for job in list(running.values()):
                        status = self.status(job)
                        display.show(job, status)
                        self.on_status(job, status)
                        if job.name in ended:
                            del running[job.name]
                            if self._ended(job, ended[job.name]):
                                failed.append(job)
                                display.failed(job, self._why[job.name])
                            else:
                                display.finished(job, self.status(job))
                            self.on_status(job, self.status(job))
        except KeyboardInterrupt:
            self.console.print("Stopped. The same command continues where it was.")
            raise
        finally:
            self.executor.stop()
        self._print_failures(failed)
        return failed

    def _next(self, waiting: list[Job], running: Mapping[str, Job]) -> Job | None:
        """The first job that waits for no other."""
        unfinished = {job.name for job in waiting} | set(running)
        return next((job for job in waiting if not unfinished & set(job.after)), None)

    def _hopeless(self, waiting: list[Job], failed: list[Job]) -> list[Job]:
        """Jobs that wait for one that has failed; their status says so."""
        names = {job.name for job in failed}
        found = [job for job in waiting if names & set(job.after)]
        for job in found:
            first = next(name for name in job.after if name in names)
            (self.out / job.name).mkdir(parents=True, exist_ok=True)
            self._fail(job, f"it needs {first}, which failed")
        return found

    def _fail(self, job: Job, why: str) -> None:
        """Note a failure, in the job's status too, unless that tells of what has finished before."""
        self._why[job.name] = why
        if (status := self.status(job)).get("state") != "finished":
            status = {"step": 0, "steps": job.steps, **status, "state": "failed", "message": why}
            write_json(self.out / job.name / "status.json", status)

    def _start(self, job: Job) -> None:
        folder = self.out / job.name
        folder.mkdir(parents=True, exist_ok=True)
        if not job.again:
            (folder / "status.json").unlink(missing_ok=True)  # of a failure that is being tried again
        self.executor.submit(job.name, job.target, job.values, folder)

    def _ended(self, job: Job, code: int) -> bool:
        """Tell whether the job failed; note it where the process could not."""
        status, folder = self.status(job), self.out / job.name
        if code == 0 and status.get("state") == "finished":
            return False
        why = str(status.get("message", ""))
        if status.get("state") != "failed":
            why = f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
            if code >= 0:
                log = ""
                with suppress(OSError):  # a process that died before it had begun has none
                    log = (folder / "log.txt").read_text(errors="replace").strip()
                why = log.rpartition("\n")[2] or f"exit code {code}"
        self._fail(job, why)
        return True

    def _print_failures(self, failed: list[Job]) -> None:
        for job in failed:
            folder = self.out / job.name
            message = escape(f"{job.name}: {self._why[job.name]}; see {folder / 'log.txt'}")
            self.console.print(f"[red]failed[/red] {message}", soft_wrap=True)
        if failed:
            self.console.print("The same command tries them again, from their last checkpoints.")


class _Display:
    """A bar for the grid and one for each running job; plain lines where there is no terminal."""

    def __init__(self, console: Console, jobs: int, done: int) -> None:
        self.console = console
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
        self.total = self.progress.add_task("grid", total=jobs, completed=done, note="cells")
        self.bars: dict[str, TaskID] = {}
        self.printed: dict[str, int] = {}  # evaluations already printed, by job
        if done:
            console.print(f"{done} of {jobs} cells are finished already")

    def show(self, job: Job, status: dict[str, Any]) -> None:
        """Move the bar of a running job; without a terminal, print a line for each evaluation."""
        if job.name not in self.bars:
            self.bars[job.name] = self.progress.add_task(job.name, total=job.steps, note="starting")
        step, scores = status.get("step", 0), status.get("scores") or []
        speed = f"{step / max(status.get('seconds', 1.0), 1e-9):,.0f} {job.unit}/s"
        note = "starting" if not step else job.unit if job.unit == "seconds" else speed
        if scores:
            note += f", score {scores[-1][1]:.1f}"
        self.progress.update(self.bars[job.name], completed=min(step, job.steps), note=note)
        if not self.console.is_terminal and len(scores) > self.printed.get(job.name, 1):
            self.printed[job.name] = len(scores)
            at, score = scores[-1]
            line = f"{job.name}: {at:,} of {job.steps:,} {job.unit}, score {score:.1f}"
            self.console.print(escape(line), soft_wrap=True)

    def failed(self, job: Job, why: str) -> None:
        """Take away the bar of a job that failed, and say why."""
        self._remove(job)
        self.console.print(f"[red]failed[/red]   {escape(f'{job.name}: {why}')}", soft_wrap=True)

    def finished(self, job: Job, status: dict[str, Any]) -> None:
        """Take away the bar of a job, and say what it came to."""
        self._remove(job)
        scores = status.get("scores") or [[0, float("nan")]]
        line = f"finished {job.name}: score {scores[-1][1]:.1f} in {status.get('seconds', 0):.0f} s"
        self.console.print(escape(line), soft_wrap=True)

    def _remove(self, job: Job) -> None:
        if job.name in self.bars:
            self.progress.remove_task(self.bars.pop(job.name))
        self.progress.advance(self.total)
