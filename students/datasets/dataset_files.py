"""The files of a dataset: its layout, and the log of complete chunks.

::

    reach-data/
      zarr.json               the group; its attributes hold the layout and what the data are
      obs/front/rgb/          a Zarr array for each field, (steps, num_envs, ...)
        zarr.json
        c.0.0.0.0.0           a file for each chunk: `chunk_steps` steps of all environments
        c.1.0.0.0.0
      ...
      commits.jsonl           a line for each chunk that is complete; what is not in it does not count

A chunk is written field by field, each file under another name first and then renamed, and its line in the
log last, when they are on disk: killed at any moment, a writer leaves whole lines, perhaps a torn one at the
end, and files of a chunk that has no line. Both are overwritten by the next writer. Sizes of the files are in
the line, so that a file that is missing or cut short is found without reading any; every file ends with its
checksum (CRC32C), which is looked at when it is read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from tutelage.envs.contract.state import StateError, atomic_file

if TYPE_CHECKING:
    import zarr

SCHEMA = 1
LOG, GROUP = "commits.jsonl", "zarr.json"
STARTED, ENDED, SUCCESS = "started", "ended", "success"
"""Fields, bool ``(num_envs,)``: whether a frame begins an episode, whether its step ended it, and well."""

DTYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.float32, torch.float64),
    )
}
"""What fields can be of, by the names that Zarr, numpy and torch share."""

_CODECS = ("transpose", "bytes", "zstd", "crc32c")
_KEY = "tutelage_dataset"


class DatasetError(StateError):
    """A dataset that is damaged, foreign, of another schema or layout; the message says what to do."""


class Field(NamedTuple):
    """One step's part of a field: its shape, ``(num_envs, ...)``, and a name of `DTYPES`."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of a step in memory."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Layout:
    """The layout that every chunk of a dataset has.

    Attributes:
        num_envs: environments, the same ones in every step.
        chunk_steps: steps of a chunk.
        fields: by name; a name may have slashes.
    """

    num_envs: int
    chunk_steps: int
    fields: dict[str, Field]

    def file(self, folder: Path, name: str, chunk: int) -> Path:
        """The file of a chunk of a field."""
        return folder / name / ".".join(["c", str(chunk), *["0"] * len(self.fields[name].shape)])

    def files(self, folder: Path, chunk: int) -> Iterator[Path]:
        """The files of a chunk, in the order of the fields."""
        return (self.file(folder, name, chunk) for name in self.fields)


class Commit(NamedTuple):
    """A chunk that is complete: a line of the log.

    Attributes:
        chunk: its number in the arrays; where a damaged chunk was set aside, numbers have a gap.
        sizes: of its files in bytes, in the order of the fields.
        episodes, successes: that ended in it.
    """

    chunk: int
    sizes: tuple[int, ...]
    episodes: int
    successes: int


# --- layout --------------------------------------------------------------------------------------------


def create(folder: Path, layout: Layout, metadata: Mapping[str, Any]) -> None:
    """Write group and arrays without any chunk; the group last, as it makes the folder a dataset.

    Raises:
        DatasetError: when the folder holds something else.
        ValueError: for a layout that cannot be.
    """
    import zarr
    from zarr.codecs import Crc32cCodec, TransposeCodec, ZstdCodec

    _check_layout(layout)
    _check_empty(folder, layout)
    group: dict[str, Any] = {"zarr_format": 3, "node_type": "group"}
    for name in layout.fields:
        for parent in [*Path(name).parents][:-1]:
            write_text(folder / parent / GROUP, json.dumps(group))
    for name, field in layout.fields.items():
        zarr.create_array(
            folder / name,
            shape=(0, *field.shape),
            chunks=(layout.chunk_steps, *field.shape),
            dtype=field.dtype,
            # Steps of an environment come after each other, as they look alike.
            filters=[TransposeCodec(order=(1, 0, *range(2, 1 + len(field.shape))))],
            # Level 3 saves a tenth of the disk and takes twice as long.
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            fill_value=0,
            dimension_names=["step", "environment", *[None] * (len(field.shape) - 1)],
            overwrite=True,
        )
    attributes = {"schema": SCHEMA, **asdict(layout), "metadata": dict(metadata)}
    attributes["fields"] = {name: field._asdict() for name, field in layout.fields.items()}
    write_text(folder / LOG, "")
    write_text(folder / GROUP, json.dumps({**group, "attributes": {_KEY: attributes}}, indent=1))


def _check_empty(folder: Path, layout: Layout) -> None:
    """Refuse a folder that holds more than a writer leaves that was killed while it made a dataset."""
    ours = {LOG, *(name.split("/")[0] for name in layout.fields)}
    there = {path.name for path in folder.glob("[!.]*")}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    if not there <= ours or any(
        path.name not in (GROUP, LOG) and path.suffix != ".partial" for path in files
    ):
        lost = f"a dataset without its {GROUP}; take that from a copy, or"
        raise DatasetError(
            f"{folder} holds {lost if ours <= there else 'something else;'} choose another folder"
        )


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically; it is on disk before it takes the place of another."""
    with atomic_file(path) as part, part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_layout(folder: Path) -> tuple[Layout, dict[str, Any]]:
    """Read layout and metadata of a dataset.

    Raises:
        FileNotFoundError: when there is no such folder.
        DatasetError: when it is no dataset, or one of another schema.
    """
    if not folder.exists():
        raise FileNotFoundError(f"there is no dataset at {folder}; make one by `tutelage data record`")
    path = folder / GROUP
    if not path.exists():
        raise DatasetError(f"{folder} is no dataset of tutelage: it has no {GROUP}")
    try:
        values = json.loads(path.read_text())["attributes"][_KEY]
        schema = values["schema"]
    except (ValueError, KeyError, TypeError, OSError):
        raise DatasetError(
            f"{path} is damaged, or belongs to no dataset of tutelage (no {_KEY!r} in its "
            "attributes); take the file from a copy, or choose another folder"
        ) from None
    if schema != SCHEMA:
        raise DatasetError(
            f"{folder} was written in schema {schema!r} of datasets, and this version of tutelage reads "
            f"schema {SCHEMA}; install the version that wrote it, or record anew into another folder"
        )
    try:
        fields = {
            name: Field(tuple(map(int, field["shape"])), field["dtype"])
            for name, field in values["fields"].items()
        }
        layout = Layout(int(values["num_envs"]), int(values["chunk_steps"]), fields)
        _check_layout(layout)
        return layout, dict(values["metadata"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} describes an impossible dataset ({error}); take the file from a copy"
        ) from None


def _check_layout(layout: Layout) -> None:
    """Refuse an impossible layout, or one whose names lead out of the folder."""
    if layout.num_envs < 1 or layout.chunk_steps < 1 or not layout.fields:
        raise ValueError("it needs environments, steps of a chunk, and fields")
    for name, field in layout.fields.items():
        parts = name.split("/")
        if not all(part and part[0] != "." and part.isprintable() and "\\" not in part for part in parts):
            raise ValueError(f"{name!r} cannot be the name of a field")
        if parts[-1] in (LOG, GROUP):
            raise ValueError(f"{name!r} is the name of a file of datasets")
        if any(other.startswith(f"{name}/") for other in layout.fields):
            raise ValueError(f"a field {name!r} and one within it cannot both be")
        if field.dtype not in DTYPES:
            raise ValueError(f"{name!r} is of {field.dtype}; fields are of {', '.join(DTYPES)}")
        if not field.shape or field.shape[0] != layout.num_envs or min(field.shape) < 1:
            raise ValueError(f"{name!r} has shape {field.shape}, not ({layout.num_envs}, ...)")


def open_array(folder: Path, layout: Layout, name: str, write: bool = False) -> zarr.Array[Any]:
    """Open the Zarr array of a field, after a check that it uses the codecs above alone.

    Raises:
        DatasetError: when its description is missing, damaged, or not that of the layout.
    """
    import zarr

    path, field = folder / name / GROUP, layout.fields[name]
    try:
        values = json.loads(path.read_text())
        chunks = values["chunk_grid"]["configuration"]["chunk_shape"]
        fits = (
            tuple(chunks) == (layout.chunk_steps, *field.shape)
            and tuple(values["shape"][1:]) == field.shape
            and values["data_type"] == field.dtype
            and tuple(codec["name"] for codec in values["codecs"]) == _CODECS
            and values["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
            and not values.get("storage_transformers")
        )
    except (ValueError, KeyError, TypeError, OSError):
        fits = False
    if not fits:
        raise DatasetError(
            f"{path} is missing, damaged, or not as {folder / GROUP} says; it is a small text file: take it "
            "from a copy"
        )
    # Zarr leaves out chunks of zeros unless told otherwise: they could not be told from missing ones.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(folder / name, mode="r+" if write else "r")


# --- log -----------------------------------------------------------------------------------------------


def read_log(folder: Path) -> tuple[list[Commit], int]:
    """Read the log: the complete chunks, and how many of its bytes are valid.

    A line that is torn at the end of the log was being written when its writer was killed.

    Raises:
        DatasetError: when the log is damaged elsewhere.
    """
    path = folder / LOG
    if not path.exists():
        raise DatasetError(f"{path} is missing; {cure(folder)}")
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    commits: list[Commit] = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            values = json.loads(line)
            commit = Commit(**{**values, "sizes": tuple(map(int, values["sizes"]))})
            last = commits[-1].chunk if commits else -1
            if (
                not all(isinstance(value, int) for value in (commit.chunk, *commit[2:]))
                or commit.chunk <= last
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DatasetError(f"line {number} of {path} is damaged; {cure(folder)}") from None
        commits.append(commit)
    return commits, len(whole)


def append_commit(folder: Path, commit: Commit, at: int) -> int:
    """Write a line at byte `at`, over the rest of a torn one; return the place of the next one."""
    with (folder / LOG).open("r+b") as log:
        log.truncate(at)
        log.seek(at)
        log.write(json.dumps(commit._asdict()).encode() + b"\n")
        log.flush()
        os.fsync(log.fileno())
        return log.tell()


def settle(path: Path) -> int:
    """Wait until a file's contents are on disk; return its size."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def cure(folder: Path) -> str:
    """Say how to mend a dataset with a damaged file."""
    return (
        f"`tutelage data repair {folder}` keeps the steps that are intact and sets the others aside, or take "
        "the file from a copy"
    )
