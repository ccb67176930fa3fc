"""Colours of a model's geoms, varied or drawn anew: the part of `VisualRandomization` that deals in hues."""

from __future__ import annotations

import colorsys
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import mujoco

Range = tuple[float, float]
"""Least and most that something differs from what the model says; the direction is random."""

HUE_CLEARANCE = 0.06
"""Turns of the colour wheel that other colours stay away from a kept hue."""

GREY = 0.05
"""Saturation below which a colour has no hue of its own: its tint is one that could be drawn anew."""


@dataclass(frozen=True)
class ColourRanges:
    """The settings of `VisualRandomization` that colours are drawn by; each is explained there."""

    hue: Range
    saturation: Range
    brightness: Range
    replaced: float
    replaced_hues: Range
    keep_hue: tuple[str, ...]


class GeomColours:
    """Colours of a model's geoms, as constants on the device, from which those of episodes are drawn.

    Args:
        config: how far colours may be from the model's.
        model: whose geoms.
        device: where colours are drawn.

    Attributes:
        groups: how many looks the model has; geoms of one colour and texture share them in every episode.
        group_of_geom: which one each geom has, int64, ``(ngeom,)``.
        kept_geoms: those of `keep_hue`, which are groups of their own.

    Raises:
        ValueError: when the model has no geom of a name in `keep_hue`, or no hue is left to draw.
    """

    def __init__(self, config: ColourRanges, model: mujoco.MjModel, device: torch.device) -> None:
        from tutelage.envs.batched.cameras.shading import drawn_textures, resolve_colours

        def constant(values: Any) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.config = config
        rgba = resolve_colours(model.geom_rgba[None], model.mat_rgba[None], model.geom_matid)[0]
        kept = self.kept_geoms = find_kept_geoms(config.keep_hue, model)
        # Textures, not materials, which differ between geoms of one look where `textures` added them.
        texture = np.append(drawn_textures(model), -1)[model.geom_matid]
        looks = [(*map(float, rgba[i]), int(texture[i]), i in kept) for i in range(model.ngeom)]
        groups = list(dict.fromkeys(looks))
        self.groups = len(groups)
        self.group_of_geom = torch.tensor([groups.index(look) for look in looks], device=device)
        hsv = [colorsys.rgb_to_hsv(*group[:3]) for group in groups]
        self._hsv, self._alpha = constant(hsv).view(-1, 3), constant(rgba[:, 3:])
        self._kept = torch.tensor([group[-1] for group in groups], dtype=torch.bool, device=device)
        kept_hues = [h for (h, s, _), group in zip(hsv, groups, strict=True) if group[-1] and s >= GREY]
        self._kept_hues = constant(kept_hues)
        hues = free_hues(config.replaced_hues, kept_hues)
        self._first_hue = hues[0][0]
        self._hue_span = sum(high - low for low, high in hues)
        # Where a number in [0, hue_span) jumps over a hue that is kept, and how far.
        ends, jumps, covered = [], [], 0.0
        for (low, high), (next_low, _) in pairwise(hues):
            covered += high - low
            ends.append(covered)
            jumps.append(next_low - high)
        self._hue_ends, self._hue_jumps = constant(ends), constant(jumps)

    def draw(self, unit: Tensor) -> Tensor:
        """RGBA of the geoms, ``(n, ngeom, 4)``, of uniform numbers ``(n, groups, 4)``."""
        config = self.config
        hue, saturation, value = self._hsv.unbind(-1)
        along = self._hue_span * unit[..., 0]
        jumped = ((along[..., None] >= self._hue_ends) * self._hue_jumps).sum(-1)
        fresh_hue = self._first_hue + along + jumped
        shift = deviations(unit[..., 0], config.hue)
        near = (hue + shift)[..., None] - self._kept_hues
        clash = ((near - near.round()).abs() < HUE_CLEARANCE).any(-1)
        varied_hue = torch.where(clash, hue - shift, hue + shift)
        varied_hue = torch.where(saturation < GREY, fresh_hue, varied_hue)  # a grey can get any tint
        varied = torch.stack(
            [
                torch.where(self._kept, hue, varied_hue),
                _within_unit(saturation, deviations(unit[..., 1], config.saturation)),
                _within_unit(value, deviations(unit[..., 2], config.brightness)),
            ],
            -1,
        )
        fresh = torch.stack([fresh_hue, 0.2 + 0.8 * unit[..., 1], 0.35 + 0.65 * unit[..., 2]], -1)
        replaced = (unit[..., 3] < config.replaced) & ~self._kept
        rgb = hsv_to_rgb(torch.where(replaced[..., None], fresh, varied))
        return torch.cat([rgb[:, self.group_of_geom], self._alpha.expand(len(unit), -1, -1)], -1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Colours ``(..., 3)`` from hue (turns, any number), saturation and value to RGB, all in [0, 1]."""
    hue, saturation, value = hsv.unbind(-1)
    sector = torch.stack([(6 * hue + first) % 6 for first in (5.0, 3.0, 1.0)], -1)
    pale = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * pale)


def deviations(unit: Tensor, ends: Range) -> Tensor:
    """Numbers of either sign whose size is uniform between `ends`, of uniform ones in [0, 1)."""
    least, most = ends
    signed = 2 * unit - 1
    return torch.where(signed < 0, -least, least) + signed * (most - least)


def free_hues(interval: Range, kept: list[float]) -> list[Range]:
    """Parts of an interval of hues that are `HUE_CLEARANCE` away from those kept, in order.

    Raises:
        ValueError: when none is left.
    """
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


def _within_unit(values: Tensor, shifts: Tensor) -> Tensor:
    """`values` + `shifts`, or - `shifts` where that would leave [0, 1]."""
    moved = values + shifts
    return torch.where((moved < 0) | (moved > 1), values - shifts, moved)


def find_kept_geoms(keep_hue: Sequence[str], model: mujoco.MjModel) -> set[int]:
    """Geoms of which `keep_hue` has the name, or a pattern of names.

    Raises:
        ValueError: when the model has no geom of such a name; suggests the nearest.
    """
    names = [model.geom(i).name for i in range(model.ngeom)]
    for kept in keep_hue:
        if kept not in names and not any(sign in kept for sign in "*?["):
            near = difflib.get_close_matches(kept, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(filter(None, names))
            raise ValueError(f"keep_hue: the model has no geom {kept!r}{hint} (known: {known})")
    return {i for i, name in enumerate(names) if any(fnmatchcase(name, kept) for kept in keep_hue)}
