"""Cameras of batched environments: what to render, and the front that picks the renderer for a simulator.

Depth is the distance along the ray in metres; segmentation is the id of the geom, -1 for nothing. The
renderers agree on both exactly, and on one rule for colours and light, stated in `tutelage.envs.batched.shading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor

from tutelage.envs.batched.rows import Rows

if TYPE_CHECKING:
    from tutelage.envs.batched.simulator import Simulator

Modality = Literal["rgb", "depth", "segmentation"]

VISUAL_FIELDS = ("geom_rgba", "light_pos", "light_diffuse", "cam_pos", "cam_quat", "cam_fovy")
"""Fields of the model that renderers read per environment where the simulator has them per environment."""


@dataclass(frozen=True)
class CameraConfig:
    """One camera of the model, and what it takes.

    Attributes:
        camera: its name in the model; it may be attached to a body or to the world.
        width, height: pixels.
        modalities: ``rgb`` (uint8, ``(num_envs, height, width, 3)``), ``depth`` (float32, ``(num_envs,
            height, width)``, metres, infinite for nothing), ``segmentation`` (int32, the same shape).
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
        ValueError: when the model has no such camera; the message names those it has.
    """
    raise NotImplementedError
