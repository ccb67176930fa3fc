"""Recorded frames on disk: written while rolling out, appended to after a kill, read lazily, trained from.

::

    task = Reach(128, cameras=[CameraConfig("front"), CameraConfig("wrist")], visuals=...)
    record(task, expert, "data/reach", RecordingConfig(frames=100_000), seed=0)    # dataset_recording
    dataset = Dataset("data/reach")
    clone_from(dataset, student, CloningConfig(), seed=0)                          # dataset_cloning

*The format* is Zarr, version 3 (zarr-specs.readthedocs.io): a folder of named arrays in chunks, one
compressed file a chunk, described by small JSON files. Its reasons, and what was looked at beside it:

- Appending is to write more files. None that is complete is opened again, so that a kill can only hurt the
  chunk that is being written, which is then not in the log of `dataset_files`. An HDF5 file has its index
  inside: "if the metadata has not been written to the file when a crash occurs, you can corrupt the file or
  lose data" (The HDF Group); its single-writer mode needs care at both ends.
- Pixels come back as they were. LeRobot's datasets keep pictures as video (AV1, crf 30 by default), which is
  lossy, halves the resolution of colours, has no place for depth, and cannot be read from in the middle
  without decoding what comes before; the package pins torch, OpenCV and a few dozen others.
- Zstandard, on steps of one environment after each other, which look alike, takes pictures of Reach (64 x 64,
  two cameras, strong looks) to a ninth when the expert acts, to a fifth under noise of 0.3. A core compresses
  15,000 such frames a second and hands out 50,000. Every file ends with a checksum.
- Others read it: ``zarr.open_group("data/reach")["obs/front/rgb"]``, in Python, C++ (TensorStore), Rust,
  JavaScript, Julia. The arrays may there be one chunk longer than the log says, if a writer was killed.
- Nothing is executed on reading: JSON, and four codecs that are checked by name. Pickle is not among them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.contract.names import unknown_name
from tutelage.students.datasets import dataset_chunks, dataset_files
from tutelage.students.datasets.dataset_files import (
    ENDED,
    GROUP,
    STARTED,
    SUCCESS,
    Commit,
    DatasetError,
    Field,
    Layout,
)

CHUNK_FRAMES = 2048
"""Frames of a chunk unless told otherwise; with one or two cameras of 64 x 64, 25 or 50 MB in memory."""

MAY_DIFFER = ("created", "versions")
"""Metadata of the first writer that those who append need not share."""


class DatasetWriter:
    """Appends steps of all environments to a dataset; takes frames as `FrameBuffer` does.

    Steps are gathered in memory and written chunk by chunk; what is left over when a writer ends is dropped,
    so that a dataset is always whole chunks. Two writers must not be at work in a folder at the same time.

    Args:
        folder: a dataset to append to, or where to begin one.
        fields: name -> one step's tensor, ``(num_envs, ...)``, for shape and dtype; slashes in names make
            folders. float32 images (fields of three axes or more: depth) are kept in float16.
        metadata: what the data are, JSON values.
        chunk_frames: of a new dataset: frames of a chunk, rounded down to whole steps, at least one.

    Attributes:
        steps: steps on disk; `add` makes more whenever a chunk is full.
        num_envs, chunk_steps: of the dataset.

    Raises:
        DatasetError: when the folder holds something else, a damaged dataset, or one of other fields or
            metadata; names what differs.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with DatasetWriter(folder, {"x": torch.zeros(2, 3)}, {"task": "none"}, chunk_frames=4) as writer:
        ...     for step in range(5):  # the last one fills no chunk
        ...         writer.add({"x": torch.full((2, 3), float(step))}, torch.tensor([step == 0, True]))
        >>> Dataset(folder).read(2, 4, ["x"])["x"][:, 0, 0]
        tensor([2., 3.])
    """

    def __init__(
        self,
        folder: str | Path,
        fields: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        chunk_frames: int = CHUNK_FRAMES,
    ) -> None:
        self.folder = Path(folder)
        kinds = {name: _field(value) for name, value in fields.items()}
        self.num_envs = next(iter(kinds.values())).shape[0]
        kinds[STARTED] = Field((self.num_envs,), "bool")
        layout = Layout(self.num_envs, max(1, chunk_frames // self.num_envs), kinds)
        if (self.folder / GROUP).exists():
            layout = _same(self.folder, layout, metadata)
        else:
            dataset_files.create(self.folder, layout, metadata)
        self._layout, self.chunk_steps = layout, layout.chunk_steps
        commits, self._log_end = dataset_files.read_log(self.folder)
        dataset_chunks.find_damage(self.folder, layout, commits)
        for name in layout.fields:
            for part in (self.folder / name).glob("*.partial"):  # Zarr's, of a writer that was killed
                part.unlink()
        self._chunk = commits[-1].chunk + 1 if commits else 0
        self.steps = len(commits) * self.chunk_steps
        self._arrays = {
            name: dataset_files.open_array(self.folder, layout, name, write=True) for name in layout.fields
        }
        if (self.folder / dataset_chunks.LOG_BEFORE_REPAIR).exists():
            # Behind what was set aside, too: its files may be made whole from a copy.
            self._chunk = max(array.shape[0] for array in self._arrays.values()) // self.chunk_steps
        self._block = {
            name: np.zeros((self.chunk_steps, *field.shape), field.dtype)
            for name, field in layout.fields.items()
        }
        self._filled = 0
        self._first = True

    def add(self, fields: Mapping[str, Tensor], started: Tensor) -> None:
        """Add one step of all environments; tensors are copied.

        Args:
            fields: all of the names given at the start, ``(num_envs, ...)``.
            started: whether this is the first frame of an episode, bool ``(num_envs,)``. The very first
                frames of a writer count as first ones.
        """
        if self._first:
            started = torch.ones_like(started)
        for name, block in self._block.items():
            value = started if name == STARTED else fields[name]
            torch.from_numpy(block[self._filled]).copy_(value)
        self._first = False
        self._filled += 1
        if self._filled == self.chunk_steps:
            self._commit()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._filled = 0

    def _commit(self) -> None:
        """Write the files of the chunk, then its line in the log, which makes it count."""
        first = self._chunk * self.chunk_steps
        for path in self._layout.files(self.folder, self._chunk):
            path.unlink(missing_ok=True)  # of a writer that was killed: files of two must not mix
        for name, array in self._arrays.items():
            array.resize((first + self.chunk_steps, *array.shape[1:]))
            array[first:] = self._block[name]
        sizes = tuple(map(dataset_files.settle, self._layout.files(self.folder, self._chunk)))
        flags = {name: self._block[name] for name in (ENDED, SUCCESS) if name in self._block}
        commit = Commit(self._chunk, sizes, *dataset_chunks.count(flags))
        self._log_end = dataset_files.append_commit(self.folder, commit, self._log_end)
        self._chunk += 1
        self.steps += self.chunk_steps
        self._filled = 0


class Dataset:
    """A dataset to read from: chunks are read when they are asked for, and the last ones kept in memory.

    Opening looks whether all files are there, and of the right size, and reads no data.

    Args:
        folder: of a `DatasetWriter`.
        cache_bytes: of chunks in memory, at most, beside those being used.

    Attributes:
        metadata: what the data are.
        fields: name -> shape of a step, ``(num_envs, ...)``, and dtype.
        num_envs, chunk_steps: environments, and steps of a chunk.
        commits: a line for each chunk.

    Raises:
        FileNotFoundError: when there is no such folder.
        DatasetError: when it is no dataset, or of another schema, or a file is missing or cut short; names
            the file, how many steps are intact, and how to keep them.
    """

    def __init__(self, folder: str | Path, cache_bytes: int = 256 * 2**20) -> None:
        self.folder, self.cache_bytes = Path(folder), cache_bytes
        self._layout, self.metadata = dataset_files.read_layout(self.folder)
        self.commits, _ = dataset_files.read_log(self.folder)
        dataset_chunks.find_damage(self.folder, self._layout, self.commits)
        self.num_envs, self.chunk_steps = self._layout.num_envs, self._layout.chunk_steps
        self.fields = self._layout.fields
        self._arrays = {
            name: dataset_files.open_array(self.folder, self._layout, name) for name in self.fields
        }
        self._cache: OrderedDict[tuple[str, int], NDArray[Any]] = OrderedDict()
        self._cached = 0

    @property
    def chunks(self) -> int:
        """Number of complete chunks."""
        return len(self.commits)

    @property
    def steps(self) -> int:
        """Number of steps that all environments took together."""
        return self.chunks * self.chunk_steps

    @property
    def frames(self) -> int:
        """Number of frames: steps times environments."""
        return self.steps * self.num_envs

    @property
    def episodes(self) -> int:
        """Number of episodes that ended."""
        return sum(commit.episodes for commit in self.commits)

    @property
    def success(self) -> float:
        """Share of these episodes that succeeded, by expert or student; NaN without any."""
        return sum(commit.successes for commit in self.commits) / self.episodes if self.episodes else np.nan

    def stored_bytes(self, name: str) -> int:
        """Bytes that a field takes on disk."""
        index = list(self.fields).index(self._known(name))
        return sum(commit.sizes[index] for commit in self.commits)

    def raw_bytes(self, name: str) -> int:
        """Bytes that a field takes in memory."""
        return self.fields[self._known(name)].nbytes * self.steps

    def chunk(self, index: int, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Read a chunk of some fields, or of all: name -> ``(chunk_steps, num_envs, ...)``; do not change it.

        Raises:
            ValueError: when there is no such field; names the nearest.
            DatasetError: when a file is damaged.
        """
        number = self.commits[index].chunk
        return {
            name: torch.from_numpy(self._read(self._known(name), number))
            for name in (self.fields if names is None else names)
        }

    def read(self, first: int, last: int, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Read the steps from `first` to before `last`: name -> ``(last - first, num_envs, ...)``.

        Raises:
            IndexError: when there are no such steps.
            ValueError, DatasetError: see `chunk`.
        """
        if not 0 <= first < last <= self.steps:
            raise IndexError(f"steps {first} to {last} were asked for; {self.folder} has 0 to {self.steps}")
        size = self.chunk_steps
        wanted = list(self.fields if names is None else names)
        parts = []
        for index in range(first // size, (last - 1) // size + 1):
            inside = slice(max(first - index * size, 0), last - index * size)
            parts.append({name: values[inside] for name, values in self.chunk(index, wanted).items()})
        return {name: torch.cat([part[name] for part in parts]) for name in wanted}

    def stream(
        self, chunks: Iterable[int], names: Iterable[str]
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield the steps of some chunks as `FrameBuffer.add` takes them: fields, and which episodes begin.

        Where a chunk does not follow the one before it, episodes that are under way begin anew, so that no
        stack of frames and no sequence reaches over the gap.

        Args:
            chunks: indices in any order.
            names: fields, without ``started``.
        """
        names, before = list(names), -1
        for index in chunks:
            values = self.chunk(index, [*names, STARTED])
            number = self.commits[index].chunk
            started = values.pop(STARTED)
            for step in range(self.chunk_steps):
                begins = started[step]
                if step == 0 and (number != before + 1 or before < 0):
                    begins = torch.ones_like(begins)
                yield {name: value[step] for name, value in values.items()}, begins
            before = number

    def _known(self, name: str) -> str:
        if name not in self.fields:
            raise ValueError(
                f"{self.folder} has no such data: {unknown_name('field', name, list(self.fields))}"
            )
        return name

    def _read(self, name: str, number: int) -> NDArray[Any]:
        """A chunk of a field, from the cache or the disk."""
        key = (name, number)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        values = dataset_chunks.read_chunk(self._arrays[name], self._layout, self.folder, name, number)
        self._cache[key] = values
        self._cached += values.nbytes
        while self._cached > self.cache_bytes:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return values


def _field(value: Tensor) -> Field:
    """How a field of a step is kept."""
    kind = torch.float16 if value.ndim > 2 and value.dtype == torch.float32 else value.dtype
    return Field(tuple(value.shape), str(kind).removeprefix("torch."))


def _same(folder: Path, layout: Layout, metadata: Mapping[str, Any]) -> Layout:
    """The layout on disk, where fields and metadata are the ones given."""
    import json

    stored, known = dataset_files.read_layout(folder)
    # As text: NaN, which an expert's facts may hold, is not equal to itself.
    on_disk, given = ({k: json.dumps(v, sort_keys=True) for k, v in m.items()} for m in (known, metadata))
    keys = [
        key for key in {**on_disk, **given} if key not in MAY_DIFFER and on_disk.get(key) != given.get(key)
    ]
    names = {**stored.fields, **layout.fields}
    keys += [f"field {name}" for name in names if stored.fields.get(name) != layout.fields.get(name)]
    if keys:
        raise DatasetError(
            f"{folder} holds other data (different: {', '.join(sorted(keys))}); record into another folder, "
            "or repeat the options of the first recording"
        )
    return stored
