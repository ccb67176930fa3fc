"""The environments that can be named on the command line: how each is made, tested and described.

A card says how to make the environment, single and batched; on which fixed test tasks students are evaluated;
and what expert knowledge there is for the task teachers that need some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.contract.tasks import BoxTasks, Tasks, TaskSpace
from tutelage.teachers import TaskKnowledge

if TYPE_CHECKING:
    import gymnasium as gym

    from tutelage.envs.contract.vector import BatchedTaskVecEnv


@dataclass(frozen=True)
class TaskEnvCard:
    """An environment as experiments see it.

    Attributes:
        name: on the command line.
        env_id: Gymnasium id, or ``module:factory``.
        summary: one line for ``--help``.
        mastered: what counts as mastering a task, in words.
        make: makes one environment; takes the render mode.
        test_sets: name -> fixed test tasks; the first is the one that task teachers are compared on.
        picture_test_set: which of them the mastery pictures show.
        knowledge: expert knowledge for task teachers that need it, or None.
        return_range: nominal range of returns, for the axes of plots, or None.
        make_batch: makes a natively batched environment of so many, or None.
        renders: whether it can draw itself into arrays.
    """

    name: str
    env_id: str
    summary: str
    mastered: str
    make: Callable[[str | None], gym.Env[Any, Any]]
    test_sets: Callable[[], dict[str, Tasks]]
    picture_test_set: str
    knowledge: TaskKnowledge | None = None
    return_range: tuple[float, float] | None = None
    make_batch: Callable[[int], BatchedTaskVecEnv] | None = None
    renders: bool = True

    @cached_property
    def primary_test_set(self) -> str:
        """The test set that task teachers are compared on."""
        return next(iter(self.test_sets()))

    def task_space(self) -> TaskSpace:
        """The task space of the environment."""
        env = self.make(None)
        space: TaskSpace = env.get_wrapper_attr("task_space")
        env.close()
        return space


def _stump_tracks(name: str, body: str) -> TaskEnvCard:
    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.stumps.stump_tracks import StumpTracks

        return StumpTracks(body=body, render_mode=render_mode)

    def test_sets() -> dict[str, Tasks]:
        from tutelage.envs.stumps.stump_tracks import StumpTracks

        return {"grid": StumpTracks().test_tasks()}

    return TaskEnvCard(
        name=name,
        env_id="tutelage/StumpTracks-v0",
        summary=f"Box2D walker ({body}) over stumps: height [0, 3] x spacing [0, 6], 100 test tasks",
        mastered="undiscounted return above 230",
        make=make,
        test_sets=test_sets,
        picture_test_set="grid",
        # The easy task and its spread: TeachMyAgent's "low knowledge" (flat ground, 10 % of the ranges).
        knowledge=TaskKnowledge(
            easy_task=(0.0, 6.0),
            easy_std=(0.3, 0.6),
            target_mean=(3.0, 0.0),
            target_std=(0.3, 0.6),
            mastered_return=230.0,
            return_range=(-150.0, 350.0),
        ),
        return_range=(-150.0, 350.0),
    )


def _hexagon_tracks() -> TaskEnvCard:
    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.stumps.stump_tracks import HexagonTracks

        return HexagonTracks(render_mode=render_mode)

    def test_sets() -> dict[str, Tasks]:
        from tutelage.envs.stumps.stump_tracks import HexagonTracks

        return {"uniform": HexagonTracks().test_tasks()}

    return TaskEnvCard(
        name="hexagon-tracks",
        env_id="tutelage/HexagonTracks-v0",
        summary="Box2D walker (classic_bipedal) over deformed hexagons: 12 parameters in [0, 4]",
        mastered="undiscounted return above 230",
        make=make,
        test_sets=test_sets,
        picture_test_set="uniform",
        knowledge=TaskKnowledge(
            easy_task=(0.0,) * 12,
            easy_std=(0.4,) * 12,
            target_mean=(4.0,) * 12,
            target_std=(0.4,) * 12,
            mastered_return=230.0,
            return_range=(-150.0, 350.0),
        ),
        return_range=(-150.0, 350.0),
    )


def _point_mass_gate(name: str, friction: bool) -> TaskEnvCard:
    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.point_mass.point_mass_gate import PointMassGate

        return PointMassGate(friction=friction, render_mode=render_mode)

    def make_batch(n: int) -> BatchedTaskVecEnv:
        from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv

        return PointMassGateVecEnv(n, friction=friction)

    def test_sets() -> dict[str, Tasks]:
        from tutelage.envs.point_mass.point_mass_gate import target_test_tasks, uniform_test_tasks

        return {"target": target_test_tasks(friction), "uniform": uniform_test_tasks(friction)}

    d = 3 if friction else 2
    return TaskEnvCard(
        name=name,
        env_id="tutelage/PointMassGate-v0",
        summary=f"point mass through a gate: position x width{' x friction' * friction}, target off-centre",
        mastered="within 0.25 of the goal at the end",
        make=make,
        test_sets=test_sets,
        picture_test_set="uniform",
        # Distributions of Klink et al. 2020 (self-paced RL), "Easy start" and target.
        knowledge=TaskKnowledge(
            easy_task=(0.0, 4.25, 2.0)[:d],
            easy_std=(2.0, 1.875, 1.0)[:d],
            target_mean=(2.5, 0.5, 0.0)[:d],
            target_std=(0.004, 0.00375, 0.002)[:d],
            mastered_return=60.0,  # beyond the goal, pinned to the border, an episode brings 48; good ones 80
            return_range=(0.0, 90.0),
        ),
        return_range=(0.0, 90.0),
        make_batch=make_batch,
    )


def _vec_task(
    name: str,
    summary: str,
    mastered: str,
    knowledge: TaskKnowledge | None = None,
    return_range: tuple[float, float] | None = None,
) -> TaskEnvCard:
    """A batched MuJoCo task, each cell on one thread of its own."""

    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.batched.adaptors.gymnasium_env import SingleVecTask
        from tutelage.envs.batched.worlds.catalogue import make_vec_task

        return SingleVecTask(make_vec_task(name, 1, threads=1), render_mode=render_mode)

    def make_batch(n: int) -> BatchedTaskVecEnv:
        from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
        from tutelage.envs.batched.worlds.catalogue import make_vec_task

        return SB3VecTask(make_vec_task(name, n, threads=1))

    @cache
    def test_sets() -> dict[str, Tasks]:
        env = make(None)
        space: BoxTasks = env.get_wrapper_attr("task_space")
        env.close()
        return {"test": space.grid(10) if space.dim <= 2 else space.sample(np.random.default_rng(2026), 100)}

    return TaskEnvCard(
        name=name,
        env_id=f"tutelage.envs.batched:{name}",
        summary=summary,
        mastered=mastered,
        make=make,
        test_sets=test_sets,
        picture_test_set="test",
        knowledge=knowledge,
        return_range=return_range,
        make_batch=make_batch,
    )


def _stump_walker() -> TaskEnvCard:
    return _vec_task(
        "stump-walker",
        "MuJoCo biped over stumps: height [0, 3] x spacing [0, 6], 100 test tasks; minutes, not hours",
        "6 m walked within 240 steps",
        # As for StumpTracks: flat ground is easy, the highest stumps close together are the hardest.
        knowledge=TaskKnowledge(
            easy_task=(0.0, 6.0),
            easy_std=(0.3, 0.6),
            target_mean=(3.0, 0.0),
            target_std=(0.3, 0.6),
            mastered_return=55.0,  # 10 for each of 6 m, less 2 to 4 for posture and effort
            return_range=(-5.0, 60.0),
        ),
        return_range=(-5.0, 60.0),
    )


TASK_ENVS: dict[str, Callable[[], TaskEnvCard]] = {
    "point-mass-gate": lambda: _point_mass_gate("point-mass-gate", friction=False),
    "point-mass-gate/friction": lambda: _point_mass_gate("point-mass-gate/friction", friction=True),
    "stump-tracks": lambda: _stump_tracks("stump-tracks", "classic_bipedal"),
    "stump-tracks/small-bipedal": lambda: _stump_tracks("stump-tracks/small-bipedal", "small_bipedal"),
    "stump-tracks/spider": lambda: _stump_tracks("stump-tracks/spider", "spider"),
    "stump-tracks/old-classic-bipedal": lambda: _stump_tracks(
        "stump-tracks/old-classic-bipedal", "old_classic_bipedal"
    ),
    "hexagon-tracks": _hexagon_tracks,
    "stump-walker": _stump_walker,
    "quadruped-terrain": lambda: _vec_task(
        "quadruped-terrain",
        "MuJoCo quadruped on rough ground: roughness, stairs, slope, friction, commanded speed",
        "upright at the end, having kept the commanded speed",
    ),
    "reach": lambda: _vec_task(
        "reach", "MuJoCo arm: its tip to a goal in space", "within 4 cm of the goal at the end"
    ),
    "push-cube": lambda: _vec_task(
        "push-cube",
        "MuJoCo arm pushes a cube: goal, size, mass, friction",
        "the cube within 5 cm of the goal at the end",
    ),
    "lift-object": lambda: _vec_task(
        "lift-object", "MuJoCo gripper lifts objects of many shapes", "lifted by 10 cm at the end"
    ),
    "ball-balance": lambda: _vec_task(
        "ball-balance", "MuJoCo plate brings a ball to rest on a spot", "at the spot, and slow, at the end"
    ),
}
"""Names of environments on the command line."""
