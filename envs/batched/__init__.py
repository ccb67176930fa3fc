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

from typing import TYPE_CHECKING

from tutelage.envs.contract.names import lazy_names

if TYPE_CHECKING:
    from tutelage.envs.batched.adaptors.gymnasium_env import GymnasiumVecTask as GymnasiumVecTask
    from tutelage.envs.batched.adaptors.gymnasium_env import SingleVecTask as SingleVecTask
    from tutelage.envs.batched.adaptors.isaac_tensors import IsaacTensors as IsaacTensors
    from tutelage.envs.batched.adaptors.rsl_rl import RslRlVecTask as RslRlVecTask
    from tutelage.envs.batched.adaptors.sb3 import SB3VecTask as SB3VecTask
    from tutelage.envs.batched.adaptors.skrl import SkrlVecTask as SkrlVecTask
    from tutelage.envs.batched.cameras.camera_config import CameraConfig as CameraConfig
    from tutelage.envs.batched.cameras.factory import make_cameras as make_cameras
    from tutelage.envs.batched.looks.contact_sheet import contact_sheet as contact_sheet
    from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation as ImageAugmentation
    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization as VisualRandomization
    from tutelage.envs.batched.simulators.factory import make_simulator as make_simulator
    from tutelage.envs.batched.simulators.simulator import Simulator as Simulator
    from tutelage.envs.batched.simulators.simulator import SimulatorError as SimulatorError
    from tutelage.envs.batched.simulators.simulator import SimulatorWarning as SimulatorWarning
    from tutelage.envs.batched.task.rows import Rows as Rows
    from tutelage.envs.batched.task.streams import RandomStreams as RandomStreams
    from tutelage.envs.batched.task.vec_task import VecTask as VecTask
    from tutelage.envs.batched.worlds.ball_balance import BallBalance as BallBalance
    from tutelage.envs.batched.worlds.catalogue import VEC_TASKS as VEC_TASKS
    from tutelage.envs.batched.worlds.catalogue import make_vec_task as make_vec_task
    from tutelage.envs.batched.worlds.gymnasium_models import Hopper as Hopper
    from tutelage.envs.batched.worlds.gymnasium_models import Walker2d as Walker2d
    from tutelage.envs.batched.worlds.lift_object import LiftObject as LiftObject
    from tutelage.envs.batched.worlds.push_cube import PushCube as PushCube
    from tutelage.envs.batched.worlds.quadruped_terrain import QuadrupedTerrain as QuadrupedTerrain
    from tutelage.envs.batched.worlds.reach import Reach as Reach
    from tutelage.envs.batched.worlds.stump_walker import StumpWalker as StumpWalker

__getattr__, __all__ = lazy_names(__name__, __file__)
