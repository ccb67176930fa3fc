"""Cameras of `tutelage.envs.batched.simulators.batch_simulator.BatchSimulator`: ray-casting on CPU threads.

Primitives are cast by `ray_caster`; meshes and height fields by MuJoCo's own rays, a
hundred times slower; both are coloured by `shader`. Arrays are made once, and returned
as tensors that share their memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import TEXTURE_FIELDS, CameraConfig, find_camera
from tutelage.envs.batched.cameras.ray_caster import HFIELD, MESH, SDF, TIE, Floats, Geoms, View, cast
from tutelage.envs.batched.cameras.shader import shade
from tutelage.envs.batched.cameras.shading import (
    VISIBLE_GROUPS,
    Lights,
    Skins,
    make_lights,
    make_skins,
    resolve_colours,
    texture_geoms,
)
from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator
from tutelage.envs.batched.task.rows import Rows

Floats64 = NDArray[np.float64]

MOST_PASSES = 5  # of a ray through a height field
RAYS_AT_ONCE = 1 << 18  # of MuJoCo's own; bounds the memory that they take


class CpuCameras:
    """Renders primitives by vectorised ray-casting, with as many threads as the simulator has.

    Depth and segmentation are those of ``mj_ray`` (depth within 1e-4 relative; pixels on edges may differ),
    but for what Warp's renderer does not draw: inner surfaces of geoms, and sides of height fields.
    Fields that may differ between environments: `VISUAL_FIELDS` and
    `TEXTURE_FIELDS`, ``geom_size``, and fields that move geoms, cameras and lights; others are read from the
    model once.

    Args:
        simulator: whose environments to render.
        configs: cameras; checked by `tutelage.envs.batched.cameras.factory.make_cameras`.
    """

    def __init__(self, simulator: BatchSimulator, configs: Sequence[CameraConfig]) -> None:
        self.simulator = simulator
        model, n = simulator.model, simulator.num_envs
        drawn = np.isin(model.geom_group, VISIBLE_GROUPS)
        rayed = np.isin(model.geom_type, (HFIELD, MESH, SDF)) & drawn
        self._primitives = np.flatnonzero(drawn & ~rayed).astype(np.int32)
        self._rayed = np.append(rayed, False)  # the last one for "no geom", -1
        self._hills = np.append(model.geom_type == HFIELD, False)
        self._types = model.geom_type.astype(np.int32)
        self._skins = make_skins(
            model,
            np.zeros((1, model.ngeom, 3), np.float32),
            *(np.asarray(getattr(model, name))[None] for name in TEXTURE_FIELDS),
        )
        self._textured = not set(TEXTURE_FIELDS).isdisjoint(simulator.model_fields)
        self._cameras = [_Camera(model, n, config, bool(rayed.any())) for config in configs]
        self._pool = ThreadPoolExecutor(simulator.batch.nthread, thread_name_prefix="cameras")
        self.render(Rows.of_indices(torch.zeros(0, dtype=torch.int64), n))  # compiles

    def render(self, rows: Rows | None = None) -> dict[str, Tensor]:
        """Take all pictures; see `tutelage.envs.batched.cameras.camera_config.Cameras.render`."""
        sim = self.simulator
        if rows is None:
            envs = np.arange(sim.num_envs)
        else:
            envs = np.flatnonzero(rows.mask.numpy()) if rows.masked else rows.indices.numpy()
        position, rotation = self._poses("geom_xpos"), self._poses("geom_xmat")
        rgba = resolve_colours(self._values("geom_rgba"), self._values("mat_rgba"), sim.model.geom_matid)
        visible = np.ascontiguousarray(rgba[..., 3] != 0)
        geoms = Geoms(self._primitives, self._types, visible, self._values("geom_size"), position, rotation)
        skins = self._skins._replace(colour=np.ascontiguousarray(rgba[..., :3]))
        if self._textured:
            texture, repeat = texture_geoms(sim.model, *map(self._values, TEXTURE_FIELDS))
            skins = skins._replace(texture=texture, repeat=repeat)
        lights = make_lights(
            sim.model, self._poses("light_xpos"), self._poses("light_xdir"), self._values("light_diffuse")
        )
        for camera in self._cameras:
            view = View(
                np.ascontiguousarray(self._poses("cam_xpos")[:, camera.id]),
                np.ascontiguousarray(self._poses("cam_xmat")[:, camera.id]),
                camera.frustum(self._values("cam_fovy")),
                camera.columns,
                camera.rows,
                camera.far,
            )
            self._render(camera, envs, geoms, view, lights, skins)
        return {name: image for camera in self._cameras for name, image in camera.images.items()}

    def _render(
        self, camera: _Camera, envs: NDArray[np.int64], geoms: Geoms, view: View, lights: Lights, skins: Skins
    ) -> None:
        parts = np.array_split(envs, min(self.simulator.batch.nthread, max(1, len(envs))))
        depth, segmentation = camera.depth, camera.segmentation

        def colour(part: NDArray[np.int64]) -> None:
            if camera.rgb is not None:
                shade(part, geoms, view, lights, skins, depth, segmentation, camera.normals, camera.rgb)

        def render(part: NDArray[np.int64]) -> None:
            cast(part, geoms, view, depth, segmentation)
            if not len(camera.normals):
                colour(part)

        list(self._pool.map(render, parts))
        if len(camera.normals):
            block = max(1, RAYS_AT_ONCE // depth[0].size)
            for start in range(0, len(envs), block):
                self._add_rayed(camera, envs[start : start + block], geoms, view)
            list(self._pool.map(colour, parts))

    def _add_rayed(self, camera: _Camera, envs: NDArray[np.int64], geoms: Geoms, view: View) -> None:
        """Put meshes and height fields in front of what is farther away."""
        frustum = np.broadcast_to(view.frustum, (self.simulator.num_envs, 4))[envs].astype(np.float64)
        x = frustum[:, :1] + frustum[:, 1:2] * view.columns
        y = frustum[:, 2:3] + frustum[:, 3:] * view.rows
        eye, turn = view.position[envs][:, None].astype(np.float64), view.rotation[envs].reshape(-1, 3, 3)
        columns, rows = self._bounds(x, y, (geoms.position[envs][:, self._rayed[:-1]] - eye) @ turn)
        if columns.start >= columns.stop or rows.start >= rows.stop:
            return
        rays = np.stack(np.broadcast_arrays(x[:, None, columns], y[:, rows, None], -1.0), axis=-1)
        shape = rays.shape[:3]
        rays = rays.reshape(len(envs), -1, 3) @ turn.transpose(0, 2, 1)
        distance, geom, normal = self._first_hits(envs, eye, rays, geoms)
        distance, geom = distance.reshape(shape).astype(np.float32), geom.reshape(shape)
        part = envs, rows, columns
        nearer = self._rayed[geom] & (distance <= np.minimum(camera.depth[part] * TIE, view.far))
        camera.depth[part] = np.where(nearer, distance, camera.depth[part])
        camera.segmentation[part] = np.where(nearer, geom, camera.segmentation[part])
        camera.normals[part] = normal.reshape(*shape, 3)

    def _first_hits(
        self, envs: NDArray[np.int64], eye: Floats64, rays: Floats64, geoms: Geoms
    ) -> tuple[Floats64, NDArray[np.int32], Floats64]:
        """Distances, geoms and normals by MuJoCo's rays, through what of height fields Warp does not draw.

        That is their sides, all faces from below, and the top of the slab that they stand on.
        """
        groups, ids = np.isin(np.arange(mujoco.mjNGROUP), VISIBLE_GROUPS), envs.astype(np.int32)
        centres, upright = geoms.position[envs], geoms.rotation[envs][:, :, 2::3]
        start = np.zeros(rays.shape[:2])
        for _ in range(MOST_PASSES):
            origin = eye + start[..., None] * rays
            distance, geom, normal = self.simulator.batch.ray(origin, rays, groups, ids=ids, normal=True)
            which = np.maximum(geom, 0)[..., None]
            axis, centre = (np.take_along_axis(of, which, 1) for of in (upright, centres))
            height = ((origin + distance[..., None] * rays - centre) * axis).sum(-1)
            hidden = ((normal * axis).sum(-1) < 1e-6) | ((normal * rays).sum(-1) > 0)
            hidden |= (start > 0) & (height < 1e-6)
            hidden &= self._hills[geom]
            if not hidden.any():
                break
            start = np.where(hidden, start + distance + 1e-6, start)
        return start + distance, np.where(hidden, -1, geom), normal

    def _bounds(self, x: Floats64, y: Floats64, centres: Floats64) -> tuple[slice, slice]:
        """Columns and rows of pixels that can show a mesh or height field in any environment.

        Args:
            x, y: slopes of the pixels' rays, ``(n, width)`` and ``(n, height)``.
            centres: of the geoms, in the camera's frame, ``(n, count, 3)``.
        """
        radius = self.simulator.model.geom_rbound[self._rayed[:-1]]
        ahead, ranges = -centres[..., 2], []
        space = ahead**2 - radius**2
        for side, slopes in ((centres[..., 0], x), (centres[..., 1], y)):
            reach = radius * np.sqrt(np.maximum(side**2 + space, 0))
            around = (ahead <= radius) | (space <= 0)
            low = np.where(around, -np.inf, (side * ahead - reach) / np.maximum(space, 1e-12))
            high = np.where(around, np.inf, (side * ahead + reach) / np.maximum(space, 1e-12))
            low, high = low[ahead > -radius].min(initial=np.inf), high[ahead > -radius].max(initial=-np.inf)
            seen = np.flatnonzero(((slopes >= low) & (slopes <= high)).any(0))
            ranges.append(slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0))
        return ranges[0], ranges[1]

    def _values(self, name: str) -> Floats:
        """A field of the model, ``(num_envs or 1, ...)``."""
        if name in self.simulator.model_fields:
            return self.simulator.read_model(name).numpy()
        values: Floats = np.asarray(getattr(self.simulator.model, name), np.float32)[None]
        return values

    def _poses(self, name: str) -> Floats:
        """A field of the data, ``(num_envs, count, 3 or 9)``."""
        values: Floats = self.simulator.read(name).numpy()
        return values.reshape(*values.shape[:2], math.prod(values.shape[2:]))


class _Camera:
    """Arrays and optics of one configured camera."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, config: CameraConfig, normals: bool) -> None:
        self.id = find_camera(model, config.camera)
        height, width = config.height, config.width
        self.columns = ((2 * np.arange(width) + 1) / width - 1).astype(np.float32)
        self.rows = (1 - (2 * np.arange(height) + 1) / height).astype(np.float32)
        self.far = np.float32(model.vis.map.zfar * model.stat.extent)
        self.depth = np.full((num_envs, height, width), np.inf, np.float32)
        self.segmentation = np.full((num_envs, height, width), -1, np.int32)
        self.rgb = np.zeros((num_envs, height, width, 3), np.uint8) if "rgb" in config.modalities else None
        self.normals = np.zeros((num_envs if normals else 0, height, width, 3), np.float32)
        arrays = {"rgb": self.rgb, "depth": self.depth, "segmentation": self.segmentation}
        name = config.camera
        self.images = {f"{name}/{kind}": torch.from_numpy(arrays[kind]) for kind in config.modalities}
        self._aspect = width / height
        self._sensor = model.cam_sensorsize[self.id]
        self._focal_and_centre = model.cam_intrinsic[self.id]

    def frustum(self, fovy: Floats) -> Floats:
        """Centre and half width, centre and half height of the picture at distance 1, ``(n, 4)``."""
        width, height = self._sensor
        if height > 0:  # a camera with a lens: the field of view plays no part
            if self._aspect * height > width:
                height = width / self._aspect
            else:
                width = height * self._aspect
            fx, fy, cx, cy = self._focal_and_centre
            return np.array([[cx / fx, width / 2 / fx, -cy / fy, height / 2 / fy]], np.float32)
        half = np.tan(np.deg2rad(fovy[:, self.id]) / 2)
        zero = np.zeros_like(half)
        return np.stack([zero, half * np.float32(self._aspect), zero, half], axis=1).astype(np.float32)
