"""How good a student, or an expert, is: the same episodes for all of them, without any luck of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.students.torch_tools.threads import torch_threads
from tutelage.students.vision.vision_student import VisionStudent

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import Observations, VecTask
    from tutelage.envs.contract.tasks import Tasks
    from tutelage.teachers.experts.mlp_expert import Expert

Policy = Callable[["Observations", Tensor], Tensor]
"""Observations, and whether they begin an episode, bool ``(n,)``, to actions ``(n, a)`` in [-1, 1]."""


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy.

    Attributes:
        tasks: ``(episodes, d)``.
        successes: bool ``(episodes,)``.
        returns: sums of rewards, float64 ``(episodes,)``.
        lengths: steps, int64 ``(episodes,)``.
    """

    tasks: Tasks
    successes: NDArray[np.bool_]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def success(self) -> float:
        """Share of successes."""
        return float(self.successes.mean())


def deterministic(policy: VisionStudent | Expert) -> Policy:
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
) -> Evaluation:
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
            parts.append(_play(task, deterministic(policy), tasks[chosen], seeds[chosen]))
    successes, returns, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Evaluation(tasks, successes, returns, lengths)


def _play(
    task: VecTask, policy: Policy, tasks: Tasks, seeds: list[int]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Play one episode in each of the first environments; the others are along for the ride."""
    count, device = len(tasks), task.device
    obs_dict = task.start(torch.arange(count, device=device), tasks, seeds)
    running = torch.arange(task.num_envs, device=device) < count
    successes, started = torch.zeros_like(running), torch.ones_like(running)
    returns = torch.zeros(task.num_envs, dtype=torch.float64, device=device)
    lengths = torch.zeros(task.num_envs, dtype=torch.int64, device=device)
    # An episode that began before it is no longer than this, and those of interest began together.
    for _ in range(task.max_episode_length):
        obs_dict, rewards, dones, extras = task.step(policy(obs_dict, started))
        started = dones.bool()
        returns += torch.where(running, rewards.double(), 0.0)
        lengths += running
        successes |= running & started & extras["success"]
        running &= ~started
    return successes[:count].cpu().numpy(), returns[:count].cpu().numpy(), lengths[:count].cpu().numpy()
