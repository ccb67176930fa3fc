"""Dynamics and picture of the point mass that must pass a gate, batched over environments in numpy.

`point_mass_gate` puts this behind Gymnasium's and Stable-Baselines3's interfaces; the batch
of one and the batch of many run the same lines, so that an episode is the same in both, bit for bit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.envs.contract.noise import Keys, normals
from tutelage.envs.contract.tasks import BoxTasks

Floats = NDArray[np.float64]

EPISODE_STEPS, SUBSTEPS, DT = 100, 10, 0.01
START, GOAL, GOAL_RADIUS, BOUND = (0.0, 3.0), (0.0, -3.0), 0.25, 4.0
FORCE, FORCE_GAIN, NOISE_STD = 10.0, 1.5, 0.05
SPEED_UNIT = 10.0  # velocities are observed in this unit
SPEED_LIMIT = 1.1 * EPISODE_STEPS * SUBSTEPS * DT * FORCE * FORCE_GAIN  # no episode is faster
DRAWS = SUBSTEPS * 2 // 4  # outputs of the noise stream that a step uses, four numbers each

_START, _GOAL = np.array(START)[:, None], np.array(GOAL)[:, None]


class GatePhysics:
    """State and dynamics of `n` point masses; arrays have the environments along the last axis.

    Attributes:
        position, velocity: of x and y, shape ``(2, n)``.
        tasks: running tasks, shape ``(n, d)``; friction is 0 where ``d == 2``.
        keys: starts of the running episodes' noise streams, shape ``(n,)``.
        steps: steps taken in the running episodes, shape ``(n,)``.
        ended: which environments wait for `start`, shape ``(n,)``.
    """

    def __init__(self, space: BoxTasks, n: int, keep_trail: bool = False) -> None:
        self.space = space
        self.position, self.velocity = np.zeros((2, n)), np.zeros((2, n))
        self.tasks = np.tile((space.low + space.high) / 2, (n, 1))
        self.keys = np.zeros(n, dtype=np.uint64)
        self.steps = np.zeros(n, dtype=np.int64)
        self.ended = np.ones(n, dtype=bool)
        self.trail = np.zeros((EPISODE_STEPS + 1, 2, n)) if keep_trail else None
        self._path, self._speed = np.zeros((SUBSTEPS + 1, 2, n)), np.zeros((SUBSTEPS + 1, 2, n))

    def start(self, indices: NDArray[np.int64], tasks: Floats, keys: Keys) -> None:
        """Begin `tasks[i]` with noise stream `keys[i]` in environment `indices[i]`."""
        self.position[:, indices] = _START
        self.velocity[:, indices] = 0.0
        self.tasks[indices], self.keys[indices] = tasks, keys
        self.steps[indices], self.ended[indices] = 0, False
        if self.trail is not None:
            self.trail[0, :, indices] = START

    def step(self, actions: ArrayLike) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Take one step in every environment; return rewards, crashes and which masses are at the goal."""
        path, speed = self._path, self._speed
        # Ten Euler steps: v' = 1.5 a - friction v + N(0, 0.05), x' = v, positions clipped after each.
        kicks = normals(self.keys, self.steps.astype(np.uint64) * DRAWS, DRAWS).reshape(SUBSTEPS, 2, -1)
        kicks *= NOISE_STD
        kicks += np.clip(np.asarray(actions, dtype=np.float64).T, -1.0, 1.0) * (FORCE * FORCE_GAIN)
        kicks *= DT
        path[0], speed[0] = self.position, self.velocity
        for k in range(SUBSTEPS):
            if self.space.dim == 3:
                kicks[k] -= speed[k] * (DT * self.tasks[:, 2])
            np.add(speed[k], kicks[k], out=speed[k + 1])
        np.multiply(speed[:-1], DT, out=path[1:])
        for k in range(SUBSTEPS):
            after = path[k + 1]
            np.add(path[k], after, out=after)
            np.minimum(after, BOUND, out=after)
            np.maximum(after, -BOUND, out=after)
        self.position[:], self.velocity[:] = path[-1], speed[-1]
        crashed = self._stop_at_wall()
        self.steps += 1
        if self.trail is not None:
            rows = np.minimum(self.steps, EPISODE_STEPS)
            self.trail[rows, :, np.arange(len(rows))] = self.position.T
        distance = np.sqrt(np.square(self.position - _GOAL).sum(axis=0))
        np.logical_or(crashed, self.steps >= EPISODE_STEPS, out=self.ended)
        return np.exp(-0.6 * distance), crashed, distance < GOAL_RADIUS

    def _stop_at_wall(self) -> NDArray[np.bool_]:
        """Find crossings of y = 0 outside the gate and put those masses, at rest, where they hit the wall."""
        y = self._path[:, 1]
        above, below = y > 0, y < 0
        crossing = (above[1:] > above[:-1]) | (below[1:] > below[:-1])
        crashed = np.zeros(y.shape[1], dtype=bool)
        k, i = np.nonzero(crossing)
        if k.size:
            (x0, y0), (x1, y1) = self._path[k, :, i].T, self._path[k + 1, :, i].T
            x_wall = x0 + (x1 - x0) * (y0 / (y0 - y1))
            outside = np.abs(x_wall - self.tasks[i, 0]) > self.tasks[i, 1] / 2
            hit, x_hit = (
                i[outside][::-1],
                x_wall[outside][::-1],
            )  # written last and kept: the earliest substep
            crashed[hit] = True
            self.position[0, hit], self.position[1, hit], self.velocity[:, hit] = x_hit, 0.0, 0.0
        return crashed

    def observations(self, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        """x / 4, vx / 10, y / 4, vy / 10, then the task scaled to [-1, 1]; shape ``(n, 4 + d)``, float32."""
        tasks = self.tasks[rows]
        observations = np.empty((len(tasks), 4 + self.space.dim), dtype=np.float32)
        observations[:, 0:4:2] = self.position.T[rows] / BOUND
        observations[:, 1:4:2] = self.velocity.T[rows] / SPEED_UNIT
        observations[:, 4:] = 2.0 * self.space.to_unit(tasks) - 1.0
        return observations

    def render(self, i: int, size: int = 400) -> NDArray[np.uint8]:
        """Picture of environment `i`, shape ``(size, size, 3)``."""
        from PIL import Image, ImageDraw

        fine = 2 * size  # drawn at twice the size and reduced: smooth edges
        scale = fine / (2 * BOUND)

        def pixel(x: float, y: float) -> tuple[float, float]:
            return (x + BOUND) * scale, (BOUND - y) * scale

        def disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, **style: Any) -> None:
            draw.ellipse([pixel(x - radius, y + radius), pixel(x + radius, y - radius)], **style)

        picture = Image.new("RGB", (fine, fine), (250, 250, 247))
        draw = ImageDraw.Draw(picture)
        for line in range(-3, 4):
            draw.line([pixel(line, -BOUND), pixel(line, BOUND)], fill=(234, 234, 228), width=2)
            draw.line([pixel(-BOUND, line), pixel(BOUND, line)], fill=(234, 234, 228), width=2)
        gate, half = self.tasks[i, 0], self.tasks[i, 1] / 2
        for left, right in ((-BOUND, gate - half), (gate + half, BOUND)):
            if right > left:
                draw.rectangle([pixel(left, 0.08), pixel(right, -0.08)], fill=(60, 64, 72))
        disc(draw, *GOAL, GOAL_RADIUS, fill=(201, 232, 208), outline=(38, 140, 74), width=4)
        disc(draw, *GOAL, 0.05, fill=(38, 140, 74))
        disc(draw, *START, 0.07, outline=(150, 150, 145), width=3)
        way = self.position.T[i : i + 1] if self.trail is None else self.trail[: self.steps[i] + 1, :, i]
        trail = [pixel(x, y) for x, y in way]
        for k, (begin, end) in enumerate(pairwise(trail)):
            age = 1.0 - (k + 1) / len(trail)
            shade = (int(52 + 150 * age), int(101 + 110 * age), int(186 + 55 * age))
            draw.line([begin, end], fill=shade, width=6)
        x, y = self.position[:, i]
        crashed = self.ended[i] and self.steps[i] > 0 and y == 0.0
        disc(draw, x, y, 0.13, fill=(205, 60, 50) if crashed else (28, 70, 150))
        return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS), dtype=np.uint8)
