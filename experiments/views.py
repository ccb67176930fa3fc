"""`tutelage views`: what the cameras of a batched task see, as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tutelage.envs.batched.task.vec_task import VecTask

Looks = Literal["none", "mild", "strong", "held-out", "beyond"]


@dataclass(frozen=True)
class ViewsConfig:
    """Draw a contact sheet of a batched task: a column for each environment, a row for each picture."""

    task: str
    """Name of a batched task, or module:Class of your own."""
    out: Path = Path("views.png")
    """The PNG file; made anew."""
    n: int = 8
    """Environments, each with a task and looks of its own."""
    cameras: tuple[str, ...] = ()
    """Cameras of the model; default: all of them."""
    modalities: tuple[Literal["rgb", "depth", "segmentation"], ...] = ("rgb", "depth", "segmentation")
    """What each camera takes."""
    randomise: Looks = "strong"
    """How much the looks differ; held-out ones are outside of those meant for training, and of beyond cameras
    are too."""
    size: int = 64
    """Width and height of each picture in pixels."""
    scale: int = 2
    """Pixels of the sheet for each of a picture."""
    steps: int = 0
    """Random actions to take before the pictures."""
    tensorboard: Path | None = None
    """Folder of a TensorBoard log to put the sheet into as well."""
    seed: int = 0
    """Decides tasks, looks and actions."""
    device: str = "cpu"
    """cpu or cuda."""

    def run(self) -> int:
        """Draw the sheet and print where it is; return the exit status."""
        print(views(self))
        return 0


def views(config: ViewsConfig) -> Path:
    """Make the environments, draw the sheet, write it; return the file.

    Raises:
        ValueError: for an unknown task, camera or device, or a wrong number; the message names the cure.
        SimulatorError: when there is no such GPU.
        OSError: when the file cannot be written.
    """
    import torch

    from tutelage.envs.batched.cameras.camera_config import CameraConfig
    from tutelage.envs.batched.looks.contact_sheet import png_bytes
    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
    from tutelage.envs.batched.worlds.catalogue import make_vec_task

    if config.n < 1:
        raise ValueError(f"n must be at least 1, not {config.n}")
    if config.steps < 0:
        raise ValueError(f"steps must not be negative, but is {config.steps}; give 0 for the first pictures")
    if not config.modalities:
        raise ValueError("no modality is left to show; name some of rgb, depth, segmentation")
    _check_device(config.device)
    cameras = config.cameras or camera_names(config.task)
    visuals = {
        "none": VisualRandomization.none,
        "mild": VisualRandomization.mild,
        "strong": VisualRandomization.strong,
        "held-out": VisualRandomization.held_out,
        "beyond": VisualRandomization.beyond,
    }[config.randomise]()
    task = make_vec_task(
        config.task,
        config.n,
        device=config.device,
        seed=config.seed,
        visuals=visuals,
        cameras=[CameraConfig(name, config.size, config.size, config.modalities) for name in cameras],
    )
    _make_folder(config.out)
    task.reset()
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.steps):
        actions = 2 * torch.rand(config.n, task.num_actions, generator=generator) - 1
        task.step(actions.to(task.device))
    sheet = view_sheet(task, config.scale, most=config.n)
    task.close()
    try:
        config.out.write_bytes(png_bytes(sheet))
    except OSError as error:
        raise OSError(f"cannot write {config.out} ({error.strerror}); choose another file by --out") from None
    if config.tensorboard is not None:
        log_sheet(config.tensorboard, f"views/{config.task}", sheet)
    return config.out


def _check_device(device: str) -> None:
    import torch

    try:
        known = torch.device(device).type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"--device must be cpu, cuda or cuda:<number of a GPU>, not {device!r}")


def _make_folder(out: Path) -> None:
    """Make the folder of a file that is to be written, before any work is done in vain."""
    if out.is_dir():
        raise OSError(f"{out} is a folder; give a file by --out, as {out / 'views.png'}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot make the folder {out.parent} ({error.strerror}); choose another file by --out"
        ) from None


def camera_names(task: str) -> tuple[str, ...]:
    """Cameras of a batched task's model.

    Raises:
        ValueError: when it has none, or there is no such task.
    """
    from tutelage.envs.batched.worlds.catalogue import make_vec_task

    probe = make_vec_task(task, 1, threads=1)
    names = tuple(probe.model.camera(i).name for i in range(probe.model.ncam))
    probe.close()
    if not names:
        raise ValueError(f"the task {task!r} has no camera; add one in its build_spec")
    return names


def view_sheet(task: VecTask, scale: int = 2, most: int = 16) -> NDArray[np.uint8]:
    """Lay out the present pictures of a task: a row for each camera and modality, a column an environment.

    Args:
        task: made with `cameras`.
        scale: pixels of the sheet for each of a picture.
        most: environments at most; the first ones are shown.

    Returns:
        uint8, ``(height, width, 3)``; for `RunLog.image`, or `png_bytes`.

    Raises:
        ValueError: when the task has no cameras, or pictures of several sizes.
    """
    from tutelage.envs.batched.looks.contact_sheet import contact_sheet

    if task.cameras is None:
        raise ValueError(f"{type(task).__name__} has no pictures; make it with cameras=[CameraConfig(...)]")
    pictures = {name: images[:most] for name, images in task.cameras.render().items()}
    columns = min(task.num_envs, most)
    labels = [label for name in pictures for label in [name, *[""] * (columns - 1)]]
    return contact_sheet(list(pictures.values()), columns, labels, scale)


def log_sheet(folder: Path, tag: str, sheet: NDArray[Any], step: int = 0) -> None:
    """Put a sheet into a TensorBoard log of its own, for the Images tab."""
    from tutelage.experiments.tensorboard.event_log import RunLog

    with RunLog(folder) as log:
        log.image(tag, sheet, step)


if __name__ == "__main__":
    import sys

    from tutelage.experiments.command import run_as_module

    sys.exit(run_as_module(ViewsConfig))
