"""Cameras of batched environments: their config, and the factory that picks the renderer for a simulator.

Two renderers, `cpu_cameras` and `tutelage.envs.batched.cameras.warp_cameras`, take the same
pictures: the geom is the same in 99.9 % of the pixels (the others lie on edges), and where it is, depth
within 1e-4 of its value; colours, by the rule of `tutelage.envs.batched.cameras.shading`, within 2 of 255.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor

from tutelage.envs.batched.task.rows import Rows

if TYPE_CHECKING:
    import mujoco


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
