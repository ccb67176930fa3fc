"""The process in which one cell is trained: its output goes to a log, its failure into ``status.json``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from tutelage.experiments.runs.config import CellConfig
from tutelage.experiments.runs.locking import FolderError, exit_with_parent
from tutelage.experiments.runs.records import read_status, write_json


def run_in_process(target: str, values: dict[str, Any], folder: str) -> None:
    """Call ``module:function`` with the values and the folder; end the process with status 1 if it fails."""
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


def train_cell(values: dict[str, Any], folder: Path) -> None:
    """Train the cell of a comparison that is described by the values of a `CellConfig`."""
    from tutelage.experiments.runs.cell import run_cell

    run_cell(CellConfig.from_json(values), folder)
