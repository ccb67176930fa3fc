"""Randomised looks: colours, lights and cameras of every environment, drawn anew at each reset.

What a camera sees then differs between episodes in all that a policy must not rely on (Tobin et al. 2017,
"Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real World"). Noise, blur
and the like, of the picture and not of the scene, are in `tutelage.envs.batched.image_augmentation`.
"""

from __future__ import annotations

import colorsys
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tutelage.envs.batched.rows import Rows
from tutelage.envs.batched.streams import RandomStreams

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.simulator import Simulator

Range = tuple[float, float]
"""Least and most that something differs from what the model says; the direction is random."""

HUE_CLEARANCE = 0.06
"""Turns of the colour wheel that other colours stay away from a kept hue."""

GREY = 0.05
"""Saturation below which a colour has no hue of its own: its tint is one that could be drawn anew."""

_LIMITS = {
    "hue": 0.5,
    "saturation": 0.5,
    "brightness": 0.5,
    "light_offset": math.inf,
    "light_intensity": 1.0,
    "camera_offset": math.inf,
    "camera_rotation": 180.0,
    "camera_fovy": 30.0,
}
"""The ranges, and how large each can be."""


@dataclass(frozen=True)
class VisualRandomization:
    """How far the looks of an episode may be from those of the model.

    Ranges are ``(least, most)`` deviations, uniform between the two, from the model's own values, which are
    the base at every reset: nothing adds up. A least deviation above 0 keeps away from the familiar: that is
    how `held_out` differs from what `mild` and `strong` show in training::

        Reach(256, cameras=[CameraConfig("front")], visuals=VisualRandomization.strong())

    Geoms that have one colour in the model are of one colour in every episode (a table's top and edge).
    The hue of `keep_hue` stays, and other colours are kept `HUE_CLEARANCE` away from it, so that a red goal
    remains the red thing: a hue that would come too near is turned the other way.

    Same streams, same looks, on both simulators and in any company. All settings draw as many numbers, so
    that equal seeds play equal episodes under `none` and under `held_out`. Textures stay the model's own, as
    the renderer on CPU threads shares them; colours multiply them. What is behind everything
    (`tutelage.envs.batched.shading.BACKGROUND`) is fixed as well: give the model a wall to vary it.

    Attributes:
        hue: of colours, in turns of the colour wheel, up to 0.5.
        saturation, brightness: S and V of colours, up to 0.5, within [0, 1] of which they stay by going the
            other way.
        replaced: probability that a colour is drawn anew rather than varied, with saturation from 0.2 and
            brightness from 0.35 on.
        replaced_hues: hues of those, an interval in turns: 0 and 1 red, 1/3 green, 2/3 blue.
        keep_hue: names of geoms; shell patterns, which may match none, are allowed.
        light_offset: distance that a light is moved, in metres, in any direction.
        light_intensity: relative: 0.2 is 20 % more or less.
        camera_offset: distance that a camera is moved, in metres, in any direction.
        camera_rotation: angle about a random axis, in degrees.
        camera_fovy: of the vertical field of view, in degrees.
        mounted_scale: what part of offset and rotation applies to cameras that are mounted on moving bodies,
            small and close to what they see.

    Raises:
        ValueError: when a range is not 0 <= least <= most <= its limit.
    """

    hue: Range = (0.0, 0.0)
    saturation: Range = (0.0, 0.0)
    brightness: Range = (0.0, 0.0)
    replaced: float = 0.0
    replaced_hues: Range = (0.0, 1.0)
    keep_hue: tuple[str, ...] = ("goal*", "target*")
    light_offset: Range = (0.0, 0.0)
    light_intensity: Range = (0.0, 0.0)
    camera_offset: Range = (0.0, 0.0)
    camera_rotation: Range = (0.0, 0.0)
    camera_fovy: Range = (0.0, 0.0)
    mounted_scale: float = 0.2

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            least, most = getattr(self, name)
            if not 0 <= least <= most <= limit:
                raise ValueError(
                    f"{name} must be (least, most) with 0 <= least <= most <= {limit:g}, not {least, most}"
                )
        if not 0 <= self.replaced <= 1:
            raise ValueError(f"replaced is a probability from 0 to 1, not {self.replaced:g}")
        if not 0 <= self.mounted_scale <= 1:
            raise ValueError(f"mounted_scale must be from 0 to 1, not {self.mounted_scale:g}")
        low, high = self.replaced_hues
        if not 0 <= low < high <= 1:
            raise ValueError(f"replaced_hues must be (low, high), 0 <= low < high <= 1, not {low, high}")

    @staticmethod
    def none() -> VisualRandomization:
        """The model's own looks in every episode."""
        return VisualRandomization()

    @staticmethod
    def mild() -> VisualRandomization:
        """What differs between two days with the same robot: light, shades, a knock at the camera."""
        return replace(VisualRandomization.strong().scaled(0.3), replaced=0.0)

    @staticmethod
    def strong() -> VisualRandomization:
        """Other rooms and other cameras; a third of the colours are drawn anew, from red to blue."""
        return VisualRandomization(
            hue=(0.0, 0.06),
            saturation=(0.0, 0.2),
            brightness=(0.0, 0.2),
            replaced=1 / 3,
            replaced_hues=(0.0, 0.64),
            light_offset=(0.0, 0.6),
            light_intensity=(0.0, 0.3),
            camera_offset=(0.0, 0.06),
            camera_rotation=(0.0, 4.0),
            camera_fovy=(0.0, 4.0),
        )

    @staticmethod
    def held_out() -> VisualRandomization:
        """For evaluation alone: everything deviates more than with `strong`.

        Half of the colours are drawn anew, from violet to pink, where those of `strong` never are.
        """
        return VisualRandomization(
            hue=(0.065, 0.1),
            saturation=(0.21, 0.28),
            brightness=(0.21, 0.28),
            replaced=0.5,
            replaced_hues=(0.72, 0.94),
            light_offset=(0.65, 0.85),
            light_intensity=(0.31, 0.4),
            camera_offset=(0.065, 0.085),
            camera_rotation=(4.5, 6.0),
            camera_fovy=(4.5, 6.0),
        )

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> VisualRandomization:
        """Build from what ``dataclasses.asdict`` gave, by way of JSON.

        Raises:
            ValueError: for an unknown name; suggests the nearest.
        """
        known = [field.name for field in fields(VisualRandomization)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"no looks are called {name!r}{hint} (known: {', '.join(known)})")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return VisualRandomization(**plain)

    def scaled(self, strength: float) -> VisualRandomization:
        """All deviations, and the probability of new colours, times `strength`; up to their limits."""
        scaled: dict[str, Any] = {
            name: tuple(min(strength * end, limit) for end in getattr(self, name))
            for name, limit in _LIMITS.items()
        }
        return replace(self, replaced=min(strength * self.replaced, 1.0), **scaled)

    def apply(self, sim: Simulator, streams: RandomStreams, rows: Rows) -> None:
        """Draw the looks of new episodes and write them; a task may then overwrite what it decides itself.

        Args:
            sim: has the fields `tutelage.envs.batched.cameras.VISUAL_FIELDS` per environment.
            streams: whose numbers are used, as many in every call.
            rows: environments that begin an episode.

        Raises:
            ValueError: when the model has no geom of a name in `keep_hue`, or no hue is left to draw.
        """
        base = _BASES.get(sim)
        if base is None or base.config != self:
            base = _BASES[sim] = _Base(self, sim.model, sim.device)
        unit = streams.uniform(rows, base.draws)
        colours, lights, cameras = unit.split(base.split, 1)
        sim.write_model("geom_rgba", base.colours(colours.view(rows.n, -1, 4)), rows)
        if base.num_lights:
            moves = lights.view(rows.n, -1, 4)
            sim.write_model("light_pos", base.light_pos + _vectors(moves[..., :3], base.light_offset), rows)
            factor = 1 + _deviations(moves[..., 3:], self.light_intensity)
            sim.write_model("light_diffuse", base.light_diffuse * factor, rows)
        if base.num_cameras:
            moves = cameras.view(rows.n, -1, 7)
            sim.write_model("cam_pos", base.cam_pos + _vectors(moves[..., :3], base.camera_offset), rows)
            turns = _vectors(moves[..., 3:6], base.camera_rotation)
            sim.write_model("cam_quat", _turned(base.cam_quat, turns), rows)
            fovy = base.cam_fovy + _deviations(moves[..., 6], self.camera_fovy)
            sim.write_model("cam_fovy", fovy.clamp(1.0, 179.0), rows)


class _Base:
    """The looks of a model, as constants on the device: what each reset starts from."""

    def __init__(self, config: VisualRandomization, model: mujoco.MjModel, device: torch.device) -> None:
        from tutelage.envs.batched.shading import resolve_colours

        def constant(values: Any) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.config = config
        rgba = resolve_colours(model.geom_rgba[None], model.mat_rgba[None], model.geom_matid)[0]
        kept = _kept_geoms(config, model)
        looks = [(*map(float, rgba[i]), int(model.geom_matid[i]), i in kept) for i in range(model.ngeom)]
        groups = list(dict.fromkeys(looks))
        self.group_of_geom = torch.tensor([groups.index(look) for look in looks], device=device)
        hsv = [colorsys.rgb_to_hsv(*group[:3]) for group in groups]
        self.hsv, self.alpha = constant(hsv).view(-1, 3), constant(rgba[:, 3:])
        self.kept = torch.tensor([group[-1] for group in groups], dtype=torch.bool, device=device)
        kept_hues = [h for (h, s, _), group in zip(hsv, groups, strict=True) if group[-1] and s >= GREY]
        self.kept_hues = constant(kept_hues)
        hues = _free_hues(config.replaced_hues, kept_hues)
        self.first_hue = hues[0][0]
        self.hue_span = sum(high - low for low, high in hues)
        # Where a number in [0, hue_span) jumps over a hue that is kept, and how far.
        ends, jumps, covered = [], [], 0.0
        for (low, high), (next_low, _) in pairwise(hues):
            covered += high - low
            ends.append(covered)
            jumps.append(next_low - high)
        self.hue_ends, self.hue_jumps = constant(ends), constant(jumps)

        self.num_lights, self.num_cameras = model.nlight, model.ncam
        self.light_pos, self.light_diffuse = constant(model.light_pos), constant(model.light_diffuse)
        self.cam_pos, self.cam_quat = constant(model.cam_pos), constant(model.cam_quat)
        self.cam_fovy = constant(model.cam_fovy)
        mounted = constant(model.body_weldid[model.cam_bodyid] != 0)[:, None]
        scale = 1 - mounted * (1 - config.mounted_scale)
        self.light_offset = constant(config.light_offset)
        self.camera_offset = scale * constant(config.camera_offset)
        self.camera_rotation = scale * constant(config.camera_rotation) * (math.pi / 180)
        self.split = [4 * len(groups), 4 * model.nlight, 7 * model.ncam]
        self.draws = sum(self.split)

    def colours(self, unit: Tensor) -> Tensor:
        """RGBA of the geoms, ``(n, ngeom, 4)``, of uniform numbers ``(n, groups, 4)``."""
        config = self.config
        hue, saturation, value = self.hsv.unbind(-1)
        along = self.hue_span * unit[..., 0]
        jumped = ((along[..., None] >= self.hue_ends) * self.hue_jumps).sum(-1)
        fresh_hue = self.first_hue + along + jumped
        shift = _deviations(unit[..., 0], config.hue)
        near = (hue + shift)[..., None] - self.kept_hues
        clash = ((near - near.round()).abs() < HUE_CLEARANCE).any(-1)
        varied_hue = torch.where(clash, hue - shift, hue + shift)
        varied_hue = torch.where(saturation < GREY, fresh_hue, varied_hue)  # a grey can get any tint
        varied = torch.stack(
            [
                torch.where(self.kept, hue, varied_hue),
                _within_unit(saturation, _deviations(unit[..., 1], config.saturation)),
                _within_unit(value, _deviations(unit[..., 2], config.brightness)),
            ],
            -1,
        )
        fresh = torch.stack([fresh_hue, 0.2 + 0.8 * unit[..., 1], 0.35 + 0.65 * unit[..., 2]], -1)
        replaced = (unit[..., 3] < config.replaced) & ~self.kept
        rgb = hsv_to_rgb(torch.where(replaced[..., None], fresh, varied))
        return torch.cat([rgb[:, self.group_of_geom], self.alpha.expand(len(unit), -1, -1)], -1)


_BASES: WeakKeyDictionary[Simulator, _Base] = WeakKeyDictionary()


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Colours ``(..., 3)`` from hue (turns, any number), saturation and value to RGB, all in [0, 1]."""
    hue, saturation, value = hsv.unsqueeze(-2).unbind(-1)
    sector = (6 * hue + hsv.new_tensor((5.0, 3.0, 1.0))) % 6
    pale = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value * (1 - saturation * pale)


def _deviations(unit: Tensor, ends: Range) -> Tensor:
    """Numbers of either sign whose size is uniform between `ends`, of uniform ones in [0, 1)."""
    least, most = ends
    signed = 2 * unit - 1
    return torch.where(signed < 0, -least, least) + signed * (most - least)


def _vectors(unit: Tensor, ends: Tensor) -> Tensor:
    """Vectors in all directions alike, of lengths uniform between ``ends[..., 0]`` and ``ends[..., 1]``."""
    z, angle = 2 * unit[..., 0] - 1, 2 * math.pi * unit[..., 1]
    level = torch.sqrt(1 - z * z)
    length = ends[..., 0] + (ends[..., 1] - ends[..., 0]) * unit[..., 2]
    return length[..., None] * torch.stack([level * angle.cos(), level * angle.sin(), z], -1)


def _turned(quaternions: Tensor, rotations: Tensor) -> Tensor:
    """Quaternions (w, x, y, z) followed, in their own frame, by rotation vectors in radians."""
    half = torch.linalg.vector_norm(rotations, dim=-1, keepdim=True) / 2
    w = half.cos()
    v = rotations * (torch.sinc(half / math.pi) / 2)  # sinc(x) is sin(pi x) / (pi x), also at 0
    w0, v0 = quaternions[..., :1].expand_as(w), quaternions[..., 1:].expand_as(v)
    return torch.cat(
        [w0 * w - (v0 * v).sum(-1, keepdim=True), w0 * v + w * v0 + torch.linalg.cross(v0, v)], -1
    )


def _within_unit(values: Tensor, shifts: Tensor) -> Tensor:
    """`values` + `shifts`, or - `shifts` where that would leave [0, 1]."""
    moved = values + shifts
    return torch.where((moved < 0) | (moved > 1), values - shifts, moved)


def _kept_geoms(config: VisualRandomization, model: mujoco.MjModel) -> set[int]:
    names = [model.geom(i).name for i in range(model.ngeom)]
    for kept in config.keep_hue:
        if kept not in names and not any(sign in kept for sign in "*?["):
            near = difflib.get_close_matches(kept, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(filter(None, names))
            raise ValueError(f"keep_hue: the model has no geom {kept!r}{hint} (known: {known})")
    return {i for i, name in enumerate(names) if any(fnmatchcase(name, kept) for kept in config.keep_hue)}


def _free_hues(interval: Range, kept: list[float]) -> list[Range]:
    """Parts of an interval of hues that are away from those kept, in order."""
    free = [interval]
    for hue in (h + turn for h in kept for turn in (-1, 0, 1)):
        low, high = hue - HUE_CLEARANCE, hue + HUE_CLEARANCE
        parts = [part for a, b in free for part in ((a, min(b, low)), (max(a, high), b))]
        free = [(a, b) for a, b in parts if a < b]
    if not free:
        raise ValueError(
            f"replaced_hues {interval} are all within {HUE_CLEARANCE:g} of the hues to keep; widen them"
        )
    return free
