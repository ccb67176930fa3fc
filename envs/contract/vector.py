"""Vector environments that start chosen tasks: the layer below `TaughtVecEnv` and the evaluation.

Stable-Baselines3's automatic reset calls ``reset()`` without options, so a task passed through ``options``
lasts one episode. Whatever hands out tasks therefore needs to start the finished environments itself.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import insort
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from tutelage.envs.contract.tasks import Tasks, TaskSpace

Observations = Any
"""What SB3's vector environments return: an array, or a dict or tuple of arrays, environments first."""


class BatchedTaskVecEnv(VecEnv):
    """The contract of our natively batched task environments: one object steps all of them at once.

    Attributes:
        task_space: the tasks it accepts.
        auto_reset: True at first, and then it behaves as every `VecEnv`: a finished environment starts
            another task, drawn uniformly, within the same step. False: a finished environment stays as it
            is, its row of the observations is the terminal one, and `start` must be called for it before
            the next step. In both cases its info has ``"terminal_observation"``, ``"TimeLimit.truncated"``,
            ``"task"`` (the task that ended) and, where the environment defines it, ``"success"``.
        defines_success: whether ``"success"`` is known to be there at the end of every episode.
    """

    task_space: TaskSpace
    auto_reset: bool = True
    defines_success: bool = False

    @abstractmethod
    def start(
        self, indices: NDArray[np.int64], tasks: Tasks, seeds: Sequence[int] | None = None
    ) -> Observations:
        """Start `tasks[i]` in environment `indices[i]`; return the first observations of just those.

        With `seeds`, each environment's random numbers start anew from its own seed, so that an episode
        depends on (task, seed, actions) alone and not on its neighbours.
        """


class GymTaskVecEnv(DummyVecEnv, BatchedTaskVecEnv):
    """Gymnasium environments stepped one after the other in this process, each started with chosen tasks.

    `DummyVecEnv` with `auto_reset` as a choice, and, while that is off, without its deep copies, which
    cost more than the step of a small environment.

    Args:
        env_fns: functions that make the environments; these accept ``reset(options={"task": ...})``.
        task_space: default: the environments' own.
    """

    def __init__(
        self, env_fns: list[Callable[[], gym.Env[Any, Any]]], task_space: TaskSpace | None = None
    ) -> None:
        super().__init__(env_fns)
        self.task_space = task_space or self.envs[0].get_wrapper_attr("task_space")
        self._active = list(range(self.num_envs))

    def step_wait(self) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step every environment that is not parked."""
        if self.auto_reset:
            return super().step_wait()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in self._active:
            observation, reward, terminated, truncated, info = self.envs[i].step(self.actions[i])
            self.buf_rews[i] = reward
            infos[i] = info = dict(info)
            self.buf_dones[i] = terminated or truncated
            info["TimeLimit.truncated"] = truncated and not terminated
            if terminated or truncated:
                info["terminal_observation"] = deepcopy(observation)
            self._save_obs(i, observation)
        return self._obs_from_buf(), self.buf_rews.copy(), self.buf_dones.copy(), infos

    def start(
        self, indices: NDArray[np.int64], tasks: Tasks, seeds: Sequence[int] | None = None
    ) -> Observations:
        """Reset each of these environments to its task; return their first observations."""
        for row, index in enumerate(indices.tolist()):
            seed = None if seeds is None else seeds[row]
            first, self.reset_infos[index] = self.envs[index].reset(seed=seed, options={"task": tasks[row]})
            self._save_obs(index, first)
            if index not in self._active:
                insort(self._active, index)
        return take(self._obs_from_buf(), indices)

    def park(self, index: int) -> None:
        """Skip a finished environment from now on: for evaluations that have run out of tasks."""
        self._active.remove(index)
        self.buf_rews[index], self.buf_dones[index] = 0.0, False

    def _obs_from_buf(self) -> Observations:
        if self.keys[0] is None:  # one array, by far the most frequent case
            return self.buf_obs[None].copy()
        return super()._obs_from_buf()


def take(observations: Observations, rows: NDArray[np.int64] | int) -> Observations:
    """Rows of a batch of observations, whatever their kind: copies, or the view of a single one."""
    if isinstance(observations, dict):
        return {key: part[rows] for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(part[rows] for part in observations)
    return observations[rows]


def put(observations: Observations, rows: NDArray[np.int64] | int, new: Observations) -> None:
    """Overwrite rows of a batch of observations in place, whatever their kind."""
    if isinstance(observations, dict):
        for key, part in observations.items():
            part[rows] = new[key]
    elif isinstance(observations, tuple):
        for part, inner in zip(observations, new, strict=True):
            part[rows] = inner
    else:
        observations[rows] = new
