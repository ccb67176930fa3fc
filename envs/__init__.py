"""Worlds with task parameters, and what carries tasks and finished episodes between the folders.

Importing this package registers the Gymnasium environments ``tutelage/StumpTracks-v0``,
``tutelage/HexagonTracks-v0`` and ``tutelage/PointMassGate-v0``; without an import,
``gymnasium.make("tutelage.envs:tutelage/StumpTracks-v0")`` does both. Names below are imported on first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gymnasium.envs.registration import register, registry

from tutelage.envs.contract.names import lazy_names

if TYPE_CHECKING:
    from tutelage.envs.contract.checker import TaskEnvError as TaskEnvError
    from tutelage.envs.contract.checker import check_task_env as check_task_env
    from tutelage.envs.contract.curriculum_check import CurriculumFinding as CurriculumFinding
    from tutelage.envs.contract.curriculum_check import check_curriculum as check_curriculum
    from tutelage.envs.contract.episodes import Episodes as Episodes
    from tutelage.envs.contract.interface import Scores as Scores
    from tutelage.envs.contract.interface import TaskTeacher as TaskTeacher
    from tutelage.envs.contract.levels import DrawsTasks as DrawsTasks
    from tutelage.envs.contract.levels import LevelSpace as LevelSpace
    from tutelage.envs.contract.proposals import Proposals as Proposals
    from tutelage.envs.contract.recipe import TaskKnowledge as TaskKnowledge
    from tutelage.envs.contract.recipe import WorldRecipe as WorldRecipe
    from tutelage.envs.contract.recipe import batched_ppo as batched_ppo
    from tutelage.envs.contract.starting import TaskQueue as TaskQueue
    from tutelage.envs.contract.state import StateError as StateError
    from tutelage.envs.contract.state import load_state as load_state
    from tutelage.envs.contract.state import save_state as save_state
    from tutelage.envs.contract.tasks import Axis as Axis
    from tutelage.envs.contract.tasks import BoxSpace as BoxSpace
    from tutelage.envs.contract.tasks import BoxTasks as BoxTasks
    from tutelage.envs.contract.tasks import DiscreteTasks as DiscreteTasks
    from tutelage.envs.contract.tasks import TaskError as TaskError
    from tutelage.envs.contract.tasks import TaskSpace as TaskSpace
    from tutelage.envs.contract.taught import TaughtVecEnv as TaughtVecEnv
    from tutelage.envs.contract.taught_gymnasium import TaughtGymnasiumVectorEnv as TaughtGymnasiumVectorEnv
    from tutelage.envs.contract.vector import BatchedTaskVecEnv as BatchedTaskVecEnv
    from tutelage.envs.contract.vector import GymTaskVecEnv as GymTaskVecEnv
    from tutelage.envs.point_mass.point_mass_gate import PointMassGate as PointMassGate
    from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv as PointMassGateVecEnv
    from tutelage.envs.stumps.stump_tracks import HexagonTracks as HexagonTracks
    from tutelage.envs.stumps.stump_tracks import StumpTracks as StumpTracks
    from tutelage.envs.toy.cube_toy import CubeToy as CubeToy


def register_envs() -> None:
    """Register our environments with Gymnasium; done when this package is imported."""
    for name, entry in {
        "tutelage/StumpTracks-v0": "tutelage.envs.stumps.stump_tracks:StumpTracks",
        "tutelage/HexagonTracks-v0": "tutelage.envs.stumps.stump_tracks:HexagonTracks",
        "tutelage/PointMassGate-v0": "tutelage.envs.point_mass.point_mass_gate:PointMassGate",
    }.items():
        if name not in registry:
            register(id=name, entry_point=entry)


register_envs()
# Torch's OpenMP threads spin while they wait, at the cost of simulation threads on the same cores. Read
# when torch is first imported; see also tutelage.envs.batched.simulators.simulator.settle_threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__getattr__, __all__ = lazy_names(__name__, __file__)
