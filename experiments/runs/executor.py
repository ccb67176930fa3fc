"""Where the jobs of a grid run: three calls, so that other machines can take the place of local processes."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from tutelage.envs.contract.state import write_json
from tutelage.experiments.runs.locking import FolderError, exit_with_parent
from tutelage.experiments.runs.records import read_status

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Executor(Protocol):
    """Runs jobs, each in a folder of its own that the grid can read."""

    def submit(self, name: str, target: str, values: Mapping[str, Any], folder: Path) -> None:
        """Begin a job: call ``module:function`` with the values and the folder."""
        ...

    def poll(self) -> dict[str, int]:
        """Names and exit statuses of the jobs that have ended since the last call; negative for signals."""
        ...

    def stop(self) -> None:
        """End all jobs that are under way."""
        ...


class LocalProcesses:
    """An `Executor` of processes on this machine, forked from a server that has imported what all need.

    Args:
        preload: modules that all jobs need.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        os.environ.update(ONE_THREAD)  # before the server of forks starts and imports torch
        self._context: Any = multiprocessing.get_context("forkserver")
        # Torch imports the last when the first optimiser is made, and takes a second for it, in every job.
        self._context.set_forkserver_preload([*preload, "torch._dynamo"])
        self._running: dict[str, BaseProcess] = {}

    def submit(self, name: str, target: str, values: Mapping[str, Any], folder: Path) -> None:
        """Begin a job in a process of its own."""
        process: BaseProcess = self._context.Process(
            target=run_in_process, args=(target, dict(values), str(folder))
        )
        process.start()
        self._running[name] = process

    def poll(self) -> dict[str, int]:
        """The jobs that have ended since the last call."""
        ended = {name: process for name, process in self._running.items() if not process.is_alive()}
        for name in ended:
            del self._running[name]
        return {name: process.exitcode or 0 for name, process in ended.items()}

    def stop(self) -> None:
        """Terminate what is under way."""
        for process in self._running.values():
            process.terminate()
        self._running.clear()


def run_in_process(target: str, values: dict[str, Any], folder: str) -> None:
    """Call ``module:function`` with the values and the folder; end the process with status 1 if it fails.

    Its output goes to ``log.txt`` in the folder, its failure into ``status.json``.
    """
    exit_with_parent()
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    log = os.open(path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        module, _, function = target.partition(":")
        getattr(importlib.import_module(module), function)(values, path)
    except BaseException as error:  # whatever it is, the grid goes on and names it
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())  # a line, which the grid shows
        print(message, file=sys.stderr, flush=True)
        status = read_status(path)
        # A status may be another process's; a finished cell stays finished when an addition to it fails.
        if not isinstance(error, FolderError) and status.get("state") != "finished":
            with suppress(OSError):  # a full disk; the log and the exit status must do
                write_json(path / "status.json", {**status, "state": "failed", "message": message})
        os._exit(1)
