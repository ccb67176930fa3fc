"""The rule for colours and light that all camera renderers follow, and what it needs of the model.

`tutelage.envs.batched.shader` computes it on CPU threads. It is what ``mujoco_warp``'s batch renderer
computes with specular light and shadows off:

- The *colour* of a geom is its ``geom_rgba``; where that is MuJoCo's default (0.5, 0.5, 0.5, 1) and the geom
  has a material, the material's ``mat_rgba``. It is multiplied by the material's 2-D texture, if any,
  interpolated between texels (height fields and primitives; on meshes only Warp draws textures). Alpha 0
  makes a geom invisible, any other alpha is opaque. Geoms of groups 0 to 2 are drawn.
- *Light* is colour x (emission + ambient + sum of diffuse lights), clipped to 1. Ambient: the headlight's and
  every active light's (0.3 if there is neither a headlight nor a light). Diffuse: ``light_diffuse`` x
  attenuation x cosine of the angle to the surface's normal, spotlights within their cut-off only and
  x cosine ** exponent; the headlight shines along the camera's axis.
- Where there is nothing, `BACKGROUND`.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from tutelage.envs.batched.ray_caster import Floats

BACKGROUND = (118, 138, 158)
"""RGB of pixels that show nothing."""

VISIBLE_GROUPS = (0, 1, 2)
_DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], np.float32)


class Lights(NamedTuple):
    """Lights of the model; a leading 1 instead of `num_envs` means shared.

    Attributes:
        position, direction: ``(num_envs, nlight, 3)``, in the world.
        diffuse: ``(num_envs or 1, nlight, 3)``.
        kinds: ``mjtLightType``, -1 for lights that are off; int32.
        falloff: ``(nlight, 5)``: attenuation (constant, linear, quadratic), cosine of the cut-off, exponent.
        headlight: its diffuse colour, ``(3,)``; zero if it is off.
        ambient: of all lights, ``(3,)``.
    """

    position: Floats
    direction: Floats
    diffuse: Floats
    kinds: NDArray[np.int32]
    falloff: Floats
    headlight: Floats
    ambient: Floats


class Skins(NamedTuple):
    """Looks of the geoms.

    Attributes:
        colour: ``(num_envs or 1, ngeom, 3)``.
        emission: ``(ngeom,)``.
        texture: ``(ngeom, 3)``: first texel, width and height; first texel -1 for none. int64.
        repeat: ``(ngeom, 3)``: repetitions along both axes, and whether they are per metre.
        texels: RGB of all textures, 0 to 1, ``(n, 3)``.
    """

    colour: Floats
    emission: Floats
    texture: NDArray[np.int64]
    repeat: Floats
    texels: Floats


def resolve_colours(geom_rgba: Floats, mat_rgba: Floats, matid: NDArray[np.int32]) -> Floats:
    """RGBA of geoms by the rule above, ``(num_envs or 1, ngeom, 4)``."""
    if not mat_rgba.shape[1]:
        return geom_rgba
    plain = (matid >= 0) & (geom_rgba == _DEFAULT_RGBA).all(-1)
    return np.where(plain[..., None], mat_rgba[:, np.maximum(matid, 0)], geom_rgba)


def drawn_textures(model: mujoco.MjModel) -> NDArray[np.int32]:
    """The texture of each material, -1 for none: 2-D ones alone, held in the model."""
    texture = model.mat_texid[:, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)].copy()
    if model.ntex:
        flat = model.tex_type[texture] == int(mujoco.mjtTexture.mjTEXTURE_2D)
        texture[~flat | (model.tex_adr[texture] < 0)] = -1
    return texture


def make_skins(model: mujoco.MjModel, colour: Floats) -> Skins:
    """Looks of a model's geoms, of given colours, ``(num_envs or 1, ngeom, 3)``."""
    emission = np.zeros(model.ngeom, np.float32)
    texture = np.full((model.ngeom, 3), -1, np.int64)
    repeat = np.zeros((model.ngeom, 3), np.float32)
    material_textures = drawn_textures(model)
    texels = [np.zeros((0, 3), np.float32)]
    first_texel: dict[int, int] = {}
    for geom, material in enumerate(model.geom_matid):
        if material < 0:
            continue
        emission[geom] = model.mat_emission[material]
        repeat[geom] = *model.mat_texrepeat[material], model.mat_texuniform[material]
        tex = int(material_textures[material])
        if tex < 0:
            continue
        height, width, channels = model.tex_height[tex], model.tex_width[tex], model.tex_nchannel[tex]
        if tex not in first_texel:
            first_texel[tex] = sum(map(len, texels))
            data = model.tex_data[model.tex_adr[tex] :][: height * width * channels]
            rgb = np.zeros((height * width, 3), np.float32)  # of one channel: red, as on Warp
            rgb[:, :channels] = data.reshape(-1, channels)[:, :3] / np.float32(255)
            texels.append(rgb)
        texture[geom] = first_texel[tex], width, height
    return Skins(colour, emission, texture, repeat, np.concatenate(texels))


def make_lights(model: mujoco.MjModel, position: Floats, direction: Floats, diffuse: Floats) -> Lights:
    """Lights of a model, where they are and with the colours that they have."""
    headlight = model.vis.headlight
    active = model.light_active.astype(bool)
    ambient = model.light_ambient[active].sum(0)
    if headlight.active:
        ambient += headlight.ambient
    elif not model.nlight:
        ambient += 0.3
    cutoff = np.cos(np.deg2rad(model.light_cutoff))[:, None]
    return Lights(
        position,
        direction,
        diffuse,
        np.where(active, model.light_type, -1).astype(np.int32),
        np.hstack([model.light_attenuation, cutoff, model.light_exponent[:, None]]).astype(np.float32),
        (headlight.diffuse * bool(headlight.active)).astype(np.float32),
        ambient.astype(np.float32),
    )
