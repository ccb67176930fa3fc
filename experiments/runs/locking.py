"""Run folders among processes: locks, configurations that must match, children that outlive no parent."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
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
    if names := [name for name in _different(found, wanted) if name.partition(".")[0] not in ignore]:
        raise FolderError(_other_configuration(path.parent, names))


DESCRIPTIONS = {
    "grid.json": "`tutelage compare`",
    "distill.json": "`tutelage distill`",
    "specialists.json": "`tutelage specialists`",
    "zarr.json": "`tutelage data`",
}
"""Files that make a folder one of a command."""

OURS = (*DESCRIPTIONS, "report", "_grid")


def check_kind(folder: Path, description: str) -> None:
    """Make sure that a command may write into a folder, before anything is made there.

    Args:
        folder: what the user named; new, empty, or of the same command.
        description: the command's own of `DESCRIPTIONS`.

    Raises:
        FolderError: when it is of another command, lies inside a folder of one, or holds something else.
    """
    if folder.resolve() == Path.cwd():
        raise FolderError("--out is the folder that you are in; name one of its own, e.g. --out runs/x")
    for name, kind in DESCRIPTIONS.items():
        if name != description and (folder / name).exists():
            raise FolderError(f"{folder} is a folder of {kind}; choose another --out")
        for parent in folder.resolve().parents:
            if (parent / name).exists():
                raise FolderError(f"{folder} lies inside {parent}, a folder of {kind}; choose another --out")
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder} is a file; choose another --out")
    if folder.is_dir() and not (folder / description).exists():
        foreign = [p.name for p in folder.iterdir() if p.name not in OURS and not p.name.startswith(".")]
        if foreign:
            raise FolderError(f"{folder} holds something else ({min(foreign)}); choose another --out")


def grow_config(
    path: Path,
    values: dict[str, Any],
    lists: tuple[str, ...],
    tables: tuple[str, ...],
    ignore: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write `values` to `path`, together with what earlier commands have put there; return all of it.

    Args:
        path: of the description.
        values: this command's.
        lists: keys of lists that may grow, e.g. ``seeds``.
        tables: keys of mappings that may grow; what has the same name must be the same.
        ignore: keys, or names with dots, that may differ: the newer value stays.

    Raises:
        FolderError: when anything else is different.
    """
    if not path.exists():
        write_json(path, values)
        return values
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError
    except ValueError:
        raise FolderError(f"{path} is damaged; delete {path.parent} or choose another --out") from None
    wanted = json.loads(json.dumps(values))
    merged = {**found, **wanted}
    for key in lists:
        merged[key] = list(dict.fromkeys([*found.get(key, []), *wanted.get(key, [])]))
    for key in tables:
        merged[key] = {**found.get(key, {}), **wanted.get(key, {})}
        wanted[key] = {**found.get(key, {}), **wanted.get(key, {})}
        found[key] = {**wanted[key], **found.get(key, {})}
        if not merged[key] and key not in values:
            del merged[key]
    passed = {*ignore, *lists}
    names = [n for n in _different(found, wanted) if n not in passed and n.partition(".")[0] not in passed]
    if names:
        raise FolderError(_other_configuration(path.parent, names))
    write_json(path, merged)
    return merged


def _other_configuration(folder: Path, names: list[str]) -> str:
    return (
        f"{folder} was made with another configuration (different: {', '.join(sorted(names))}); "
        "choose another --out, or repeat the options of its first command"
    )


def _different(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of the values that differ, with dots where they lie in one another."""
    names = []
    for key in {**found, **wanted}:
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _different(old, new, f"{prefix}{key}.")
        elif old != new:
            names.append(f"{prefix}{key}")
    return names


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
