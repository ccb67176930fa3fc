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

import importlib
from typing import Any

_HOMES = {
    "BallBalance": "ball_balance",
    "CameraConfig": "cameras",
    "GymnasiumVecTask": "gymnasium_env",
    "Hopper": "gymnasium_models",
    "ImageAugmentation": "image_augmentation",
    "IsaacTensors": "isaac_tensors",
    "LiftObject": "lift_object",
    "PushCube": "push_cube",
    "QuadrupedTerrain": "quadruped_terrain",
    "RandomStreams": "streams",
    "Reach": "reach",
    "Rows": "rows",
    "RslRlVecTask": "rsl_rl",
    "SB3VecTask": "sb3",
    "Simulator": "simulator",
    "SimulatorError": "simulator",
    "SimulatorWarning": "simulator",
    "SingleVecTask": "gymnasium_env",
    "SkrlVecTask": "skrl",
    "StumpWalker": "stump_walker",
    "VEC_TASKS": "catalogue",
    "VecTask": "vec_task",
    "VisualRandomization": "visual_randomization",
    "Walker2d": "gymnasium_models",
    "contact_sheet": "contact_sheet",
    "make_cameras": "cameras",
    "make_simulator": "simulator",
    "make_vec_task": "catalogue",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import names where they live when they are asked for: torch and MuJoCo take a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tutelage.envs.batched.{_HOMES[name]}"), name)
