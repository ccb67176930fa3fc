"""The rule for colours and light that all camera renderers follow, and its inputs from the model.

`tutelage.envs.batched.cameras.shader` computes it on CPU threads. It is what ``mujoco_warp``'s batch renderer
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

from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from tutelage.envs.batched.cameras.ray_caster import Floats

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
    """Looks of the geoms; a leading 1 instead of `num_envs` means shared.

    Attributes:
        colour: ``(num_envs or 1, ngeom, 3)``.
        emission: ``(ngeom,)``.
        texture: id of the texture, -1 for none, int32, ``(num_envs or 1, ngeom)``.
        repeat: ``(num_envs or 1, ngeom, 2)``: repetitions along both axes.
        metric: whether those are per metre, ``(ngeom,)``.
        bitmaps: first texel, width, height, and whether all is grey, of each texture; int64, ``(ntex, 4)``.
        texels: RGB of all textures, 0 to 1, ``(3, n)``; each has a margin of one texel, as at its edge.
    """

    colour: Floats
    emission: Floats
    texture: NDArray[np.int32]
    repeat: Floats
    metric: NDArray[np.bool_]
    bitmaps: NDArray[np.int64]
    texels: Floats


def resolve_colours(geom_rgba: Floats, mat_rgba: Floats, matid: NDArray[np.int32]) -> Floats:
    """RGBA of geoms by the rule above, ``(num_envs or 1, ngeom, 4)``."""
    if not mat_rgba.shape[1]:
        return geom_rgba
    plain = (matid >= 0) & (geom_rgba == _DEFAULT_RGBA).all(-1)
    return np.where(plain[..., None], mat_rgba[:, np.maximum(matid, 0)], geom_rgba)


def drawn_textures(model: mujoco.MjModel, mat_texid: NDArray[Any] | None = None) -> NDArray[np.int32]:
    """The texture of each material, -1 for none: 2-D ones alone, held in the model.

    Args:
        model: whose textures.
        mat_texid: another than the model's, of any numeric type, ``(..., nmat, number of roles)``.

    Returns:
        ``(..., nmat)``.
    """
    texid = model.mat_texid if mat_texid is None else mat_texid
    texture = texid[..., int(mujoco.mjtTextureRole.mjTEXROLE_RGB)].astype(np.int32)
    return np.where(np.append(_flat_textures(model), False)[texture], texture, np.int32(-1))


def _flat_textures(model: mujoco.MjModel) -> NDArray[np.bool_]:
    flat: NDArray[np.bool_] = model.tex_type == int(mujoco.mjtTexture.mjTEXTURE_2D)
    return flat & (model.tex_adr >= 0)


def make_skins(
    model: mujoco.MjModel, colour: Floats, mat_texid: NDArray[Any], mat_texrepeat: Floats
) -> Skins:
    """Looks of a model's geoms.

    Args:
        model: whose geoms.
        colour: ``(num_envs or 1, ngeom, 3)``.
        mat_texid, mat_texrepeat: as in the model, but ``(num_envs or 1, nmat, ...)``.
    """
    emission = np.append(model.mat_emission, 0)[model.geom_matid].astype(np.float32)
    metric = np.append(model.mat_texuniform, 0)[model.geom_matid].astype(bool)
    bitmaps = np.zeros((model.ntex, 4), np.int64)
    texels = [np.zeros((3, 0), np.float32)]
    for tex in np.flatnonzero(_flat_textures(model)):
        height, width, channels = model.tex_height[tex], model.tex_width[tex], model.tex_nchannel[tex]
        data = model.tex_data[model.tex_adr[tex] :][: height * width * channels]
        rgb = np.zeros((3, height, width), np.float32)  # of one channel: red, as on Warp
        rgb[:channels] = data.reshape(height, width, channels)[..., :3].transpose(2, 0, 1) / np.float32(255)
        start = sum(part.shape[1] for part in texels)
        bitmaps[tex] = start, width, height, (rgb == rgb[0]).all()
        texels.append(np.pad(rgb, ((0, 0), (1, 1), (1, 1)), "edge").reshape(3, -1))
    texture, repeat = texture_geoms(model, mat_texid, mat_texrepeat)
    return Skins(colour, emission, texture, repeat, metric, bitmaps, np.concatenate(texels, 1))


def texture_geoms(
    model: mujoco.MjModel, mat_texid: NDArray[Any], mat_texrepeat: Floats
) -> tuple[NDArray[np.int32], Floats]:
    """Textures and repetitions of geoms, as in `Skins`, from those of materials."""
    none = model.geom_matid < 0
    if not model.nmat:
        return np.full((1, model.ngeom), -1, np.int32), np.zeros((1, model.ngeom, 2), np.float32)
    texture = np.where(none, np.int32(-1), drawn_textures(model, mat_texid)[:, model.geom_matid])
    repeat = np.asarray(mat_texrepeat[:, model.geom_matid], np.float32)
    return np.ascontiguousarray(texture), np.ascontiguousarray(repeat)


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
