"""The one loop that plays chosen episodes of a batched task: for evaluations, clips and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tutelage.envs.contract.episodes import Episodes

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import Observations, VecTask
    from tutelage.envs.contract.tasks import Tasks

Actor = Callable[["Observations", Tensor], Tensor]
"""Observations, and whether they begin an episode, bool ``(n,)``, to actions ``(n, a)`` in [-1, 1]."""

Watch = Callable[["Observations", Tensor, Tensor], Any]
"""Called before every step: observations, actions, and which environments play their episode still."""


def play(
    task: VecTask,
    actor: Actor,
    tasks: Tasks,
    seeds: Sequence[int],
    watch: Watch | None = None,
) -> Episodes:
    """Play one episode in each of the first environments; the others step along and count for nothing.

    Args:
        task: at least as many environments as episodes.
        actor: who acts.
        tasks: what is played, ``(n, d)``.
        seeds: of the episodes, ``n``.
        watch: sees every step; none is made any more once all episodes have ended.

    Returns:
        `n` episodes, in the order of `tasks`; returns are sums in float64.
    """
    count, device = len(tasks), task.device
    obs_dict = task.start(torch.arange(count, device=device), tasks, seeds)
    running = torch.arange(task.num_envs, device=device) < count
    successes, started = torch.zeros_like(running), torch.ones_like(running)
    returns = torch.zeros(task.num_envs, dtype=torch.float64, device=device)
    lengths = torch.zeros(task.num_envs, dtype=torch.int64, device=device)
    # An episode that began before it is no longer than this, and those of interest began together.
    for _ in range(task.max_episode_length):
        actions = actor(obs_dict, started)
        if watch is not None:
            if not bool(running.any()):
                break
            watch(obs_dict, actions, running)
        obs_dict, rewards, dones, extras = task.step(actions)
        started = dones.bool()
        returns += torch.where(running, rewards.double(), 0.0)
        lengths += running
        successes |= running & started & extras["success"]
        running &= ~started
    results = (values[:count].cpu().numpy() for values in (returns, lengths, successes))
    return Episodes.of(np.asarray(tasks), *results)
