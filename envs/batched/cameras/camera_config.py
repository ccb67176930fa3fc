"""Cameras of batched environments: their config, and the factory that picks the renderer for a simulator.

Two renderers, `cpu_cameras` and `tutelage.envs.batched.cameras.warp_cameras`, take the same
pictures: the geom is the same in 99.9 % of the pixels (the others lie on edges), and where it is, depth
within 1e-4 of its value; colours, by the rule of `tutelage.envs.batched.cameras.shading`, within 2 of 255.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from torch import Tensor

from tutelage.envs.batched.simulators.simulator import SimulatorError
from tutelage.envs.batched.task.rows import Rows

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.simulators.simulator import Simulator

Modality = Literal["rgb", "depth", "segmentation"]

VISUAL_FIELDS = (
    *("geom_rgba", "light_pos", "light_pos0", "light_poscom0", "light_diffuse"),
    *("cam_pos", "cam_pos0", "cam_poscom0", "cam_quat", "cam_mat0", "cam_fovy"),
)
"""Fields of the model that pictures follow per environment where the simulator has them per environment.

``pos0``, ``poscom0`` and ``mat0`` are what places cameras and lights that track a body.
"""

TEXTURE_FIELDS = ("mat_texid", "mat_texrepeat")
"""Likewise: the textures of materials, and how often they are repeated."""


@dataclass(frozen=True)
class CameraConfig:
    """One camera of the model: its size, its modalities.

    Depth is the distance along the camera's axis, as depth cameras and MuJoCo's own renderer give it (not
    along the ray of the pixel). Beyond the model's ``visual/map/zfar`` (times its extent) nothing is seen.

    Attributes:
        camera: its name in the model; it may be attached to a body or to the world.
        width, height: pixels.
        modalities: ``rgb`` (uint8, ``(num_envs, height, width, 3)``), ``depth`` (float32, ``(num_envs,
            height, width)``, metres, infinite for nothing), ``segmentation`` (int32, the same shape: the id
            of the geom, -1 for nothing).
    """

    camera: str
    width: int = 64
    height: int = 64
    modalities: tuple[Modality, ...] = ("rgb",)


class Cameras(Protocol):
    """Renders the cameras of all environments of a simulator."""

    def render(self, rows: Rows | None = None) -> dict[str, Tensor]:
        """Take all pictures; the simulator must be up to date (`Simulator.forward`).

        Args:
            rows: render at least these; the others' pictures may stay as they are.

        Returns:
            ``"<camera>/<modality>"`` -> tensor of all environments, overwritten by the next call.
        """
        ...


def make_cameras(simulator: Simulator, configs: Sequence[CameraConfig]) -> Cameras:
    """Make the renderer that fits a simulator.

    Raises:
        ValueError: when the model has no such camera, or one that cannot be rendered; for a modality that
            does not exist, a picture without pixels, or the same picture twice.
        SimulatorError: when a package is missing.
    """
    _check(simulator.model, configs)
    from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator

    if isinstance(simulator, BatchSimulator):
        try:
            from tutelage.envs.batched.cameras.cpu_cameras import CpuCameras
        except ImportError as error:
            raise SimulatorError(f"cameras on the CPU need numba ({error}): pip install numba") from error
        return CpuCameras(simulator, configs)
    try:
        from tutelage.envs.batched.cameras.warp_cameras import WarpCameras
        from tutelage.envs.batched.simulators.warp_simulator import WarpSimulator
    except ImportError as error:
        raise SimulatorError(f"cameras on Warp need it ({error}): pip install 'tutelage[warp]'") from error
    if not isinstance(simulator, WarpSimulator):
        raise TypeError(f"no cameras for {type(simulator).__name__}; known: BatchSimulator, WarpSimulator")
    return WarpCameras(simulator, configs)


def find_camera(model: mujoco.MjModel, name: str) -> int:
    """Id of a camera.

    Raises:
        ValueError: when the model has no such camera; the message names those it has.
    """
    names = [model.camera(i).name for i in range(model.ncam)]
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    known = ", ".join(filter(None, names)) or "none with a name"
    raise ValueError(f"the model has no camera {name!r}{hint} (known: {known})")


def _check(model: mujoco.MjModel, configs: Sequence[CameraConfig]) -> None:
    pictures = []
    for config in configs:
        camera = find_camera(model, config.camera)
        if int(model.cam_projection[camera]) != 0:
            raise ValueError(f"camera {config.camera!r} is orthographic; only perspective ones are rendered")
        if config.width < 1 or config.height < 1:
            size = f"{config.width} x {config.height}"
            raise ValueError(f"camera {config.camera!r} has no pixels: {size}; give width and height >= 1")
        if isinstance(config.modalities, str) or not config.modalities:
            raise ValueError(
                f"modalities of camera {config.camera!r} are {config.modalities!r}; give a tuple, as ('rgb',)"
            )
        for modality in config.modalities:
            if modality not in get_args(Modality):
                near = difflib.get_close_matches(modality, get_args(Modality), 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                known = ", ".join(get_args(Modality))
                raise ValueError(f"unknown modality {modality!r}{hint} (known: {known})")
            if (picture := f"{config.camera}/{modality}") in pictures:
                raise ValueError(f"picture {picture!r} is configured twice")
            pictures.append(picture)
    if model.nflex:
        raise ValueError("models with soft bodies (flex) are not rendered; remove them or give no cameras")
