"""Batched MuJoCo environments: one task code on CPU threads and on GPUs, with cameras.

::

    from tutelage.envs.batched import CameraConfig, make_vec_task

    task = make_vec_task("reach", num_envs=256, cameras=[CameraConfig("front")])   # device="cuda" on a GPU
    obs_dict = task.reset()                          # {"obs": ..., "states": ..., "front/rgb": ...}
    obs_dict, rew, reset, extras = task.step(task.zero_actions())

The parts: `VecTask` (the contract, and how to write a task), `make_vec_task` and `VEC_TASKS`; adaptors
(`SB3VecTask`, `GymnasiumVecTask`, `SingleVecTask`, `RslRlVecTask`, `SkrlVecTask`, `IsaacTensors`); cameras
and looks (`CameraConfig`, `VisualRandomization`, `ImageAugmentation`, `contact_sheet`); and below them the
simulators (`make_simulator`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.envs.batched.ball_balance import BallBalance
    from tutelage.envs.batched.cameras import CameraConfig, make_cameras
    from tutelage.envs.batched.catalogue import VEC_TASKS, make_vec_task
    from tutelage.envs.batched.contact_sheet import contact_sheet
    from tutelage.envs.batched.gymnasium_env import GymnasiumVecTask, SingleVecTask
    from tutelage.envs.batched.gymnasium_models import Hopper, Walker2d
    from tutelage.envs.batched.image_augmentation import ImageAugmentation
    from tutelage.envs.batched.isaac_tensors import IsaacTensors
    from tutelage.envs.batched.lift_object import LiftObject
    from tutelage.envs.batched.push_cube import PushCube
    from tutelage.envs.batched.quadruped_terrain import QuadrupedTerrain
    from tutelage.envs.batched.reach import Reach
    from tutelage.envs.batched.rows import Rows
    from tutelage.envs.batched.rsl_rl import RslRlVecTask
    from tutelage.envs.batched.sb3 import SB3VecTask
    from tutelage.envs.batched.simulator import Simulator, SimulatorError, SimulatorWarning, make_simulator
    from tutelage.envs.batched.skrl import SkrlVecTask
    from tutelage.envs.batched.streams import RandomStreams
    from tutelage.envs.batched.stump_walker import StumpWalker
    from tutelage.envs.batched.vec_task import VecTask
    from tutelage.envs.batched.visual_randomization import VisualRandomization

_HOMES = {
    "ball_balance": ("BallBalance",),
    "cameras": (
        "CameraConfig",
        "make_cameras",
    ),
    "catalogue": (
        "VEC_TASKS",
        "make_vec_task",
    ),
    "contact_sheet": ("contact_sheet",),
    "gymnasium_env": (
        "GymnasiumVecTask",
        "SingleVecTask",
    ),
    "gymnasium_models": (
        "Hopper",
        "Walker2d",
    ),
    "image_augmentation": ("ImageAugmentation",),
    "isaac_tensors": ("IsaacTensors",),
    "lift_object": ("LiftObject",),
    "push_cube": ("PushCube",),
    "quadruped_terrain": ("QuadrupedTerrain",),
    "reach": ("Reach",),
    "rows": ("Rows",),
    "rsl_rl": ("RslRlVecTask",),
    "sb3": ("SB3VecTask",),
    "simulator": (
        "Simulator",
        "SimulatorError",
        "SimulatorWarning",
        "make_simulator",
    ),
    "skrl": ("SkrlVecTask",),
    "streams": ("RandomStreams",),
    "stump_walker": ("StumpWalker",),
    "vec_task": ("VecTask",),
    "visual_randomization": ("VisualRandomization",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "VEC_TASKS",
    "BallBalance",
    "CameraConfig",
    "GymnasiumVecTask",
    "Hopper",
    "ImageAugmentation",
    "IsaacTensors",
    "LiftObject",
    "PushCube",
    "QuadrupedTerrain",
    "RandomStreams",
    "Reach",
    "Rows",
    "RslRlVecTask",
    "SB3VecTask",
    "Simulator",
    "SimulatorError",
    "SimulatorWarning",
    "SingleVecTask",
    "SkrlVecTask",
    "StumpWalker",
    "VecTask",
    "VisualRandomization",
    "Walker2d",
    "contact_sheet",
    "make_cameras",
    "make_simulator",
    "make_vec_task",
]


def __getattr__(name: str) -> Any:
    """Import names where they live when they are asked for: torch and MuJoCo take a second."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tutelage.envs.batched.{_HOME_OF[name]}"), name)
