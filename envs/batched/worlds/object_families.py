"""Families of objects to grasp, made of primitives, with their masses, grasps and geometric features.

All objects are one model: a body with the same six primitives (`SLOTS`), of which a family uses some. Sizes
and places are fields of the model, so every environment has an object of its own, on every simulator; what a
family does not use is a speck inside its first part, where nothing touches or sees it.

An object is a family, a scale in metres (about half the width that a gripper has to span) and an aspect in
[0, 1] (from the stout to the slender object of the family). All lengths are ``scale * (base + aspect *
stretch)``. Parts touch without overlap, are equally dense, and lie symmetrically about one horizontal plane
or about one vertical axis, so one principal axis of inertia is vertical and the others follow in closed form.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SLOTS = ("box", "box", "box", "cylinder", "capsule", "capsule")
"""Kinds of the primitives of every object, in order."""
SPECK = 5e-4
"""Half size of a primitive that a family does not use, m."""

Triple = tuple[float, float, float]
_NONE: Triple = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Part:
    """One primitive of a family, in units of the scale.

    Attributes:
        slot: which of `SLOTS`.
        size: half sizes as MuJoCo has them: box (x, y, z), cylinder and capsule (radius, half length, 0).
        position: of its centre.
        stretch, shift: what aspect 1 adds to size and position.
        lying: the axis of the cylinder or capsule is x, not z.
    """

    slot: int
    size: Triple
    position: Triple = _NONE
    stretch: Triple = _NONE
    shift: Triple = _NONE
    lying: bool = False


@dataclass(frozen=True)
class Family:
    """A family of objects.

    Attributes:
        parts: its primitives.
        grasp: where a gripper from above, closing along y, takes it well; in units of the scale.
        half_width: of what it then has between its fingers, in units of the scale.
        grasp_shift: what aspect 1 adds to `grasp`.
    """

    parts: tuple[Part, ...]
    grasp: Triple
    half_width: float
    grasp_shift: Triple = _NONE


FAMILIES: dict[str, Family] = {
    "box": Family((Part(0, (1.0, 1.0, 1.0), stretch=(1.5, 0, 0.3)),), _NONE, 1.0),
    "cylinder": Family((Part(3, (1.0, 1.0, 0), stretch=(0, 0.8, 0)),), _NONE, 1.0, grasp_shift=(0, 0, 0.4)),
    "capsule": Family((Part(4, (1.0, 0.8, 0), stretch=(0, 1.2, 0), lying=True),), _NONE, 1.0),
    "ell": Family(
        (
            Part(0, (2.0, 0.8, 0.8), (1.2, 0, 0), stretch=(0.5, 0, 0), shift=(0.5, 0, 0)),
            Part(1, (0.8, 1.0, 0.8), (0, 1.8, 0), stretch=(0, 0.4, 0), shift=(0, 0.4, 0)),
        ),
        (1.5, 0, 0),
        0.8,
    ),
    "tee": Family(
        (
            Part(0, (1.4, 0.8, 0.8), (2.2, 0, 0), stretch=(0.4, 0, 0), shift=(0.4, 0, 0)),
            Part(1, (0.8, 2.0, 0.8), stretch=(0, 0.6, 0)),
        ),
        (1.6, 0, 0),
        0.8,
    ),
    "dumbbell": Family(
        (
            Part(3, (0.5, 1.4, 0), stretch=(0, 0.6, 0), lying=True),
            Part(4, (1.0, 0.01, 0), (2.27, 0, 0), shift=(0.6, 0, 0), lying=True),
            Part(5, (1.0, 0.01, 0), (-2.27, 0, 0), shift=(-0.6, 0, 0), lying=True),
        ),
        _NONE,
        0.5,
    ),
    "mug": Family(
        (
            Part(3, (1.2, 1.3, 0), stretch=(0, 0.4, 0)),
            Part(0, (0.4, 0.2, 0.15), (1.6, 0, 0.7)),
            Part(1, (0.4, 0.2, 0.15), (1.6, 0, -0.7)),
            Part(2, (0.15, 0.2, 0.85), (2.15, 0, 0)),
        ),
        (0, 0, 0.3),
        1.2,
        grasp_shift=(0, 0, 0.2),
    ),
    "steps": Family(
        (
            Part(0, (1.6, 1.6, 0.5), (0, 0, -0.5), stretch=(0.4, 0, 0)),
            Part(1, (0.9, 0.9, 0.8), (0, 0, 0.8)),
        ),
        (0, 0, 0.8),
        0.9,
    ),
    "cross": Family(
        (
            Part(0, (2.2, 0.7, 0.8), stretch=(0.6, 0, 0)),
            Part(1, (0.7, 0.7, 0.8), (0, 1.4, 0), stretch=(0, 0.3, 0), shift=(0, 0.3, 0)),
            Part(2, (0.7, 0.7, 0.8), (0, -1.4, 0), stretch=(0, 0.3, 0), shift=(0, -0.3, 0)),
        ),
        (1.4, 0, 0),
        0.7,
        grasp_shift=(0.2, 0, 0),
    ),
    "channel": Family(
        (
            Part(0, (2.0, 0.7, 0.8), stretch=(0.3, 0, 0)),
            Part(1, (0.6, 0.9, 0.8), (1.4, 1.6, 0), stretch=(0, 0.4, 0), shift=(0.3, 0.4, 0)),
            Part(2, (0.6, 0.9, 0.8), (-1.4, 1.6, 0), stretch=(0, 0.4, 0), shift=(-0.3, 0.4, 0)),
        ),
        _NONE,
        0.7,
    ),
    "hammer": Family(
        (
            Part(3, (0.8, 1.6, 0), (2.4, 0, 0), stretch=(0, 0.6, 0), shift=(0.6, 0, 0), lying=True),
            Part(0, (0.8, 1.6, 0.8)),
        ),
        (1.6, 0, 0),
        0.8,
    ),
    "bottle": Family(
        (
            Part(3, (1.2, 1.0, 0), stretch=(0, 0.4, 0)),
            Part(4, (0.6, 0.3, 0), (0, 0, 1.9), shift=(0, 0, 0.4)),
        ),
        (0, 0, 0.2),
        1.2,
        grasp_shift=(0, 0, 0.3),
    ),
}
"""Name -> family."""

TRAIN_FAMILIES = ("box", "cylinder", "capsule", "ell", "tee", "dumbbell", "mug", "steps")
"""Families to learn from."""
HELD_OUT_FAMILIES = ("cross", "channel", "hammer", "bottle")
"""Families kept for the test of what was learnt."""

FEATURES = (
    *(f"reach_{angle}" for angle in range(0, 360, 45)),
    "reach_up",
    "inertia_x",
    "inertia_y",
    "inertia_z",
    "solidity",
)
"""Names of the columns of `Objects.features`."""


def family_indices(names: Iterable[str]) -> list[int]:
    """Positions of families in `FAMILIES`.

    Raises:
        ValueError: when there is no such family; suggests the nearest name. When there are none at all.
    """
    names, known = list(names), list(FAMILIES)
    if not names:
        raise ValueError(f"give at least one family of objects (known: {', '.join(known)})")
    for name in names:
        if name not in FAMILIES:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown family of objects {name!r}{hint} (known: {', '.join(known)})")
    return [known.index(name) for name in names]


@dataclass(frozen=True)
class Objects:
    """`n` objects; the origin of each is its centre of mass.

    Attributes:
        size, position, quat: of the primitives in the body's frame, ``(n, 6, 3)``, ``(n, 6, 3)``,
            ``(n, 6, 4)``.
        used: which primitives are parts, bool ``(n, 6)``.
        volume: m^3, ``(n,)``.
        inertia: principal moments for a mass of 1 kg, m^2, ``(n, 3)``.
        inertia_quat: their axes, ``(n, 4)``.
        height: of the origin above the table that the object rests on, m, ``(n,)``.
        grasp: where to take it, in the body's frame, ``(n, 3)``; the fingers close along its y axis.
        grasp_width: of what is between the fingers there, m, ``(n,)``.
        features: see `FEATURES`: how far it reaches from the centre of mass in horizontal directions (degrees
            from x) and up, m; radii of gyration, m; its volume by that of its bounding box; ``(n, 13)``.
    """

    size: Tensor
    position: Tensor
    quat: Tensor
    used: Tensor
    volume: Tensor
    inertia: Tensor
    inertia_quat: Tensor
    height: Tensor
    grasp: Tensor
    grasp_width: Tensor
    features: Tensor


class ObjectMaker:
    """Makes batches of objects of all `FAMILIES`.

    Args:
        device: where.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        count = (len(FAMILIES), len(SLOTS))

        def table(rows: Sequence[Sequence[Triple]]) -> Tensor:
            return torch.tensor(rows, dtype=torch.float32, device=device)

        parts = [{part.slot: part for part in family.parts} for family in FAMILIES.values()]
        speck = [Part(-1, _NONE, family.parts[0].position, shift=family.parts[0].shift)
                 for family in FAMILIES.values()]  # fmt: skip
        filled = [[row.get(slot, speck[i]) for slot in range(count[1])] for i, row in enumerate(parts)]
        self._size = table([[part.size for part in row] for row in filled])
        self._stretch = table([[part.stretch for part in row] for row in filled])
        self._position = table([[part.position for part in row] for row in filled])
        self._shift = table([[part.shift for part in row] for row in filled])
        self._used = torch.tensor([[part.slot >= 0 for part in row] for row in filled], device=device)
        self._lying = torch.tensor([[part.lying for part in row] for row in filled], device=device)
        self._grasp = table([[family.grasp, family.grasp_shift] for family in FAMILIES.values()])
        self._half_width = torch.tensor([f.half_width for f in FAMILIES.values()], device=device)
        self._is_box = torch.tensor([slot == "box" for slot in SLOTS], device=device)
        self._is_capsule = torch.tensor([slot == "capsule" for slot in SLOTS], device=device)
        half = math.sqrt(0.5)
        self._upright_quat = torch.tensor([1.0, 0, 0, 0], device=device)
        self._lying_quat = torch.tensor([half, 0, half, 0], device=device)  # turns z to x
        directions = [(math.cos(a), math.sin(a), 0.0) for a in torch.arange(8).mul(math.pi / 4).tolist()]
        self._directions = torch.tensor([*directions, (0, 0, 1), (0, 0, -1)], device=device)

    def make(self, family: Tensor, scale: Tensor, aspect: Tensor) -> Objects:
        """Make objects.

        Args:
            family: index in `FAMILIES`, int64 ``(n,)``.
            scale: m, ``(n,)``.
            aspect: in [0, 1], ``(n,)``.
        """
        unit, slender = scale[:, None, None], aspect[:, None, None]
        used, lying = self._used[family], self._lying[family][..., None]
        size = unit * (self._size[family] + slender * self._stretch[family])
        position = unit * (self._position[family] + slender * self._shift[family])
        part_volume = torch.where(used, self._volumes(size), 0.0)
        volume = part_volume.sum(1)
        share = part_volume / volume[:, None]
        centre = (share[..., None] * position).sum(1)
        position = position - centre[:, None]
        inertia, inertia_quat = self._inertia(size, position, share, lying)

        reach = self._support(size, position, used, lying)
        grasp = scale[:, None] * (self._grasp[family, 0] + aspect[:, None] * self._grasp[family, 1])
        bounds = (reach[:, 0:4:2] + reach[:, 4:8:2]).prod(1) * (reach[:, 8] + reach[:, 9])
        solidity = (volume / bounds)[:, None]
        return Objects(
            size=torch.where(used[..., None], size, SPECK),
            position=position,
            quat=torch.where(lying, self._lying_quat, self._upright_quat),
            used=used,
            volume=volume,
            inertia=inertia,
            inertia_quat=inertia_quat,
            height=reach[:, 9],
            grasp=grasp - centre,
            grasp_width=2 * scale * self._half_width[family],
            features=torch.cat([reach[:, :9], inertia.sqrt(), solidity], 1),
        )

    def _volumes(self, size: Tensor) -> Tensor:
        """Volumes of primitives, ``(n, 6)``."""
        a, b, c = size.unbind(2)
        round_ends = torch.where(self._is_capsule, 4 / 3 * a, 0.0)
        return torch.where(self._is_box, 8 * a * b * c, math.pi * a**2 * (2 * b + round_ends))

    def _inertia(self, size: Tensor, position: Tensor, share: Tensor, lying: Tensor) -> tuple[Tensor, Tensor]:
        """Principal moments of the whole and their axes, for a mass of 1, about the origin.

        Moments of the parts as in MuJoCo's compiler (a capsule is a cylinder and two hemispheres), brought to
        the origin by the parallel-axis theorem.
        """
        a, b, c = size.unbind(2)
        box = torch.stack([b**2 + c**2, a**2 + c**2, a**2 + b**2], 2) / 3
        length = 2 * b
        ball = torch.where(self._is_capsule, 4 * a / (4 * a + 3 * length).clamp(min=1e-9), 0.0)
        across = (1 - ball) * (3 * a**2 + length**2) / 12 + ball * (
            0.4 * a**2 + length * (3 * a + 2 * length) / 8
        )
        along = (1 - ball) * a**2 / 2 + ball * 0.4 * a**2
        rounded = torch.where(
            lying, torch.stack([along, across, across], 2), torch.stack([across, across, along], 2)
        )
        own = torch.where(self._is_box[:, None], box, rounded)
        x, y, z = position.unbind(2)
        moved = own + torch.stack([y**2 + z**2, x**2 + z**2, x**2 + y**2], 2)
        xx, yy, zz = (share[..., None] * moved).sum(1).unbind(1)
        xy = -(share * x * y).sum(1)

        # z is principal, by the symmetry that all families have; the others lie at an angle in the plane
        angle = 0.5 * torch.atan2(2 * xy, xx - yy)
        mean, difference = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
        zero = torch.zeros_like(angle)
        quat = torch.stack([(angle / 2).cos(), zero, zero, (angle / 2).sin()], 1)
        return torch.stack([mean + difference, mean - difference, zz], 1), quat

    def _support(self, size: Tensor, position: Tensor, used: Tensor, lying: Tensor) -> Tensor:
        """How far the objects reach from the origin in `_directions`, ``(n, 10)``."""
        d = self._directions.abs()
        a, b, _ = size[..., None, :].unbind(-1)  # (n, 6, 1)
        along = torch.where(lying, d[:, 0], d[:, 2])
        across = (1 - along**2).clamp(min=0).sqrt()
        ends = torch.where(self._is_capsule[:, None], a, a * across) + b * along
        own = torch.where(self._is_box[:, None], size @ d.T, ends)
        return torch.where(used[..., None], own + position @ self._directions.T, -torch.inf).amax(1)
