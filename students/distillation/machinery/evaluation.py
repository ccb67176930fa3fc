"""How good a student, or an expert, is: the same episodes for all of them, without any luck of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from tutelage.envs.contract.episodes import Episodes
from tutelage.students.torch_tools.play import Actor, play
from tutelage.students.torch_tools.threads import torch_threads
from tutelage.students.vision.vision_student import VisionStudent

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import Observations, VecTask
    from tutelage.teachers.experts.mlp_expert import Expert


def deterministic(policy: VisionStudent | Expert) -> Actor:
    """A student's or an expert's best actions, as a function that keeps the student's memory to itself."""
    if not isinstance(policy, VisionStudent):
        return lambda obs_dict, started: policy.advise(obs_dict).mean.clamp(-1, 1)
    student, state = policy, None

    def act(obs_dict: Observations, started: Tensor) -> Tensor:
        nonlocal state
        state = student.start(len(started)) if state is None else state.reset(started)
        actions, state = student.act(obs_dict, state)
        return actions

    return act


def evaluate_student(
    task: VecTask | Callable[[], VecTask], policy: VisionStudent | Expert, episodes: int, seed: int
) -> Episodes:
    """Play fixed episodes, deterministically.

    Which ones is decided by the task space, `episodes`, `seed` and the looks that the task was made with, not
    by how many environments it has: an expert and its students meet the same starts in the same looks.

    Args:
        task: environments with held-out looks, say; or makes them, and they are closed in the end.
        policy: who acts.
        episodes: how many, at least 1.
        seed: of tasks, starts and looks.

    Raises:
        ValueError: for less than one episode.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, not {episodes}")
    if callable(task):
        made = task()
        try:
            return evaluate_student(made, policy, episodes, seed)
        finally:
            made.close()
    rng = np.random.default_rng([seed, 1])
    tasks = task.task_space.sample(rng, episodes)
    seeds = rng.integers(0, 2**31, episodes).tolist()
    parts = []
    with torch_threads(1):
        for first in range(0, episodes, task.num_envs):
            chosen = slice(first, first + task.num_envs)
            parts.append(play(task, deterministic(policy), tasks[chosen], seeds[chosen]))
    return Episodes.joined(parts)
