"""Levels that a run has met, each kept once: its number stands for it in the columns of the record.

They lie in one ``levels.npy`` that grows at its end: a checkpoint costs what its new levels cost. Numpy
reserves room in the header for the number of rows, and new rows are on disk before the header counts them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tutelage.envs.contract.state import StateError
from tutelage.envs.contract.tasks import Tasks, TaskSpace


class LevelStore:
    """The different levels of one run, in the order in which they were first met.

    Args:
        path: the file ``levels.npy``; it need not exist.
        space: the task space, for shape and dtype of a level.

    Raises:
        TypeError: when a level is made of Python objects, which are not saved.

    Example:
        >>> from tutelage.envs.contract.tasks import BoxTasks
        >>> store = LevelStore(Path("levels.npy"), BoxTasks({"height": (0, 3)}))
        >>> store.index(np.array([[1.0], [2.0], [1.0]])), len(store)
        (array([0, 1, 0]), 2)
    """

    def __init__(self, path: Path, space: TaskSpace) -> None:
        if space.dtype.hasobject:
            raise TypeError(f"levels of dtype {space.dtype} hold Python objects; make them arrays of numbers")
        self.path, self._shape, self._dtype = path, tuple(space.shape), space.dtype
        self._ids: dict[bytes, int] = {}
        self._rows = np.empty((16, *self._shape), self._dtype)  # with room to grow
        self._saved = 0  # rows of the file that are these levels
        self._counted = 0  # rows that its header counts

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def levels(self) -> Tasks:
        """All levels so far, row *i* the one with id *i*; shape ``(k, *space.shape)``, a view."""
        return self._rows[: len(self)]

    def index(self, tasks: Tasks) -> NDArray[np.int64]:
        """Ids of levels, shape ``(n,)``; levels that were never met get the next ones."""
        tasks = np.ascontiguousarray(tasks, self._dtype)
        return np.fromiter((self._id(task) for task in tasks), np.int64, len(tasks))

    def save(self) -> None:
        """Append the levels that are new since the last time to the file.

        Raises:
            OSError: when the disk is full or not writable; what was saved before stays.
        """
        if self._saved == self._counted == len(self):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self._saved else "w+b") as file:
            if not self._saved:
                self._write_header(file, 0)
            _, start = self._read_header(file)
            file.seek(start + self._saved * self._row_bytes)
            file.truncate()  # rows that a killed run left behind the counted ones
            file.write(self._rows[self._saved : len(self)].tobytes())
            _to_disk(file)
            self._write_header(file, len(self))
            _to_disk(file)
        self._saved = self._counted = len(self)

    def resume(self, count: int) -> None:
        """Take up the first `count` levels of the file; what lies behind them was met after the checkpoint.

        Raises:
            StateError: when the file is missing, damaged, of another task space, or holds fewer.
        """
        self._ids, self._saved, self._counted = {}, 0, 0
        if count == 0:
            return
        try:
            with self.path.open("rb") as file:
                self._counted, _ = self._read_header(file)
            kept = np.load(self.path, mmap_mode="r", allow_pickle=False)[:count]
            if len(self.index(np.array(kept))) != count or len(self) != count:
                raise ValueError(f"it holds {len(self)} different levels where {count} are counted on")
        except (OSError, ValueError) as error:
            raise StateError(f"{self.path} is damaged ({error}); delete its folder to start anew") from None
        self._saved = count

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize

    def _id(self, level: NDArray[Any]) -> int:
        key = level.tobytes()
        if (known := self._ids.get(key)) is not None:
            return known
        if len(self) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[len(self)] = level
        return self._ids.setdefault(key, len(self))

    def _write_header(self, file: IO[bytes], count: int) -> None:
        file.seek(0)
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False}
        npy.write_array_header_1_0(file, {**header, "shape": (count, *self._shape)})

    def _read_header(self, file: IO[bytes]) -> tuple[int, int]:
        """Number of rows, and where the first begins; ValueError where the file is of another space."""
        file.seek(0)
        npy.read_magic(file)
        shape, fortran, dtype = npy.read_array_header_1_0(file)
        if shape[1:] != self._shape or dtype != self._dtype or fortran:
            raise ValueError(f"it holds levels of shape {shape[1:]} and type {dtype}")
        return shape[0], file.tell()


def read_levels(folder: Path) -> Tasks | None:
    """Levels of a cell's folder, row *i* the one that ``task/level`` calls *i*; None where it records none.

    Raises:
        ValueError: when the file is damaged.
    """
    try:
        levels: Tasks = np.load(folder / "levels.npy", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, EOFError) as error:
        raise ValueError(f"{folder / 'levels.npy'} cannot be read: {error}") from None
    return levels


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
