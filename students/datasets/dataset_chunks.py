"""The chunk files of a dataset: read one, find damaged ones, keep the intact ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.students.datasets.dataset_files import (
    ENDED,
    GROUP,
    LOG,
    SUCCESS,
    Commit,
    DatasetError,
    Layout,
    cure,
    open_array,
    read_layout,
    read_log,
    write_text,
)

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray

LOG_BEFORE_REPAIR = "commits-before-repair.jsonl"
"""The log as the first repair found it; those of later ones are ``commits-before-repair-2.jsonl``, ..."""


def find_damage(folder: Path, layout: Layout, commits: list[Commit]) -> None:
    """Look at the sizes of all chunk files, without reading them.

    Raises:
        DatasetError: for the first that is missing or of another size; tells how many steps are intact.
    """
    bad: list[str] = []
    whole = 0
    for commit in commits:
        problems = []
        if len(commit.sizes) != len(layout.fields):
            problems.append(f"{folder / LOG} tells of {len(commit.sizes)} files of chunk {commit.chunk}")
        for path, size in zip(layout.files(folder, commit.chunk), commit.sizes, strict=False):
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                problems.append(f"{path} is missing")
                continue
            if found != size:
                problems.append(f"{path} has {found:,} of {size:,} bytes")
        whole += not problems
        bad += problems[:1]
    if bad:
        more = f" (and {len(bad) - 1} more chunks are damaged)" if len(bad) > 1 else ""
        steps = layout.chunk_steps
        raise DatasetError(
            f"{bad[0]}{more}; {whole * steps:,} of {len(commits) * steps:,} steps of {folder} are intact; "
            f"{cure(folder)}"
        )


def read_chunk(array: zarr.Array[Any], layout: Layout, folder: Path, name: str, chunk: int) -> NDArray[Any]:
    """Read a chunk of a field, ``(chunk_steps, num_envs, ...)``.

    Raises:
        DatasetError: when its file is missing or damaged.
    """
    path = layout.file(folder, name, chunk)
    problem = "is missing"
    if path.exists():
        try:
            steps = slice(chunk * layout.chunk_steps, (chunk + 1) * layout.chunk_steps)
            values: NDArray[Any] = np.ascontiguousarray(array[steps])
            if len(values) == layout.chunk_steps:
                return values
            problem = f"lies beyond the {array.shape[0]:,} steps that {path.parent / GROUP} tells of"
        except (ValueError, RuntimeError, OSError, TypeError, IndexError) as error:
            problem = f"is damaged ({' '.join(str(error).split())[:100]})"
    raise DatasetError(f"{path} {problem}; {cure(folder)}")


def count(values: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """Count the episodes that ended in a chunk, and successes among them; 0 where that is not recorded."""
    ended = values.get(ENDED)
    if ended is None:
        return 0, 0
    success = values.get(SUCCESS, np.zeros_like(ended))
    return int(ended.sum()), int((ended & success).sum())


def repair(folder: str | Path) -> tuple[int, int]:
    """Read every chunk of a damaged dataset, and keep those that are intact; nothing is deleted.

    The log is written anew, the old one stays as ``commits-before-repair.jsonl``; that of a second repair as
    ``commits-before-repair-2.jsonl``, and so on. Episodes that run through a chunk that is lost are then in
    two parts. Chunks recorded later go behind all that there are, and leave the files of those that were set
    aside.

    Returns:
        Steps kept, and steps set aside.

    Raises:
        DatasetError: when layout or arrays are damaged: take these small files from a copy.
    """
    folder = Path(folder)
    layout, _ = read_layout(folder)
    try:
        chunks = [commit.chunk for commit in read_log(folder)[0]]
    except DatasetError:
        chunks = []
    if not chunks:  # without a log, whatever is there
        first = next(iter(layout.fields))
        found = (path.name.split(".")[1] for path in (folder / first).glob("c.*"))
        chunks = sorted({int(number) for number in found if number.isdecimal()})
    arrays = {name: open_array(folder, layout, name) for name in layout.fields}
    kept: list[Commit] = []
    for chunk in chunks:
        try:
            flags = {}
            for name, array in arrays.items():
                values = read_chunk(array, layout, folder, name, chunk)
                if name in (ENDED, SUCCESS):
                    flags[name] = values
        except DatasetError:
            continue
        sizes = tuple(path.stat().st_size for path in layout.files(folder, chunk))
        kept.append(Commit(chunk, sizes, *count(flags)))
    if (folder / LOG).exists():
        os.replace(folder / LOG, _backup(folder))
    write_text(folder / LOG, "".join(f"{json.dumps(commit._asdict())}\n" for commit in kept))
    return len(kept) * layout.chunk_steps, (len(chunks) - len(kept)) * layout.chunk_steps


def _backup(folder: Path) -> Path:
    """Where the log goes before a repair; the first one, which tells of most chunks, must stay."""
    path, number = folder / LOG_BEFORE_REPAIR, 1
    while path.exists():
        number += 1
        path = folder / LOG_BEFORE_REPAIR.replace(".", f"-{number}.")
    return path
