"""Cameras of `WarpSimulator`: ``mujoco_warp``'s batch ray-caster.

Runs on CUDA, and on Warp's CPU device for tests of the same code. Everything from the tree of bounding boxes
to the finished pictures is one captured graph: a picture costs one launch, and nothing waits for the GPU.
"""

# Warp compiles kernels from their source, and its arrays have no members for a type checker to see.
# mypy: disable-error-code="index, misc"

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mujoco
import mujoco_warp
import numpy as np
import torch
import warp as wp
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig, find_camera
from tutelage.envs.batched.cameras.shading import BACKGROUND, VISIBLE_GROUPS, drawn_textures
from tutelage.envs.batched.simulators.warp_simulator import WarpSimulator
from tutelage.envs.batched.task.rows import Rows


@wp.kernel
def _unpack_rgb(packed: wp.array2d[wp.uint32], start: int, rgb: wp.array3d[wp.uint8]) -> None:
    env, pixel = wp.tid()
    value = packed[env, start + pixel]
    for channel in range(3):
        shift = wp.uint32(16 - 8 * channel)
        rgb[env, pixel, channel] = wp.uint8((value >> shift) & wp.uint32(255))


@wp.kernel
def _unpack_depth(raw: wp.array2d[float], start: int, depth: wp.array2d[float]) -> None:
    env, pixel = wp.tid()
    value = raw[env, start + pixel]
    depth[env, pixel] = wp.where(value > 0.0, value, wp.inf)  # it writes 0 for nothing


@wp.kernel
def _unpack_segmentation(raw: wp.array2d[wp.vec2i], start: int, geom: wp.array2d[int]) -> None:
    env, pixel = wp.tid()
    geom[env, pixel] = raw[env, start + pixel][0]


class WarpCameras:
    """Renders all environments for any rows: the batch renderer knows no subsets.

    Args:
        simulator: whose environments to render.
        configs: cameras; checked by `tutelage.envs.batched.cameras.factory.make_cameras`.
    """

    def __init__(self, simulator: WarpSimulator, configs: Sequence[CameraConfig]) -> None:
        self.simulator = simulator
        device = wp.device_from_torch(simulator.device)
        model, n = simulator.model, simulator.num_envs
        wanted = {
            kind: [kind in config.modalities for config in configs]
            for kind in ("rgb", "depth", "segmentation")
        }
        textures = drawn_textures(model)
        with wp.ScopedDevice(device):
            self._model = _without_other_textures(simulator, textures)
            self._context = mujoco_warp.create_render_context(
                model,
                n,
                cam_active=[find_camera(model, config.camera) for config in configs],
                cam_res=[(config.width, config.height) for config in configs],
                render_rgb=wanted["rgb"],
                render_depth=wanted["depth"],
                render_seg=wanted["segmentation"],
                use_textures="mat_texid" in simulator.model_fields or bool((textures >= 0).any()),
                use_precomputed_rays="cam_fovy" not in simulator.model_fields,
                enabled_geom_groups=list(VISIBLE_GROUPS),
                # to the middle of the byte, as it cuts off what follows the point
                background_color=(*((byte + 0.5) / 255 for byte in BACKGROUND), 1.0),
                enable_specular=False,
                enable_emission=bool(model.mat_emission.any()),
                enable_per_light_ambient=bool(model.light_ambient.any()),
                enable_vertex_normals=False,  # flat faces, as mj_ray's normals
            )
        self._images: dict[str, Tensor] = {}
        self._unpacking: list[tuple[Any, Any, int, Any]] = []
        for i, config in enumerate(configs):
            for kind in config.modalities:
                self._images[f"{config.camera}/{kind}"] = self._make_image(i, config, kind)
        with wp.ScopedDevice(device):
            wp.synchronize_device()
            self._work()  # compiles and loads kernels, which a GPU cannot do during a capture
            with wp.ScopedCapture() as capture:
                self._work()
            wp.synchronize_device()
        self._graph = capture.graph

    def render(self, rows: Rows | None = None) -> dict[str, Tensor]:
        """Take all pictures; see `tutelage.envs.batched.cameras.camera_config.Cameras.render`."""
        with self.simulator.scope():
            wp.capture_launch(self._graph)
        return dict(self._images)

    def _make_image(self, i: int, config: CameraConfig, kind: str) -> Tensor:
        """The tensor of one picture; what fills it joins `_unpacking`."""
        rc, pixels = self._context, config.width * config.height
        shape: tuple[int, ...] = (self.simulator.num_envs, pixels)
        if kind == "rgb":
            shape, dtype, step = (*shape, 3), torch.uint8, (_unpack_rgb, rc.rgb_data, rc.rgb_adr)
        elif kind == "depth":
            dtype, step = torch.float32, (_unpack_depth, rc.depth_data, rc.depth_adr)
        else:
            dtype, step = torch.int32, (_unpack_segmentation, rc.seg_data, rc.seg_adr)
        image = torch.zeros(shape, dtype=dtype, device=self.simulator.device)
        kernel, raw, starts = step
        self._unpacking.append((kernel, raw, int(starts.numpy()[i]), wp.from_torch(image)))
        return image.view(shape[0], config.height, config.width, *shape[2:])

    def _work(self) -> None:
        mujoco_warp.refit_bvh(self._model, self.simulator.mjw_data, self._context)
        mujoco_warp.render(self._model, self.simulator.mjw_data, self._context)
        for kernel, raw, start, image in self._unpacking:
            wp.launch(kernel, dim=image.shape[:2], inputs=[raw, start], outputs=[image])


def _without_other_textures(simulator: WarpSimulator, textures: np.ndarray[Any, Any]) -> Any:
    """The Warp model, sharing all arrays, with no textures but those that both renderers draw."""
    m, model = simulator.mjw_model, simulator.model
    role = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
    if (model.mat_texid[:, role] == textures).all():
        return m
    texid = model.mat_texid[None].astype(np.int32)
    texid[0, :, role] = textures
    if "mat_texid" in simulator.model_fields:  # of every environment, and to be written to: no copy
        own = torch.from_numpy(texid).expand(simulator.num_envs, -1, -1)
        simulator.write_model("mat_texid", own.to(simulator.device))
        return m
    m = copy.copy(m)
    m.mat_texid = wp.array(texid, dtype=int)
    return m
