"""The one place that knows both renderers and picks the one that fits a simulator."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from tutelage.envs.batched.cameras.camera_config import CameraConfig, Cameras, Modality, find_camera
from tutelage.envs.batched.simulators.simulator import SimulatorError

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.simulators.simulator import Simulator


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
