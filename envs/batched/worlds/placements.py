"""Where a model has its cameras and lights, and moving them: the part of `VisualRandomization` in poses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.simulators.simulator import Simulator


class Placements:
    """Where a model has its lights or cameras.

    MuJoCo places those that track a body by ``pos0``, ``poscom0`` and ``mat0``, in the world's frame, instead
    of ``pos`` and ``quat``, in the body's. All are written, as ``mj_setConst`` derives the former from the
    latter: it then finds what is there.
    """

    def __init__(self, kind: str, model: mujoco.MjModel, device: torch.device) -> None:
        import mujoco

        def constant(name: str) -> Tensor:
            return torch.as_tensor(getattr(model, f"{kind}_{name}"), dtype=torch.float32, device=device)

        track = (mujoco.mjtCamLight.mjCAMLIGHT_TRACK, mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)
        tracking = [int(mode) in map(int, track) for mode in getattr(model, f"{kind}_mode")]
        self.kind, self.count, self.any_tracks = kind, len(tracking), any(tracking)
        self.tracking = torch.tensor(tracking, dtype=torch.bool, device=device)
        self.pos, self.pos0, self.poscom0 = constant("pos"), constant("pos0"), constant("poscom0")
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)  # in qpos0
        frames = data.xquat[getattr(model, f"{kind}_bodyid")]
        self.frames = torch.as_tensor(frames, dtype=torch.float32, device=device)

    def move(self, sim: Simulator, rows: Rows, offsets: Tensor) -> None:
        """Move all by offsets ``(n, count, 3)`` in the frames of their bodies."""
        sim.write_model(f"{self.kind}_pos", self.pos + offsets, rows)
        if self.any_tracks:
            moved = rotate(self.frames, offsets)
            sim.write_model(f"{self.kind}_pos0", self.pos0 + moved, rows)
            sim.write_model(f"{self.kind}_poscom0", self.poscom0 + moved, rows)


def random_vectors(unit: Tensor, ends: Tensor) -> Tensor:
    """Vectors in all directions alike, of lengths uniform between ``ends[..., 0]`` and ``ends[..., 1]``."""
    z, angle = 2 * unit[..., 0] - 1, 2 * math.pi * unit[..., 1]
    level = torch.sqrt(1 - z * z)
    length = ends[..., 0] + (ends[..., 1] - ends[..., 0]) * unit[..., 2]
    return length[..., None] * torch.stack([level * angle.cos(), level * angle.sin(), z], -1)


def to_quaternion(rotations: Tensor) -> Tensor:
    """Quaternions (w, x, y, z) of rotation vectors in radians."""
    half = torch.linalg.vector_norm(rotations, dim=-1, keepdim=True) / 2
    # sinc(x) is sin(pi x) / (pi x), also at 0
    return torch.cat([half.cos(), rotations * (torch.sinc(half / math.pi) / 2)], -1)


def quaternion_product(first: Tensor, second: Tensor) -> Tensor:
    """Quaternions of the second rotation followed by the first."""
    first = first.expand_as(second)
    w0, v0, w, v = first[..., :1], first[..., 1:], second[..., :1], second[..., 1:]
    return torch.cat(
        [w0 * w - (v0 * v).sum(-1, keepdim=True), w0 * v + w * v0 + torch.linalg.cross(v0, v)], -1
    )


def rotate(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """Vectors turned by quaternions."""
    w, v = quaternions[..., :1], quaternions[..., 1:]
    v, vectors = torch.broadcast_tensors(v, vectors)
    twice = 2 * torch.linalg.cross(v, vectors)
    return vectors + w * twice + torch.linalg.cross(v, twice)
