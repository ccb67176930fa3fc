"""Run folders among processes: locks, configurations that must match, children that outlive no parent."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tutelage.envs.contract.state import write_json


class FolderError(RuntimeError):
    """A run folder that is in use, damaged, or of another configuration; the message says what to do."""


@contextmanager
def locked(folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold the folder against other processes; a killed process lets go at once.

    Raises:
        FolderError: when another process holds it for longer than `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FolderError(
                        f"another process is at work in {folder}; wait for it, or stop it"
                    ) from None
                time.sleep(0.2)
        yield


def check_same_config(path: Path, values: dict[str, Any], ignore: tuple[str, ...] = ()) -> None:
    """Write `values` to `path`, or make sure that they are there already.

    Raises:
        FolderError: when the file holds something else.
    """
    if not path.exists():
        write_json(path, values)
        return
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise FolderError(f"{path} is damaged; delete {path.parent} or choose another --out") from None
    wanted = json.loads(json.dumps(values))
    keys = [key for key in {**found, **wanted} if key not in ignore and found.get(key) != wanted.get(key)]
    if keys:
        raise FolderError(
            f"{path.parent} was made with another configuration (different: {', '.join(sorted(keys))}); "
            "choose another --out, or repeat the options of its first command"
        )


def exit_with_parent() -> None:
    """End this process as soon as the one that started it has died: a killed comparison leaves no one behind.

    The parent is the process that called ``Process.start``, not the server of forks in between.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
