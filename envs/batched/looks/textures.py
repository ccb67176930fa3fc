"""Textures of geoms, and which geom of an episode has which: `VisualRandomization`'s part in patterns.

Colours multiply textures, and those of `texture_patterns` are grey: whatever pattern a
geom is given, its hue is the one that was drawn for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.cameras.shading import VISIBLE_GROUPS, drawn_textures
from tutelage.envs.batched.looks.texture_patterns import SIZE, TextureFamily, make_bitmaps

if TYPE_CHECKING:
    from tutelage.envs.batched.looks.colours import GeomColours

Floats64 = NDArray[np.float64]

TILES = 2
"""Repetitions, about, of a bitmap from top to bottom of a picture: features keep pixels enough at 64 x 64."""

FEWEST = 0.5
"""Repetitions on geoms that are small: a part of the bitmap will do."""

SCALE = (0.7, 1.4)
"""Least and most that a group's repetitions are multiplied by, uniform in the logarithm."""

_PREFIX = "tutelage/"  # of textures' and materials' names
_RGB = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
_COPIED = (
    *("rgba", "emission", "specular", "shininess", "reflectance", "metallic", "roughness"),
    *("texuniform", "texrepeat"),
)


def add_textures(spec: mujoco.MjSpec, model: mujoco.MjModel, kept: set[int]) -> bool:
    """Add the bitmaps to a spec, and materials that can have any of them to its geoms.

    Until a texture is drawn the geoms look as before: the materials are copies of those that they had. Geoms
    of one look and about one size share a material. Meshes keep theirs, as only one renderer draws textures
    on them. Physics is not touched.

    Args:
        spec: is to be compiled again.
        model: just compiled from it.
        kept: geoms that never have a texture.

    Returns:
        Whether there is anything to texture; if not, the spec is as it was.
    """
    geoms = texturable_geoms(model, kept)
    if not geoms:
        return False
    for name, shades in make_bitmaps().items():
        texture = spec.add_texture(
            name=_PREFIX + name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=SIZE, height=SIZE, nchannel=3
        )
        texture.data = np.repeat(shades, 3).tobytes()
    repeats, closed = tile_geoms(model)
    materials: dict[tuple[object, ...], str] = {}
    spec_geoms = {geom.id: geom for geom in spec.geoms}
    for i in geoms:
        geom = spec_geoms[i]
        look = (*model.geom_rgba[i].tolist(), geom.material, *repeats[i].tolist(), bool(closed[i]))
        if look not in materials:
            materials[look] = f"{_PREFIX}{len(materials)}"
            _copy_material(spec, geom.material, materials[look])
        geom.material = materials[look]
    return True


def _copy_material(spec: mujoco.MjSpec, original: str, name: str) -> None:
    copied = spec.add_material(name=name)
    if not original:
        copied.rgba = [0.5, 0.5, 0.5, 1.0]  # what a geom without material and colour has
        return
    material = spec.material(original)
    for attribute in _COPIED:
        setattr(copied, attribute, getattr(material, attribute))
    for role, texture in enumerate(material.textures):
        copied.textures[role] = texture


def texturable_geoms(model: mujoco.MjModel, kept: set[int]) -> list[int]:
    """Geoms, but those `kept`, on which both renderers draw textures."""
    flat = model.geom_type <= int(mujoco.mjtGeom.mjGEOM_BOX)
    drawn = np.isin(model.geom_group, VISIBLE_GROUPS)
    return [i for i in range(model.ngeom) if flat[i] and drawn[i] and i not in kept]


def tile_length(model: mujoco.MjModel) -> float:
    """Metres that a bitmap should cover: the height of the scene that the cameras see, over `TILES`.

    Cameras of the world see it at the distance of the model's centre, those that track a body at its
    distance; of several the one that sees most counts. Without any it is the model's extent.
    """
    data = mujoco.MjData(model)
    for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
        stage(model, data)
    tracks = (int(mujoco.mjtCamLight.mjCAMLIGHT_TRACK), int(mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM))
    heights = []
    for i, body in enumerate(model.cam_bodyid):
        if int(model.cam_mode[i]) in tracks:
            distance = np.linalg.norm(model.cam_pos0[i])
        elif model.body_weldid[body] == 0:
            distance = np.linalg.norm(data.cam_xpos[i] - model.stat.center)
        else:
            continue
        heights.append(2 * float(distance) * math.tan(math.radians(float(model.cam_fovy[i])) / 2))
    return (max(heights, default=0.0) or float(model.stat.extent)) / TILES


def tile_geoms(model: mujoco.MjModel) -> tuple[Floats64, NDArray[np.bool_]]:
    """Repetitions of a bitmap along both axes of geoms' textures, ``(ngeom, 2)``, and where the first closes.

    As many as cover it with tiles of `tile_length`, at least `FEWEST`. Around spheres, cylinders and capsules
    the first axis closes: there their number must be whole, so that there is no seam.
    """
    tile, shapes = tile_length(model), mujoco.mjtGeom
    repeats, closed = np.ones((model.ngeom, 2)), np.zeros(model.ngeom, bool)
    for i, (x, y, z) in enumerate(model.geom_size):
        kind = shapes(int(model.geom_type[i]))
        if kind in (shapes.mjGEOM_PLANE, shapes.mjGEOM_HFIELD):
            extents = 2 * x, 2 * y
        elif kind == shapes.mjGEOM_BOX:  # one pair for all faces: the mean of their sides, by area
            top, front, side = x * y, x * z, y * z
            sides = (x * (top + front) + y * side, y * top + z * (front + side))
            extents = 2 * sides[0] / (top + front + side), 2 * sides[1] / (top + front + side)
        else:
            closed[i] = True
            heights = {shapes.mjGEOM_SPHERE: math.pi * x, shapes.mjGEOM_ELLIPSOID: math.pi * z}
            extents = 2 * math.pi * x, heights.get(kind, 2 * y)
        repeats[i] = np.maximum(FEWEST, np.divide(extents, tile))
        if kind == shapes.mjGEOM_PLANE:  # infinite ones: MuJoCo's unit is 2 m
            repeats[i] = np.where(np.equal(extents, 0), 2 / tile, repeats[i])
        if model.geom_matid[i] >= 0 and model.mat_texuniform[model.geom_matid[i]]:
            repeats[i] = 2 / tile  # times half sizes
            closed[i] = False
    return repeats, closed


class GeomTextures:
    """Textures of a model's geoms, as constants on the device, from which those of episodes are drawn.

    Args:
        colours: whose groups of geoms have a texture in common.
        textured: probability that a group gets a texture in place of its own.
        family: of textures, to draw from.
        model: compiled from a spec that `add_textures` prepared, or any other: then there are none.
        device: where textures are drawn.

    Attributes:
        any: whether the model has anything to texture.

    Raises:
        ValueError: when the configuration asks for textures that the model could have, but has not.
    """

    def __init__(
        self,
        colours: GeomColours,
        textured: float,
        family: TextureFamily,
        model: mujoco.MjModel,
        device: torch.device,
    ) -> None:
        self.textured = textured
        ours = [model.mat(i).name.startswith(_PREFIX) for i in range(model.nmat)]
        self.any = any(ours)
        if not self.any:
            if textured and texturable_geoms(model, colours.kept_geoms):
                raise ValueError(
                    "the model has no textures to draw from: call visuals.prepare(spec) before it is "
                    "compiled, and give the simulator the model_fields that this returns"
                )
            return
        repeats, closed = tile_geoms(model)
        geom_of = dict.fromkeys(range(model.nmat), 0)  # one of those that have the material
        geom_of |= {int(material): geom for geom, material in enumerate(model.geom_matid) if material >= 0}
        geoms = list(geom_of.values())
        texid = model.mat_texid.astype(np.int32)
        texid[:, _RGB] = drawn_textures(model)
        names = [model.tex(i).name for i in range(model.ntex)]

        def constant(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        self._choice = constant(
            [i for i, name in enumerate(names) if name.startswith(f"{_PREFIX}{family}/")], torch.int32
        )
        self._ours = constant(ours, torch.bool)
        self._group = colours.group_of_geom[constant(geoms, torch.int64)]
        self._texid, self._own_repeat = constant(texid, torch.int32), constant(model.mat_texrepeat)
        self._repeat = constant(repeats[geoms])
        self._whole = constant(np.stack([closed, np.zeros_like(closed)], 1)[geoms], torch.bool)

    def draw(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Fields ``mat_texid`` and ``mat_texrepeat``, of uniform numbers ``(n, groups, 3)``."""
        textured, which, size = unit[:, self._group].unbind(-1)
        drawn = self._ours & (textured < self.textured)
        last = len(self._choice) - 1
        texture = self._choice[(which * (last + 1)).to(torch.int64).clamp(max=last)]
        texid = self._texid.repeat(len(unit), 1, 1)
        texid[..., _RGB] = torch.where(drawn, texture, texid[..., _RGB])
        low, high = SCALE
        repeat = self._repeat * (low * (high / low) ** size)[..., None]
        repeat = torch.where(self._whole, repeat.round().clamp(min=1.0), repeat)
        return texid, torch.where(drawn[..., None], repeat, self._own_repeat)
