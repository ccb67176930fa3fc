"""The point mass that must pass a gate: the self-paced papers' benchmark, and ours that ends in minutes.

`PointMassGate` is the batch of one behind Gymnasium's interface, `PointMassGateVecEnv` the batch of many
behind Stable-Baselines3's; the dynamics of both are in `tutelage.envs.point_mass.gate_physics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

from tutelage.envs.contract.noise import next_keys, stream_keys, uniforms
from tutelage.envs.contract.recipe import TaskKnowledge, WorldRecipe
from tutelage.envs.contract.state import StateDict, StateError
from tutelage.envs.contract.tasks import BoxTasks, TaskError, Tasks
from tutelage.envs.contract.vector import BatchedTaskVecEnv
from tutelage.envs.point_mass.gate_physics import (
    DRAWS,
    EPISODE_STEPS,
    SPEED_LIMIT,
    SPEED_UNIT,
    Floats,
    GatePhysics,
)

_LAST_AXIS = ("position", "velocity", "keys", "steps", "ended")  # arrays of the state but for the tasks
_BOUNDS = {"position": (-4.0, 4.0), "width": (0.5, 8.0), "friction": (0.0, 4.0)}


@dataclass(frozen=True)
class GaussianTasks:
    """A normal distribution over tasks, clipped to the task space.

    Attributes:
        mean, std: of position, width and friction; without friction the last one is left out.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def sample(self, space: BoxTasks, rng: np.random.Generator, n: int) -> Floats:
        """Draw `n` tasks of `space`, shape ``(n, d)``."""
        mean, std = np.array(self.mean)[: space.dim], np.array(self.std)[: space.dim]
        return np.clip(mean + std * rng.standard_normal((n, space.dim)), space.low, space.high)


EASY = GaussianTasks(mean=(0.0, 4.25, 2.0), std=(2.0, 1.875, 1.0))
"""Where self-paced task teachers begin (Klink et al. 2020)."""
TARGET = GaussianTasks(mean=(2.5, 0.5, 0.0), std=(0.004, 0.00375, 0.002))
"""What the student is to master in the end: a narrow gate off the straight way (Klink et al. 2020)."""


def task_box(friction: bool = False) -> BoxTasks:
    """Position [-4, 4] x width [0.5, 8], and with `friction` x [0, 4]."""
    return BoxTasks({name: _BOUNDS[name] for name in list(_BOUNDS)[: 3 if friction else 2]})


def uniform_test_tasks(friction: bool = False) -> Floats:
    """Fixed test tasks over the whole box: a 10 x 10 grid of cell centres; with friction, 3 levels of it."""
    return task_box(friction).grid((10, 10, 3) if friction else 10)


def target_test_tasks(friction: bool = False, n: int = 50) -> Floats:
    """Fixed test tasks of the target distribution; the first ones do not depend on `n`."""
    return TARGET.sample(task_box(friction), np.random.default_rng(2020), n)


def _spaces(space: BoxTasks) -> tuple[Box, Box]:
    """Observation and action space."""
    high = np.array([1.0, SPEED_LIMIT / SPEED_UNIT] * 2 + [1.0] * space.dim, dtype=np.float32)
    return Box(-high, high, dtype=np.float32), Box(-1.0, 1.0, (2,), dtype=np.float32)


def _knowledge(env: PointMassGate) -> TaskKnowledge:
    """Distributions of Klink et al. 2020 (self-paced RL), easy start and target."""
    d = env.task_space.dim
    return TaskKnowledge(
        easy_task=EASY.mean[:d],
        easy_std=EASY.std[:d],
        target_mean=TARGET.mean[:d],
        target_std=TARGET.std[:d],
        mastered_return=60.0,  # beyond the goal, pinned to the border, an episode brings 48; good ones 80
        return_range=(0.0, 90.0),
    )


class PointMassGate(gymnasium.Env[NDArray[Any], NDArray[Any]]):
    """A point mass above a wall must reach the goal below it, through a gate of given position and width.

    The benchmark of the self-paced papers (Klink et al. 2020, "Self-paced deep reinforcement learning";
    2022, "Curriculum reinforcement learning via constrained optimal transport"). On the target task, a
    narrow gate off the straight way, a student without curriculum learns to wait above the wall.

    Task: ``position`` of the gate's centre in [-4, 4], its ``width`` in [0.5, 8], and with
    ``friction=True`` the ``friction`` in [0, 4] (else 0). The wall lies along y = 0.

    Action, shape ``(2,)`` in [-1, 1]: forces along x and y in units of 10. Each step is ten Euler steps of
    0.01 s of ``v' = 1.5 force - friction v + N(0, 0.05)``, ``x' = v``, positions clipped to [-4, 4].

    Observation, shape ``(6,)`` or ``(7,)``, float32: x / 4, vx / 10, y / 4, vy / 10, then the task scaled to
    [-1, 1]; no further normalisation is needed.

    Reward: ``exp(-0.6 distance to the goal)`` each step; returns lie between 0 and about 90.

    End: start at (0, 3) at rest, goal (0, -3). Crossing y = 0 outside the gate, in either direction, is a
    crash: it terminates. After 100 steps the episode is truncated; reaching the goal does not end it, as
    reward is to be had there. ``info["success"]``, at the end: within 0.25 of the goal at the last step, as
    in the authors' code. ``info["task"]`` is the running task, always.

    Args:
        friction: make friction the third task parameter.
        render_mode: None or ``"rgb_array"`` (400 x 400 pixels).

    Raises:
        TaskError: in `reset`, when ``options["task"]`` is not in the task space.

    Example:
        >>> env = PointMassGate()
        >>> observation, info = env.reset(seed=0, options={"task": [2.5, 0.5]})
        >>> observation
        array([ 0.   ,  0.   ,  0.75 ,  0.   ,  0.625, -1.   ], dtype=float32)
        >>> info["task"]
        array([2.5, 0.5])
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  # Gymnasium's way
    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="point mass through a gate: position x width, target off-centre",
        mastered="within 0.25 of the goal at the end",
        gymnasium_id="tutelage/PointMassGate-v0",
        knowledge=_knowledge,
        test_sets={
            "target": lambda env: target_test_tasks(env.task_space.dim == 3),
            "uniform": lambda env: uniform_test_tasks(env.task_space.dim == 3),
        },
        picture_test_set="uniform",
        # Tuned on uniform tasks. A wider first distribution of actions (log_std_init -0.6 or 0) finds the
        # gate of the target by luck; without normalised rewards nothing is learnt.
        students={
            "ppo": {
                "n_envs": 64,
                "kwargs": {
                    "n_steps": 64,
                    "batch_size": 1024,
                    "n_epochs": 8,
                    "learning_rate": 1e-3,
                    "gamma": 0.99,
                    "gae_lambda": 0.98,
                    "policy_kwargs": {"net_arch": [64, 64], "activation_fn": "Tanh", "log_std_init": -1.0},
                },
                "normalize_rewards": True,
            }
        },
        quick_steps=450_000,
        quick_task_teachers={
            **{name: {} for name in ("target", "random", "riac", "covar-gmm")},
            # ALP-GMM as tuned for PPO on the point mass by the self-paced papers (Klink et al.).
            "alp-gmm": {"fit_rate": 100, "random_ratio": 0.3, "max_history": 500},
        },
        quick_seeds=8,  # target training is lucky in about one run of ten
    )

    def __init__(self, friction: bool = False, render_mode: str | None = None) -> None:
        self.task_space = task_box(friction)
        self.observation_space, self.action_space = _spaces(self.task_space)
        self.render_mode = render_mode
        self._physics = GatePhysics(self.task_space, 1, render_mode is not None)

    @classmethod
    def make_batch(cls, n: int, friction: bool = False) -> PointMassGateVecEnv:
        """Make `n` of these environments that are stepped together."""
        return PointMassGateVecEnv(n, friction=friction)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start ``options["task"]``, or without one a task drawn uniformly.

        With `seed`, the episode depends on (task, seed, actions) alone, as in `PointMassGateVecEnv.start`.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        tasks = self.task_space.sample(self.np_random, 1)
        if task is not None:
            tasks = self.task_space.check(np.asarray(task, dtype=np.float64)[None], "options['task']")
        drawn = int(self.np_random.integers(1 << 63))
        self._physics.start(np.array([0]), tasks, stream_keys([drawn if seed is None else seed]))
        return self._physics.observations()[0], {"task": tasks[0].copy()}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply one action for 0.1 s."""
        if self._physics.ended[0]:
            raise gymnasium.error.ResetNeeded(
                "the episode has ended or never begun; call reset() before step()"
            )
        rewards, crashed, at_goal = self._physics.step(np.asarray(action)[None])
        info: dict[str, Any] = {"task": self._physics.tasks[0].copy()}
        ended, terminated = bool(self._physics.ended[0]), bool(crashed[0])
        if ended:
            info["success"] = bool(at_goal[0])
        return self._physics.observations()[0], float(rewards[0]), terminated, ended and not terminated, info

    def render(self) -> NDArray[np.uint8] | None:
        """Picture of wall, gate, goal, mass and its way so far, shape ``(400, 400, 3)``."""
        return self._physics.render(0) if self.render_mode == "rgb_array" else None


class PointMassGateVecEnv(BatchedTaskVecEnv):
    """Many `PointMassGate` environments stepped at once; one episode is the same in both, bit for bit.

    An environment's random numbers (noise, and tasks where nobody else chooses them) come from its own
    stream: they depend on its seed and on how many episodes it has had, not on its neighbours.

    Args:
        num_envs: how many environments.
        friction: as in `PointMassGate`.
        seed: environment *i* begins with ``seed + i``; None draws fresh entropy.
        render_mode: None or ``"rgb_array"``.

    Example:
        >>> env = PointMassGateVecEnv(64, seed=0)
        >>> env.reset().shape
        (64, 6)
        >>> observations, rewards, dones, infos = env.step(np.zeros((64, 2)))
        >>> rewards.shape, dones.any()
        ((64,), np.False_)
    """

    defines_success = True

    def __init__(
        self, num_envs: int, friction: bool = False, seed: int | None = None, render_mode: str | None = None
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; need at least 1")
        self.task_space: BoxTasks = task_box(friction)
        self.render_mode = render_mode
        self._physics = GatePhysics(self.task_space, num_envs, render_mode is not None)
        self._actions: ArrayLike = np.zeros((num_envs, 2))
        super().__init__(num_envs, *_spaces(self.task_space))
        self.metadata = PointMassGate.metadata
        first = int(np.random.default_rng().integers(1 << 62)) if seed is None else seed
        self._physics.keys = stream_keys(range(first, first + num_envs))

    def start(
        self, indices: NDArray[np.int64], tasks: Tasks, seeds: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """Start `tasks[i]` in environment `indices[i]`; return first observations, ``(len(indices), 4 + d)``.

        With `seeds`, an episode depends on (task, seed, actions) alone.

        Raises:
            TaskError: when a task is not in the task space, or numbers of tasks and indices differ.
        """
        indices, tasks = np.asarray(indices, dtype=np.int64), self.task_space.check(tasks)
        if len(tasks) != len(indices) or (seeds is not None and len(seeds) != len(indices)):
            raise TaskError(
                f"{len(tasks)} tasks for {len(indices)} environments; give one task (and seed) for each"
            )
        keys = next_keys(self._physics.keys[indices]) if seeds is None else stream_keys(seeds)
        self._physics.start(indices, tasks, keys)
        for i, task in zip(indices, tasks, strict=True):
            self.reset_infos[i] = {"task": task.copy()}
        return self._physics.observations(indices)

    def _start_uniform(self, indices: NDArray[np.int64]) -> None:
        """Start tasks drawn uniformly, each from its environment's own next stream."""
        keys = next_keys(self._physics.keys[indices])
        tasks = self.task_space.from_unit(uniforms(keys, DRAWS * EPISODE_STEPS, self.task_space.dim).T)
        self._physics.start(indices, tasks, keys)
        for i, task in zip(indices, tasks, strict=True):
            self.reset_infos[i] = {"task": task.copy()}

    def reset(self) -> NDArray[np.float32]:
        """Start an episode everywhere: the tasks of `set_options`, seeds of `seed`; else uniform tasks."""
        seeded = np.array([i for i, seed in enumerate(self._seeds) if seed is not None], dtype=np.int64)
        self._physics.keys[seeded] = stream_keys(seed for seed in self._seeds if seed is not None)
        self._start_uniform(np.arange(self.num_envs))
        chosen = [i for i, options in enumerate(self._options) if options.get("task") is not None]
        if chosen:
            self.start(
                np.array(chosen), np.array([self._options[i]["task"] for i in chosen], dtype=np.float64)
            )
        self._reset_seeds()
        self._reset_options()
        return self._physics.observations()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Take the actions, shape ``(num_envs, 2)``."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every environment; infos of unfinished ones are empty.

        Raises:
            RuntimeError: when an environment that has ended was not started again.
        """
        physics = self._physics
        if physics.ended.any():
            raise RuntimeError(
                f"environments {np.flatnonzero(physics.ended).tolist()} wait for a task; "
                "call reset(), or start() for those that ended when auto_reset is False"
            )
        rewards, crashed, at_goal = physics.step(self._actions)
        observations = physics.observations()
        dones = physics.ended.copy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        finished = np.flatnonzero(dones)
        for i in finished:
            infos[i] = {
                "task": physics.tasks[i].copy(),
                "success": bool(at_goal[i]),
                "TimeLimit.truncated": not crashed[i],
                "terminal_observation": observations[i].copy(),
            }
        if self.auto_reset and finished.size:
            self._start_uniform(finished)
            observations[finished] = physics.observations(finished)
        return observations, rewards.astype(np.float32), dones, infos

    def state_dict(self) -> StateDict:
        """All running episodes, by value; nothing else decides what comes next but actions and tasks."""
        return self.save_rows(np.arange(self.num_envs))

    def load_state_dict(self, state: StateDict) -> None:
        """Continue the episodes of a `state_dict`; pictures show their way from here on.

        Raises:
            StateError: when the state is of another task space or number of environments.
        """
        self.restore_rows(np.arange(self.num_envs), state)

    def save_rows(self, ids: NDArray[np.int64]) -> StateDict:
        """The running episodes of these environments, by value: physics, task, noise stream, step counter.

        Args:
            ids: indices of environments, ``(n,)``.
        """
        state: StateDict = {name: getattr(self._physics, name)[..., ids] for name in _LAST_AXIS}
        return state | {"tasks": self._physics.tasks[ids], "task_space": self.task_space.to_json()}

    def restore_rows(self, ids: NDArray[np.int64], state: StateDict) -> NDArray[np.float32]:
        """Continue saved episodes in these environments, bit for bit, whatever the others do.

        Pictures show their way from here on.

        Args:
            ids: indices of environments, ``(n,)``; they need not be those that were saved.
            state: of `save_rows`, for as many environments.

        Returns:
            The last observations of the saved episodes, ``(n, 4 + d)``.

        Raises:
            StateError: when the state is of another task space or number of environments.
        """
        mine = self.save_rows(ids)
        if state.keys() != mine.keys() or state["task_space"] != mine.pop("task_space"):
            raise StateError("this is no state of point-mass environments with the same task parameters")
        if len(state["steps"]) != len(ids):
            raise StateError(f"the state has {len(state['steps'])} environments, this one {len(ids)}")
        for name, array in mine.items():
            rows = (..., ids) if name in _LAST_AXIS else ids
            getattr(self._physics, name)[rows] = np.asarray(state[name], dtype=array.dtype)
        for i in ids:
            self.reset_infos[i] = {"task": self._physics.tasks[i].copy()}
        if self._physics.trail is not None:
            self._physics.trail[..., ids] = self._physics.position[:, ids]
        return self._physics.observations(ids)

    def close(self) -> None:
        """Nothing to release."""

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """One picture for each environment."""
        return [self._physics.render(i) for i in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return the attribute that all environments share, once for each."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute that all environments share."""
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refuse: there are no single environments in here."""
        raise NotImplementedError(
            f"no single environments to call {method_name!r} on; use methods of the batch"
        )

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """No environment in here is wrapped."""
        return [False for _ in self._get_indices(indices)]
