"""The shader: colours, on CPU threads, for the hits of `tutelage.envs.batched.cameras.ray_caster.cast`.

`shade` computes the rule of `shading` a row of pixels at a time: where surfaces are,
how they face and what colour they have; then the light on them, without branches, as vector instructions.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from tutelage.envs.batched.cameras.ray_caster import (
    BOX,
    CAPSULE,
    CYLINDER,
    ELLIPSOID,
    HFIELD,
    PLANE,
    SPHERE,
    TINY,
    Floats,
    Geoms,
    View,
    kernel,
)
from tutelage.envs.batched.cameras.shading import BACKGROUND, Lights, Skins

DIRECTIONAL, SPOT = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL), int(mujoco.mjtLightType.mjLIGHT_SPOT)
TAU = np.float32(2 * math.pi)


@kernel
def _normal(kind, sx, sy, sz, x, y, z):  # type: ignore[no-untyped-def]
    """Normal of a primitive at a point of its surface, in its own frame."""
    zero, one = np.float32(0), np.float32(1)
    if kind == PLANE:
        return zero, zero, one
    if kind == BOX:
        dx, dy, dz = abs(x) - sx, abs(y) - sy, abs(z) - sz
        if dz >= dx and dz >= dy:
            return zero, zero, one if z > 0 else -one
        if dx >= dy:
            return one if x > 0 else -one, zero, zero
        return zero, one if y > 0 else -one, zero
    if kind == CAPSULE:
        z -= min(max(z, -sy), sy)
    elif kind == CYLINDER:
        if abs(z) - sy >= math.sqrt(x * x + y * y) - sx:
            return zero, zero, one if z > 0 else -one
        z = zero
    elif kind == ELLIPSOID:
        x, y, z = x / (sx * sx), y / (sy * sy), z / (sz * sz)
    scale = one / math.sqrt(x * x + y * y + z * z)
    return x * scale, y * scale, z * scale


@kernel
def _texture_coordinates(  # type: ignore[no-untyped-def]
    kind, sx, sy, sz, repeat_u, repeat_v, uniform, x, y, z, nx, ny, nz
):
    """Where on its texture a geom's point is, in repetitions, as MuJoCo maps textures to primitives."""
    half, one = np.float32(0.5), np.float32(1)
    if kind in (PLANE, HFIELD):
        u, v, shift = half * x, -half * y, np.float32(0)
        if sx > 0:
            u = half * x / sx + half
            repeat_u *= sx if uniform else one
        if sy > 0:
            v = half - half * y / sy
            repeat_v *= sy if uniform else one
        if kind == PLANE and (sx <= 0 or sy <= 0):
            shift = -half
        return u * repeat_u + shift, v * repeat_v + shift
    if uniform:
        repeat_u *= sx
        repeat_v *= sx if kind in (SPHERE, CAPSULE, CYLINDER) else sy
    if kind == BOX:
        x, y, z = x / sx, y / sy, z / sz
        if abs(nz) > half:
            u, v = x, -y * nz
        elif abs(nx) > half:
            u, v = y * nx, -z
        else:
            u, v = -x * ny, -z
        return (half + half * u) * repeat_u, (half + half * v) * repeat_v
    if kind == CYLINDER and abs(nz) > half:
        return (half + half * x / sx) * repeat_u, (half + half * y / sx) * repeat_v
    if kind == ELLIPSOID:
        x, y, z = x / sx, y / sy, z / sz
    angle = math.atan2(y, x)
    u = (angle if angle >= 0 else angle + TAU) / TAU
    if kind in (SPHERE, ELLIPSOID):
        radius = sx if kind == SPHERE else one
        v = half - math.asin(min(max(z / radius, -one), one)) * 2 / TAU
    elif kind == CAPSULE and abs(z) > sy:
        lift = math.asin(min((abs(z) - sy) / sx, one)) * 4 / TAU
        v = one - lift if z > 0 else lift
    else:
        v = half - half * z / sy
    return np.float32(u * repeat_u), np.float32(v * repeat_v)


@kernel
def _sample(texels, corner, stride, fx, fy):  # type: ignore[no-untyped-def]
    """Between four neighbouring texels, of which `corner` is the first."""
    upper = texels[corner] + fx * (texels[corner + np.uintp(1)] - texels[corner])
    corner += stride
    lower = texels[corner] + fx * (texels[corner + np.uintp(1)] - texels[corner])
    return upper + fy * (lower - upper)


@kernel
def _paint(texels, bitmap, us, vs, colours):  # type: ignore[no-untyped-def]
    """Multiply colours, ``(3, n)``, by a texture at (us, vs), wrapped, between its four nearest texels."""
    start, grey = np.uintp(bitmap[0]), bitmap[3] > 0
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    stride = np.uintp(bitmap[1] + 2)  # a texel of margin on all sides
    wide, high = np.float32(bitmap[1]), np.float32(bitmap[2])
    red, green, blue = colours[0], colours[1], colours[2]
    for j in range(us.shape[0]):
        x = (us[j] - np.floor(us[j])) * wide + half
        y = (vs[j] - np.floor(vs[j])) * high + half
        inside = x < wide + one and y < high + one  # not so for NaN
        column, line = np.int32(x if inside else zero), np.int32(y if inside else zero)
        corner = start + np.uintp(line) * stride + np.uintp(column)
        fx, fy = x - np.float32(column), y - np.float32(line)
        shade = _sample(texels[0], corner, stride, fx, fy)
        red[j] *= shade
        if grey:
            green[j] *= shade
            blue[j] *= shade
        else:
            green[j] *= _sample(texels[1], corner, stride, fx, fy)
            blue[j] *= _sample(texels[2], corner, stride, fx, fy)


@kernel
def _surface(n, i, geoms, view, skins, slopes, y, depth, seg, normals, row):  # type: ignore[no-untyped-def]
    """Fill rows of `row`: point (0-2), normal (3-5), colour (6-8), emission (9); 10-11 are scratch."""
    zero, one = np.float32(0), np.float32(1)
    e = n if geoms.size.shape[0] > 1 else 0
    k = n if skins.colour.shape[0] > 1 else 0
    own_texture = n if skins.texture.shape[0] > 1 else 0
    own_repeat = n if skins.repeat.shape[0] > 1 else 0
    ex, ey, ez = view.position[n, 0], view.position[n, 1], view.position[n, 2]
    c0, c1, c2 = view.rotation[n, 0], view.rotation[n, 1], view.rotation[n, 2]
    c3, c4, c5 = view.rotation[n, 3], view.rotation[n, 4], view.rotation[n, 5]
    c6, c7, c8 = view.rotation[n, 6], view.rotation[n, 7], view.rotation[n, 8]
    start, stop, width = 0, 0, seg.shape[0]
    while start < width:  # neighbours mostly show the same geom: look its numbers up once
        g = seg[start]
        stop = start + 1
        while stop < width and seg[stop] == g:
            stop += 1
        if g < 0:
            row[:, start:stop] = 0
            start = stop
            continue
        kind = geoms.types[g]
        sx, sy, sz = geoms.size[e, g, 0], geoms.size[e, g, 1], geoms.size[e, g, 2]
        gx, gy, gz = geoms.position[n, g, 0], geoms.position[n, g, 1], geoms.position[n, g, 2]
        r0, r1, r2 = geoms.rotation[n, g, 0], geoms.rotation[n, g, 1], geoms.rotation[n, g, 2]
        r3, r4, r5 = geoms.rotation[n, g, 3], geoms.rotation[n, g, 4], geoms.rotation[n, g, 5]
        r6, r7, r8 = geoms.rotation[n, g, 6], geoms.rotation[n, g, 7], geoms.rotation[n, g, 8]
        red, green, blue = skins.colour[k, g, 0], skins.colour[k, g, 1], skins.colour[k, g, 2]
        texture, uniform = skins.texture[own_texture, g], skins.metric[g]
        repeat_u, repeat_v = skins.repeat[own_repeat, g, 0], skins.repeat[own_repeat, g, 1]
        textured = texture >= 0 and kind <= BOX
        primitive = kind != HFIELD and kind <= BOX
        for j in range(start, stop):
            x, t = slopes[j], depth[j]
            row[0, j] = ex + t * (c0 * x + c1 * y - c2)
            row[1, j] = ey + t * (c3 * x + c4 * y - c5)
            row[2, j] = ez + t * (c6 * x + c7 * y - c8)
            row[6, j], row[7, j], row[8, j], row[9, j] = red, green, blue, skins.emission[g]
        if kind == PLANE:  # much of most pictures: without branches
            look = (kind, sx, sy, sz, repeat_u, repeat_v, uniform)
            u0, v0 = _texture_coordinates(*look, zero, zero, zero, zero, zero, one)
            u1, v1 = _texture_coordinates(*look, one, one, zero, zero, zero, one)
            for j in range(start, stop):
                dx, dy, dz = row[0, j] - gx, row[1, j] - gy, row[2, j] - gz
                row[3, j], row[4, j], row[5, j] = r2, r5, r8
                row[10, j] = u0 + (u1 - u0) * (r0 * dx + r3 * dy + r6 * dz)
                row[11, j] = v0 + (v1 - v0) * (r1 * dx + r4 * dy + r7 * dz)
        else:
            for j in range(start, stop):
                dx, dy, dz = row[0, j] - gx, row[1, j] - gy, row[2, j] - gz
                px = r0 * dx + r3 * dy + r6 * dz
                py = r1 * dx + r4 * dy + r7 * dz
                pz = r2 * dx + r5 * dy + r8 * dz
                nx, ny, nz = zero, zero, one
                if primitive:
                    nx, ny, nz = _normal(kind, sx, sy, sz, px, py, pz)
                    row[3, j] = r0 * nx + r1 * ny + r2 * nz
                    row[4, j] = r3 * nx + r4 * ny + r5 * nz
                    row[5, j] = r6 * nx + r7 * ny + r8 * nz
                else:
                    row[3, j], row[4, j], row[5, j] = (
                        normals[n, i, j, 0],
                        normals[n, i, j, 1],
                        normals[n, i, j, 2],
                    )
                if textured:
                    row[10, j], row[11, j] = _texture_coordinates(
                        kind, sx, sy, sz, repeat_u, repeat_v, uniform, px, py, pz, nx, ny, nz
                    )
        if textured:
            across, up, colours = row[10, start:stop], row[11, start:stop], row[6:9, start:stop]
            _paint(skins.texels, skins.bitmaps[texture], across, up, colours)
        start = stop


@kernel
def _power(base, exponent, result):  # type: ignore[no-untyped-def]
    """Multiply `result` by ``base ** exponent``, for arrays; a whole exponent, as mostly, is much faster."""
    whole = int(exponent)
    if whole != exponent:
        for j in range(base.shape[0]):
            result[j] *= base[j] ** exponent
        return
    while whole > 0:
        for j in range(base.shape[0]):
            result[j] = result[j] * base[j] if whole & 1 else result[j]
            base[j] *= base[j]
        whole >>= 1


@kernel
def _illuminate(n, light, lights, points, normals, light_rgb, scratch):  # type: ignore[no-untyped-def]
    """Add the diffuse light of a source to a row of surface points."""
    kind = lights.kinds[light]
    e = n if lights.diffuse.shape[0] > 1 else 0
    colour, place, falloff = lights.diffuse[e, light], lights.position[n, light], lights.falloff[light]
    sx, sy, sz = place[0], place[1], place[2]
    way = lights.direction[n, light]
    dx, dy, dz = -way[0], -way[1], -way[2]
    constant, linear, quadratic, cutoff, exponent = falloff[0], falloff[1], falloff[2], falloff[3], falloff[4]
    px, py, pz = points[0], points[1], points[2]
    nx, ny, nz = normals[0], normals[1], normals[2]
    falling, cosine = scratch[0], scratch[1]
    zero, one = np.float32(0), np.float32(1)
    if kind == DIRECTIONAL:
        for j in range(px.shape[0]):
            falling[j] = max(nx[j] * dx + ny[j] * dy + nz[j] * dz, zero)
    else:
        for j in range(px.shape[0]):
            lx, ly, lz = sx - px[j], sy - py[j], sz - pz[j]
            square = lx * lx + ly * ly + lz * lz
            scale = one / math.sqrt(max(square, TINY))  # a lamp within a surface gives it no light
            along = (lx * dx + ly * dy + lz * dz) * scale
            facing = max(nx[j] * lx + ny[j] * ly + nz[j] * lz, zero) * scale
            facing /= constant + linear * square * scale + quadratic * square
            falling[j] = zero if kind == SPOT and along < cutoff else facing
            cosine[j] = max(along, zero)
        if kind == SPOT:
            _power(cosine, exponent, falling)
    for k in range(3):
        channel, strength = light_rgb[k], colour[k]
        for j in range(px.shape[0]):
            channel[j] += strength * falling[j]


@kernel
def shade(  # type: ignore[no-untyped-def]
    envs: NDArray[np.int64],
    geoms: Geoms,
    view: View,
    lights: Lights,
    skins: Skins,
    depth: Floats,
    segmentation: NDArray[np.int32],
    normals: Floats,
    rgb: NDArray[np.uint8],
):
    """Colour the hits of `tutelage.envs.batched.cameras.ray_caster.cast`.

    Args:
        envs: which environments.
        geoms, view, lights, skins: see there.
        depth, segmentation: ``(num_envs, height, width)``.
        normals: ``(num_envs, height, width, 3)``, in the world, where geoms are not primitives; may be empty.
        rgb: ``(num_envs, height, width, 3)``, out.
    """
    height, width = depth.shape[1:]
    slopes = np.empty(width, np.float32)
    row = np.empty((12, width), np.float32)
    light_rgb = np.empty((3, width), np.float32)
    zero, white = np.float32(0), np.float32(255)
    for n in envs:
        f = n if view.frustum.shape[0] > 1 else 0
        for j in range(width):
            slopes[j] = view.frustum[f, 0] + view.frustum[f, 1] * view.columns[j]
        cx, cy, cz = view.rotation[n, 2], view.rotation[n, 5], view.rotation[n, 8]
        for i in range(height):
            y = view.frustum[f, 2] + view.frustum[f, 3] * view.rows[i]
            seg = segmentation[n, i]
            _surface(n, i, geoms, view, skins, slopes, y, depth[n, i], seg, normals, row)
            for k in range(3):
                ambient, headlight = lights.ambient[k], lights.headlight[k]
                for j in range(width):
                    facing = max(row[3, j] * cx + row[4, j] * cy + row[5, j] * cz, zero)
                    light_rgb[k, j] = ambient + row[9, j] + headlight * facing
            for light in range(lights.kinds.shape[0]):
                if lights.kinds[light] >= 0:
                    _illuminate(n, light, lights, row[:3], row[3:6], light_rgb, row[10:12])
            for k in range(3):
                for j in range(width):
                    value = np.uint8(min(max(row[6 + k, j] * light_rgb[k, j] * white, zero), white))
                    rgb[n, i, j, k] = value if seg[j] >= 0 else BACKGROUND[k]
