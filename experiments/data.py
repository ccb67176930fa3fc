"""`tutelage data`: record what an expert does as a dataset on disk, look at it, train a student from it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tutelage.students.datasets.dataset import Dataset


@dataclass(frozen=True)
class RecordConfig:
    """Record an expert, or DAgger's mixture of it and a student. The same command goes on after a kill; with
    more frames, it adds to what is there."""

    task: str
    """Name of a batched task, or module:Class of your own."""
    out: Path
    """Folder of the dataset."""
    frames: int = 100_000
    """Environment steps of the whole dataset; rounded up to whole chunks."""
    expert: Path | None = None
    """An expert to load; default: the one in OUT-expert, where a new one is put when there is none."""
    trust: bool = False
    """Load an expert from an SB3 .zip although such files can run code when they are read."""
    expert_steps: int | None = None
    """Environment steps of the training of a new expert at most; default: what the task needs."""
    student: Path | None = None
    """Folder of a student that acts where the expert does not."""
    beta: float = 1.0
    """Probability that the expert acts, in each environment at each step."""
    noise: float = 0.0
    """Standard deviation of noise on the expert's actions; labels stay clean."""
    cameras: tuple[str, ...] = ()
    """Cameras of the model; default: what suits the task."""
    obs: Literal["rgb", "depth", "rgbd"] = "rgb"
    """What each camera takes."""
    size: int = 64
    """Width and height of the pictures in pixels."""
    looks: Literal["auto", "none", "mild", "strong", "held-out", "beyond"] = "auto"
    """How much looks differ; auto: strong, or what the task allows."""
    num_envs: int = 128
    """Environments at once."""
    chunk_frames: int = 2048
    """Frames of a chunk: so many are lost with a kill, at most."""
    seed: int = 0
    """Of tasks, starts, looks and noise, and of a new expert."""
    device: str = "cpu"
    """cpu or cuda."""


@dataclass(frozen=True)
class InfoConfig:
    """Say what a dataset holds: its frames, episodes, success, fields and their size."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class ViewConfig:
    """Draw pictures of a dataset: a row for each environment and camera, time from left to right."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    out: Path = Path("data.png")
    """The PNG file; made anew."""
    envs: int = 4
    """Environments, from the first on."""
    first: int = 0
    """Step of the first column."""
    columns: int = 10
    """Columns; as many steps apart as an episode has in one row, at most."""
    scale: int = 2
    """Pixels of the sheet for each of a picture."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a student from a dataset alone, by behaviour cloning; evaluate it on the task."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    out: Path
    """Folder of the student, results.json and TensorBoard events; the same command goes on after a kill."""
    images: tuple[str, ...] = ()
    """Pictures that the student sees, as front/rgb; default: all that were recorded."""
    updates: int = 3_780
    """Gradient steps."""
    buffer_frames: int = 60_000
    """Frames in memory at a time; larger datasets are read in shuffled order, again and again."""
    encoder: Literal["fast", "fine", "nature", "impala"] | None = None
    """The student's image encoder; default: what suits the task. Of RGB it is shown opponent colours too, as
    in `tutelage distill`."""
    fusion: Literal["early", "late"] = "late"
    """late: an encoder for each camera; early: all images are channels of one input."""
    stack: int | None = None
    """Pictures that it sees at once; default: 1, or what the task needs."""
    memory: int = 0
    """Units of its recurrent memory; 0: none."""
    predict: bool = True
    """Let it also predict what the expert knows, in training alone: it teaches it where things are."""
    head: Literal["deterministic", "gaussian"] = "deterministic"
    """Whether it answers with actions or with their distribution."""
    loss: str = "huber"
    """huber, mse, kl (of distributions) or sigma (weighted by the expert's deviations)."""
    augment: Literal["auto", "none", "shift", "strong", "camera"] = "auto"
    """How pictures are changed at random while learning, as in `tutelage distill`; auto: strong, or none
    where the data have the model's own looks."""
    episodes: int = 256
    """Episodes of each evaluation at the end; 0: no evaluation, no simulation."""
    seed: int = 0
    """Of weights, minibatches and augmentation."""
    device: str = "cpu"
    """cpu or cuda."""


@dataclass(frozen=True)
class RepairConfig:
    """Keep what is intact of a damaged dataset. Every chunk is read; nothing is deleted."""

    data: tyro.conf.Positional[Path]
    """Folder of the dataset."""


_Do = Annotated[
    Annotated[RecordConfig, tyro.conf.subcommand("record")]
    | Annotated[InfoConfig, tyro.conf.subcommand("info")]
    | Annotated[ViewConfig, tyro.conf.subcommand("view")]
    | Annotated[TrainConfig, tyro.conf.subcommand("train")]
    | Annotated[RepairConfig, tyro.conf.subcommand("repair")],
    tyro.conf.arg(name=""),
]


@dataclass(frozen=True)
class DataConfig:
    """Datasets on disk: record an expert, say or show what is in them, train from them, repair them."""

    do: _Do = field()

    def run(self) -> int:
        """Run the subcommand; return the exit status."""
        return data(self)


def data(config: DataConfig) -> int:
    """Run a subcommand; return the exit status.

    Raises:
        ValueError: for what does not exist or fit, and for damaged datasets; the message names the cure.
        OSError: when a file cannot be read or written.
    """
    do = config.do
    if isinstance(do, RecordConfig):
        from tutelage.experiments.trainings.recording import record_data

        record_data(do)
    elif isinstance(do, InfoConfig):
        print_info(do)
    elif isinstance(do, ViewConfig):
        print(view_data(do))
    elif isinstance(do, TrainConfig):
        from tutelage.experiments.trainings.cloned_student import train_on

        train_on(do)
    else:
        from tutelage.experiments.runs.locking import locked
        from tutelage.students.datasets.dataset_chunks import repair
        from tutelage.students.datasets.dataset_files import read_layout

        read_layout(do.data)  # before a lock is put into a folder of something else
        with locked(do.data):
            kept, aside = repair(do.data)
        print(f"{do.data}: {kept:,} steps kept, {aside:,} set aside")
    return 0


def summary(dataset: Dataset) -> dict[str, Any]:
    """What a dataset holds, in numbers; JSON values."""
    fields: dict[str, dict[str, Any]] = {
        name: {
            "shape": list(kind.shape[1:]),
            "dtype": kind.dtype,
            "stored_bytes": dataset.stored_bytes(name),
            "raw_bytes": dataset.raw_bytes(name),
        }
        for name, kind in dataset.fields.items()
    }
    stored = sum(one["stored_bytes"] for one in fields.values())
    return {
        "frames": dataset.frames,
        "steps": dataset.steps,
        "num_envs": dataset.num_envs,
        "chunks": dataset.chunks,
        "episodes": dataset.episodes,
        "success": dataset.success if dataset.episodes else None,
        "stored_bytes": stored,
        "compression": sum(one["raw_bytes"] for one in fields.values()) / max(stored, 1),
        "fields": fields,
        "metadata": dataset.metadata,
    }


def print_info(config: InfoConfig) -> None:
    """Print the summary of a dataset."""
    from rich.console import Console
    from rich.table import Table

    from tutelage.students.datasets.dataset import Dataset

    found = summary(Dataset(config.data))
    if config.json:
        print(json.dumps(found))
        return
    told = found["metadata"]
    success = "" if found["success"] is None else f", {100 * found['success']:.1f} % of them successful"
    print(f"{config.data}: {told.get('name', told.get('task'))}, looks: {told.get('looks')}, ", end="")
    print(f"beta {told.get('beta')}, noise {told.get('noise')}, seed {told.get('seed')}")
    print(f"{found['frames']:,} frames: {found['steps']:,} steps of {found['num_envs']} environments", end="")
    print(f" in {found['chunks']} chunks; {found['episodes']:,} episodes{success}")
    print(
        f"{found['stored_bytes'] / 1e6:,.1f} MB on disk, {found['compression']:.1f} times as much in memory"
    )
    table = Table("field", "shape", "type", "MB", "ratio")
    for name, one in found["fields"].items():
        ratio = one["raw_bytes"] / max(one["stored_bytes"], 1)
        shape = " x ".join(map(str, one["shape"])) or "1"
        table.add_row(name, shape, one["dtype"], f"{one['stored_bytes'] / 1e6:.2f}", f"{ratio:.1f}")
    Console().print(table)


def view_data(config: ViewConfig) -> Path:
    """Draw the contact sheet, write it; return the file.

    Raises:
        ValueError: when the dataset has no such steps, or no pictures.
    """
    from tutelage.envs.batched.looks.contact_sheet import png_bytes
    from tutelage.students.datasets.dataset import Dataset

    sheet = data_sheet(Dataset(config.data), config.envs, config.first, config.columns, config.scale)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_bytes(png_bytes(sheet))
    return config.out


def data_sheet(dataset: Dataset, envs: int, first: int, columns: int, scale: int = 2) -> NDArray[Any]:
    """Pictures of the first environments: a row for each of them and camera, time from left to right.

    A label tells the step within the dataset, and where an episode begins.
    """
    import torch

    from tutelage.envs.batched.looks.contact_sheet import contact_sheet
    from tutelage.students.datasets.dataset_files import STARTED
    from tutelage.students.datasets.dataset_recording import VIEWS

    images = [name for name, kind in dataset.fields.items() if name.startswith(VIEWS) and len(kind.shape) > 2]
    if not images:
        raise ValueError(f"{dataset.folder} has no pictures; record with cameras")
    if envs < 1 or columns < 1 or not 0 <= first < dataset.steps:
        raise ValueError(
            f"envs and columns must be at least 1, and first from 0 to {dataset.steps - 1}, not {envs}, "
            f"{columns} and {first}"
        )
    length = int(dataset.metadata.get("max_episode_length", columns))
    steps = range(first, dataset.steps, max(1, length // columns))[:columns]
    found = [dataset.read(step, step + 1, [*images, STARTED]) for step in steps]
    batches, labels = [], []
    for env in range(min(envs, dataset.num_envs)):
        for name in images:
            row = torch.stack([values[name][0, env] for values in found])
            batches.append(row.float() if row.dtype == torch.float16 else row)
            for column, step in enumerate(steps):
                begins = " begins" if found[column][STARTED][0, env] else ""
                labels.append(f"{name.removeprefix(VIEWS)} {step}" if not column else f"{step}{begins}")
    return contact_sheet(batches, len(steps), labels, scale)


if __name__ == "__main__":
    from tutelage.experiments.command import run_as_module

    sys.exit(run_as_module(DataConfig))
