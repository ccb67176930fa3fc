"""Evaluation of a student on fixed test tasks, one episode each, with the deterministic policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes, check_successes, episode_success
from tutelage.envs.contract.tasks import Tasks
from tutelage.envs.contract.vector import BatchedTaskVecEnv, GymTaskVecEnv, put

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


def evaluate(model: BaseAlgorithm, venv: BatchedTaskVecEnv, tasks: Tasks, seed: int = 0) -> Episodes:
    """Attempt each task once with the deterministic policy; nothing of the training is touched.

    Episode *i* is seeded with ``seed + i`` whichever environment runs it, so that all students and all
    evaluations meet the same random numbers. Observations are normalised with the student's present
    statistics, which stay as they are.

    Args:
        model: the student.
        venv: environments of their own, not the training's; as many as are to be stepped at once. Their
            `auto_reset` is off afterwards.
        tasks: the test set, shape ``(n, *task_space.shape)``.
        seed: of the first episode.

    Returns:
        `n` episodes, in the order of `tasks`.

    Raises:
        ValueError: when some episodes define success and others do not, or a return is not finite.
    """
    tasks = venv.task_space.check(tasks, source="test tasks")
    normalizer = model.get_vec_normalize_env()
    width, n = min(venv.num_envs, len(tasks)), len(tasks)
    venv.auto_reset = False
    # Every environment starts something; those beyond the number of tasks are never counted.
    running = np.where(np.arange(venv.num_envs) < width, np.arange(venv.num_envs), -1)
    first = np.arange(venv.num_envs) % n
    observations = venv.start(np.arange(venv.num_envs), tasks[first], [seed + int(i) for i in first])
    following = width
    returns, lengths, successes = np.zeros(n), np.zeros(n, dtype=np.int64), np.full(n, np.nan)
    states: Any = None
    begins = np.ones(venv.num_envs, dtype=bool)
    while (running >= 0).any():
        inputs = normalizer.normalize_obs(observations) if normalizer is not None else observations
        actions, states = model.predict(inputs, states, begins, deterministic=True)
        observations, rewards, dones, infos = venv.step(actions)
        counted = running >= 0
        returns[running[counted]] += rewards[counted]
        lengths[running[counted]] += 1
        begins = dones.copy()
        finished = np.flatnonzero(dones)
        for index in finished:
            if running[index] >= 0:
                successes[running[index]] = episode_success(infos[index])
        refill: NDArray[np.int64] = np.arange(following, min(n, following + len(finished)))
        following += len(refill)
        running[finished] = -1
        running[finished[: len(refill)]] = refill
        again = finished
        if isinstance(venv, GymTaskVecEnv):  # idle environments cost nothing; batched ones step anyway
            again = finished[: len(refill)]
            for index in finished[len(refill) :]:
                venv.park(int(index))
        if len(again):
            chosen = np.where(running[again] >= 0, running[again], 0)
            put(observations, again, venv.start(again, tasks[chosen], [seed + int(i) for i in chosen]))
    check_successes(successes)
    return Episodes(tasks, returns, lengths, successes)
