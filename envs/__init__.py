"""Worlds with task parameters, and what carries tasks and finished episodes between the folders.

Importing this package registers the Gymnasium environments ``tutelage/StumpTracks-v0``,
``tutelage/HexagonTracks-v0`` and ``tutelage/PointMassGate-v0``; without an import,
``gymnasium.make("tutelage.envs:tutelage/StumpTracks-v0")`` does both. Names below are imported on first use.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from tutelage.envs.checker import TaskEnvError, check_task_env
    from tutelage.envs.cube_toy import CubeToy
    from tutelage.envs.episodes import Episodes
    from tutelage.envs.interface import TaskTeacher
    from tutelage.envs.point_mass_gate import PointMassGate, PointMassGateVecEnv
    from tutelage.envs.state import StateError, load_state, save_state
    from tutelage.envs.stump_tracks import HexagonTracks, StumpTracks
    from tutelage.envs.tasks import BoxTasks, DiscreteTasks, LevelSpace, TaskError, TaskSpace
    from tutelage.envs.taught import TaskQueue, TaughtVecEnv
    from tutelage.envs.vector import BatchedTaskVecEnv, GymTaskVecEnv

_HOMES = {
    "checker": ("TaskEnvError", "check_task_env"),
    "cube_toy": ("CubeToy",),
    "episodes": ("Episodes",),
    "interface": ("TaskTeacher",),
    "point_mass_gate": ("PointMassGate", "PointMassGateVecEnv"),
    "state": ("StateError", "load_state", "save_state"),
    "stump_tracks": ("HexagonTracks", "StumpTracks"),
    "tasks": ("BoxTasks", "DiscreteTasks", "LevelSpace", "TaskError", "TaskSpace"),
    "taught": ("TaskQueue", "TaughtVecEnv"),
    "vector": ("BatchedTaskVecEnv", "GymTaskVecEnv"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BatchedTaskVecEnv",
    "BoxTasks",
    "CubeToy",
    "DiscreteTasks",
    "Episodes",
    "GymTaskVecEnv",
    "HexagonTracks",
    "LevelSpace",
    "PointMassGate",
    "PointMassGateVecEnv",
    "StateError",
    "StumpTracks",
    "TaskEnvError",
    "TaskError",
    "TaskQueue",
    "TaskSpace",
    "TaskTeacher",
    "TaughtVecEnv",
    "check_task_env",
    "load_state",
    "register_envs",
    "save_state",
]


def register_envs() -> None:
    """Register our environments with Gymnasium; done when this package is imported."""
    for name, entry in {
        "tutelage/StumpTracks-v0": "tutelage.envs.stump_tracks:StumpTracks",
        "tutelage/HexagonTracks-v0": "tutelage.envs.stump_tracks:HexagonTracks",
        "tutelage/PointMassGate-v0": "tutelage.envs.point_mass_gate:PointMassGate",
    }.items():
        if name not in registry:
            register(id=name, entry_point=entry)


register_envs()
# Torch's OpenMP threads spin while they wait, at the cost of simulation threads on the same cores. Read
# when torch is first imported; see also tutelage.envs.batched.simulator.settle_threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tutelage.envs.{_HOME_OF[name]}"), name)
