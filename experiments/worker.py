"""The process in which one cell is trained: its output goes to a log, its failure into ``status.json``."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from tutelage.experiments.config import CellConfig
from tutelage.experiments.folders import FolderError, exit_with_parent
from tutelage.experiments.records import read_status, write_json


def train_in_process(config: dict[str, Any], folder: str) -> None:
    """Train the cell described by `config`; end the process with status 1 when that fails."""
    from tutelage.experiments.cell import run_cell

    exit_with_parent()
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    log = os.open(path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        run_cell(CellConfig.from_json(config), path)
    except BaseException as error:  # whatever it is, the grid goes on and names it
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        message = f"{type(error).__name__}: {error}"
        if not isinstance(error, FolderError):  # else the status is another process's
            with suppress(OSError):  # a full disk; the log and the exit status must do
                write_json(path / "status.json", {**read_status(path), "state": "failed", "message": message})
        os._exit(1)
