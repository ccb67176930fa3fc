"""Starting chosen tasks in any Stable-Baselines3 `VecEnv`, also at its automatic resets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from tutelage.envs.contract.bookkeeping import NumberedProposals
from tutelage.envs.contract.tasks import TaskSpace
from tutelage.envs.contract.vector import BatchedTaskVecEnv, GymTaskVecEnv, Observations, put


class TaskQueue(gym.Wrapper[Any, Any, Any, Any]):
    """Holds one task ahead inside a worker process, for `SubprocVecEnv` and `AsyncVectorEnv`.

    An automatic reset happens in the worker, without a message from the main process, so the next task
    must lie there already: in `SubprocVecEnv` it was proposed one episode earlier than a task in the same
    process would be. The worker also cuts the episode off at its horizon.

    Example:
        ``SubprocVecEnv([lambda: TaskQueue(gymnasium.make("tutelage/StumpTracks-v0"))] * 4)``
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._queued: dict[str, Any] | None = None
        self._horizon: int | None = None
        self._steps = 0

    def queue_task(self, task: Any, horizon: int | None = None) -> None:
        """Let the next reset without a task of its own start `task`, cut off after `horizon` steps."""
        self.queued_reset = {"options": {"task": task}, "horizon": horizon}

    @property
    def queued_reset(self) -> dict[str, Any] | None:
        """What the next reset without a task of its own will use: ``options``, ``horizon``, ``seed``.

        Setting it to None leaves it as it is, so that a whole batch can be set where few have changed.
        """
        return self._queued

    @queued_reset.setter
    def queued_reset(self, queued: dict[str, Any] | None) -> None:
        self._queued = queued or self._queued

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset to the task in `options`, or else to the queued one."""
        self._steps, self._horizon = 0, None
        if self._queued is not None and not (options and "task" in options):
            options = {**(options or {}), **self._queued["options"]}
            self._horizon = self._queued["horizon"]
            seed = self._queued.get("seed") if seed is None else seed
            self._queued = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; truncate an episode that reaches its horizon without ending by itself."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if self._horizon is not None and self._steps >= self._horizon and not terminated:
            truncated = True
        return observation, reward, terminated, truncated, info


class EpisodeStarter:
    """Starts chosen tasks in any SB3 `VecEnv`.

    - `BatchedTaskVecEnv`s are reset once, here, with the task proposed after the episode ended. A
      `DummyVecEnv` is stepped as a `GymTaskVecEnv`, which is one.
    - Worker processes with `TaskQueue` hold one task ahead (`lag` is 1).
    - Other vector environments are reset a second time after their automatic reset: right, but slower.

    Attributes:
        venv: the vector environment that is stepped.
        lag: how many episodes ahead of its start a task is proposed, 0 or 1.

    Raises:
        TypeError: when `venv` is wrapped already: wrappers such as `VecNormalize` belong around the taught
            environment, or they would see observations of automatic resets that are thrown away.
    """

    def __init__(self, venv: VecEnv, task_space: TaskSpace) -> None:
        if isinstance(venv, VecEnvWrapper):
            raise TypeError(
                f"{type(venv).__name__} is inside the taught environment; wrap the other way round, e.g. "
                f"{type(venv).__name__}(TaughtVecEnv({type(venv.unwrapped).__name__}([...]), task_teacher))"
            )
        if type(venv) is DummyVecEnv:  # a subclass may step in its own way
            venv = GymTaskVecEnv([lambda env=env: env for env in venv.envs], task_space)  # type: ignore[misc]
        if isinstance(venv, BatchedTaskVecEnv):
            venv.auto_reset = False
        self.venv = venv
        self.lag = int(not isinstance(venv, BatchedTaskVecEnv) and venv.has_attr("queue_task"))

    def start_all(
        self,
        proposals: NumberedProposals,
        ahead: NumberedProposals | None,
        seeds: Sequence[int] | None,
    ) -> Observations:
        """Start a task in every environment; `ahead` holds as many more when `lag` is 1."""
        everyone = np.arange(self.venv.num_envs)
        if isinstance(self.venv, BatchedTaskVecEnv):
            return self.venv.start(everyone, proposals.tasks, seeds)
        if self.lag:
            self._queue(everyone, proposals)
        else:
            self.venv.set_options([{"task": task} for task in proposals.tasks])
        if seeds is not None:
            self.venv._seeds = list(seeds)
        observations = self.venv.reset()
        if ahead is not None:
            self._queue(everyone, ahead)
        return observations

    def restart(
        self, observations: Observations, finished: NDArray[np.int64], proposals: NumberedProposals
    ) -> None:
        """Give finished environments their next task; write their first observations in place."""
        if self.lag:
            self._queue(finished, proposals)
            return
        if isinstance(self.venv, BatchedTaskVecEnv):
            put(observations, finished, self.venv.start(finished, proposals.tasks))
            return
        self.venv.reset_infos = list(self.venv.reset_infos)
        for index, task in zip(finished.tolist(), proposals.tasks, strict=True):
            [(first, self.venv.reset_infos[index])] = self.venv.env_method(
                "reset", indices=[index], options={"task": task}
            )
            put(observations, index, first)

    def _queue(self, indices: NDArray[np.int64], proposals: NumberedProposals) -> None:
        for row, (index, task) in enumerate(zip(indices.tolist(), proposals.tasks, strict=True)):
            horizon = () if proposals.horizons is None else (int(proposals.horizons[row]),)
            self.venv.env_method("queue_task", task, *horizon, indices=[index])
