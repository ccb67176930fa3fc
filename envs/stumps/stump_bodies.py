"""Bodies of the Box2D walkers as plain tables, and how walkers and terrain are put into a world.

Figures are those of the bipedal walker, of Portelas et al. (2019) and of TeachMyAgent (Romac et al. 2021), so
that results compare with theirs. Lengths in the tables are in pixels, 30 to a world unit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from Box2D import (
    b2_dynamicBody,
    b2BodyDef,
    b2EdgeShape,
    b2FixtureDef,
    b2PolygonShape,
    b2RevoluteJointDef,
    b2World,
)

from tutelage.envs.stumps.stump_terrain import SCALE, Terrain

TERRAIN_FRICTION = 2.5

_WALKER, _GROUND = 0x20, 0x01  # collision categories: a walker meets the ground, never itself


@dataclass(frozen=True)
class Link:
    """One part of a leg, hung from an earlier part by a motorised hinge.

    Attributes:
        parent: index of the part it hangs from, 0 being the hull.
        size: width and height of the box, in pixels.
        position: centre at the start, relative to the hull's, in pixels.
        angle: angle at the start, in radians.
        anchor_parent, anchor: the hinge in the parent's and in its own coordinates, in pixels.
        limits: lower and upper hinge angle, in radians.
        speed: motor speed at any action, in radians a second; also divides the observed hinge speed.
        offset: added to the observed hinge angle.
        foot: whether its contact with the ground is observed.
    """

    parent: int
    size: tuple[float, float]
    position: tuple[float, float]
    angle: float
    anchor_parent: tuple[float, float]
    anchor: tuple[float, float]
    limits: tuple[float, float]
    speed: float
    offset: float = 0.0
    foot: bool = False


@dataclass(frozen=True)
class Body:
    """A walker.

    Attributes:
        hull: corners of the hull, in pixels.
        links: parts of the legs in the order of actions and observations.
        torque: greatest motor torque.
        torque_penalty: reward lost for a full action of one motor in one step.
        start_height: of the hull's centre above the ground at the start, in pixels.
    """

    hull: tuple[tuple[float, float], ...]
    links: tuple[Link, ...]
    torque: float
    torque_penalty: float
    start_height: float


def _biped(leg: float, hip: float, start_height: float, splay: float = 0.0, rise: float = 0.0) -> Body:
    """Two legs of two parts, each `leg` pixels long, hung at height `hip` from the hull's centre.

    The legs start `rise` pixels above the place where the hinges pull them, turned by `splay` radians.
    """
    links: list[Link] = []
    for side in (-1, 1):
        upper, angle = len(links) + 1, side * splay
        links += [
            Link(0, (8, leg), (0, hip + rise - leg / 2), angle, (0, hip), (0, leg / 2), (-0.8, 1.1), 4),
            Link(
                upper, (6.4, leg), (0, hip + rise - leg * 1.5), angle, (0, -leg / 2), (0, leg / 2),
                (-1.6, -0.1), speed=6, offset=1.0, foot=True,
            ),
        ]  # fmt: skip
    return Body(_BIPED_HULL, tuple(links), 80, 0.00035 * 80, start_height)


def _spider(pairs: int = 2, leg: float = 20.0) -> Body:
    """A square hull with pairs of three-part legs that go up and outwards, then down to the ground."""
    links: list[Link] = []
    for side in (1, -1) * pairs:
        parent, anchor_parent = 0, (-side * 10.0, -4.0)
        x, y = anchor_parent
        for bend, limit, speed in ((0.25, 0.1, 4), (0.7, 0.15, 4), (0.9, 0.2, 6)):
            angle = bend * math.pi * side
            dx, dy = -math.sin(angle) * leg / 2, math.cos(angle) * leg / 2
            links.append(
                Link(
                    parent, (4.8 if speed == 6 else 6, leg), (x + dx, y + dy), angle, anchor_parent,
                    (0, -leg / 2), (-limit * math.pi, limit * math.pi), speed, foot=speed == 6,
                )
            )  # fmt: skip
            x, y = x + 2 * dx, y + 2 * dy
            parent, anchor_parent = len(links), (0.0, leg / 2)
    hull = ((-10, 10), (-10, -10), (10, -10), (10, 10))
    return Body(hull, tuple(links), 100, 0.00035 / pairs * 80, leg + 4)


_BIPED_HULL = ((-30.0, 9.0), (6.0, 9.0), (34.0, 1.0), (34.0, -8.0), (-30.0, -8.0))

BODIES = {
    "classic_bipedal": _biped(leg=34, hip=-3, start_height=71),
    "small_bipedal": _biped(leg=17, hip=-3, start_height=37),
    "spider": _spider(),
    # Gymnasium's bipedal walker and the body of the published benchmark: its legs start 16 pixels above the
    # place where the hinges pull them.
    "old_classic_bipedal": _biped(leg=34, hip=-8, start_height=68, splay=0.05, rise=16),
}
"""The walkers by name."""


def body_named(name: str) -> Body:
    """Look up a walker; dashes serve as well as underscores.

    Raises:
        ValueError: when there is none of that name, naming the nearest.
    """
    key = name.replace("-", "_")
    if key not in BODIES:
        near = difflib.get_close_matches(key, BODIES, 1, cutoff=0.0)[0]
        known = ", ".join(BODIES)
        raise ValueError(f"unknown body {name!r}, did you mean {near!r}? There are {known}")
    return BODIES[key]


class BodyBuilder:
    """Puts a walker into Box2D worlds; shapes and definitions are made once and used at every reset."""

    def __init__(self, body: Body) -> None:
        self.body = body
        shapes = [b2PolygonShape(vertices=[_units(corner) for corner in body.hull])]
        shapes += [b2PolygonShape(box=_units((link.size[0] / 2, link.size[1] / 2))) for link in body.links]
        self._fixtures = [
            b2FixtureDef(shape=shape, density=1.0, categoryBits=_WALKER, maskBits=_GROUND) for shape in shapes
        ]
        self._fixtures[0].density, self._fixtures[0].friction = 5.0, 0.1
        self._part = b2BodyDef(type=b2_dynamicBody)
        angles = [0.0, *(link.angle for link in body.links)]  # hinge angles are 0 at the start
        self._hinges = [
            b2RevoluteJointDef(
                localAnchorA=_units(link.anchor_parent),
                localAnchorB=_units(link.anchor),
                referenceAngle=link.angle - angles[link.parent],
                lowerAngle=link.limits[0],
                upperAngle=link.limits[1],
                enableLimit=True,
                enableMotor=True,
            )
            for link in body.links
        ]

    def build(self, world: b2World, x: float, ground: float) -> tuple[list[Any], list[Any]]:
        """Create the walker above (x, ground); returns its parts, hull first, and its hinges."""
        y = ground + self.body.start_height / SCALE
        parts = [self._create(world, (x, y), 0.0, 0)]
        hinges = []
        for k, (link, hinge) in enumerate(zip(self.body.links, self._hinges, strict=True), start=1):
            dx, dy = _units(link.position)
            parts.append(self._create(world, (x + dx, y + dy), link.angle, k))
            hinge.bodyA, hinge.bodyB = parts[link.parent], parts[k]
            hinges.append(world.CreateJoint(hinge))
        return parts, hinges

    def _create(self, world: b2World, position: tuple[float, float], angle: float, index: int) -> Any:
        self._part.position, self._part.angle = position, angle
        part = world.CreateBody(self._part)
        part.CreateFixture(self._fixtures[index])
        return part


class TerrainBuilder:
    """Puts terrain into a Box2D world, piece by piece as the walker comes near.

    Most episodes end long before the finish, and a dense track has hundreds of fixtures: making them all
    would cost more than the episode. What is ahead of a walker's reach cannot touch it, whether it exists or
    not.

    Attributes:
        REACH: everything that begins left of the walker's hull plus this exists; more than a walker is long
            and moves in a step.
        PIECE: how much more is made at a time.
    """

    REACH, PIECE = 6.0, 6.0

    def __init__(self) -> None:
        self._shapes = {"edge": b2EdgeShape(), "polygon": b2PolygonShape()}
        self._fixtures = {
            kind: b2FixtureDef(shape=shape, friction=TERRAIN_FRICTION, categoryBits=_GROUND)
            for kind, shape in self._shapes.items()
        }

    def start(self, world: b2World, terrain: Terrain) -> None:
        """Begin with a new world and terrain; `extend` makes what is near the walker."""
        self._body = world.CreateStaticBody()
        self._terrain = terrain
        self._edges = self._polygons = 0
        self.end = 0.0

    def extend(self, x: float) -> None:
        """Make everything that begins less than reach and piece ahead of `x`."""
        self.end = x + self.PIECE
        horizon = self.end + self.REACH
        ground, obstacles = self._terrain.ground, self._terrain.obstacles
        edges = int(np.searchsorted(ground[:-1, 0], horizon))
        corners = ground[self._edges : edges + 1].tolist()
        for segment in pairwise(corners):
            self._add("edge", segment)
        polygons = int(np.searchsorted(obstacles[:, :, 0].min(axis=1), horizon))
        for polygon in obstacles[self._polygons : polygons].tolist():
            self._add("polygon", list(dict.fromkeys(map(tuple, polygon))))
        self._edges, self._polygons = edges, polygons

    def _add(self, kind: str, vertices: Sequence[Sequence[float]]) -> None:
        self._shapes[kind].vertices = vertices
        self._body.CreateFixture(self._fixtures[kind])


def _units(pixels: Sequence[float]) -> tuple[float, float]:
    return pixels[0] / SCALE, pixels[1] / SCALE
