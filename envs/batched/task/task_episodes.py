"""How episodes of a batched task begin: whose tasks they have, how long they may take, who observes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from tutelage.envs.batched.task.episode_log import EpisodeLog
from tutelage.envs.batched.task.observed_episodes import ObservedEpisodes
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.task_checks import EnvIds, check_env_ids, check_start, without_autograd
from tutelage.envs.batched.task.task_views import Observations, TaskViews
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.proposals import Proposals, check_proposals
from tutelage.envs.contract.tasks import Tasks

if TYPE_CHECKING:
    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
    from tutelage.envs.contract.interface import TaskTeacher


class TaskEpisodes(TaskViews):
    """The part of `VecTask` that begins episodes.

    Attributes:
        propose: hands out as many tasks, or `Proposals`, as it is asked for; None: tasks are drawn uniformly.
        observe: is handed the episodes that ended in a step, once, before their successors are proposed;
            None: nobody observes, and nothing is added up.
        horizon_buf: steps after which each running episode is cut off, int64 ``(num_envs,)``.
        num_proposed: how many tasks were proposed so far; the id of the next proposal.
    """

    propose: Callable[[int], Tasks | Proposals] | None
    observe: Callable[[Episodes], None] | None
    horizon_buf: Tensor
    num_proposed: int
    progress_buf: Tensor
    reset_buf: Tensor
    visuals: VisualRandomization | None
    log: EpisodeLog
    observed: ObservedEpisodes
    _low: Tensor
    _range: Tensor
    _over: Tensor  # episodes that ended where none has begun since
    _steps: int

    def teach(self, task_teacher: TaskTeacher | None) -> None:
        """Let a task teacher propose the tasks from the next reset on, and observe those episodes.

        Args:
            task_teacher: None: tasks are drawn uniformly again, and nobody observes.
        """
        self.propose = None if task_teacher is None else task_teacher.propose
        self.observe = None if task_teacher is None else task_teacher.observe

    @without_autograd
    def reset(self) -> Observations:
        """Begin a new episode everywhere; return the first observations."""
        self._draw_tasks(self._everyone)
        self._begin_now(self._everyone)
        return self.obs_dict

    @without_autograd
    def reset_idx(self, env_ids: EnvIds) -> None:
        """Begin new episodes, of newly drawn tasks, in these environments (indices, or a mask).

        Raises:
            ValueError: when `env_ids` are wrong, with nothing changed.
        """
        ids = check_env_ids(env_ids, self.num_envs)
        if len(ids):
            rows = Rows.at(np.sort(ids), self.num_envs, self.device)
            self._draw_tasks(rows)
            self._begin_now(rows)

    def reset_done(self) -> tuple[Observations, Tensor]:
        """Begin new episodes where `reset_buf` is 1 and that has not happened yet.

        With `auto_reset` it has: use this with ``auto_reset = False``.

        Returns:
            Observations, and indices of the environments where `reset_buf` was 1.
        """
        ended = self.reset_buf.bool()
        self.reset_idx(ended & self._over)
        return self.obs_dict, ended.nonzero().flatten()

    @without_autograd
    def start(
        self,
        env_ids: EnvIds,
        tasks: Tasks,
        seeds: Sequence[int] | None = None,
        horizon: ArrayLike | None = None,
    ) -> Observations:
        """Begin episodes of chosen tasks.

        Args:
            env_ids: indices, shape ``(n,)``, or a mask.
            tasks: shape ``(n, task_space.dim)``, in the order of `env_ids`.
            seeds: in that order; with them, an episode depends on its task, seed and actions alone.
            horizon: steps after which each episode is cut off, as by the time limit, if that does not come
                first; whole numbers, ``(n,)``, at least 1. None: the time limit alone.

        Raises:
            TaskError: when a task is not in the task space.
            ValueError: when `env_ids` or `horizon` are wrong, or there are not as many tasks, seeds and
                horizons as environments. Nothing has been changed then.
        """
        checked = self.task_space.check(tasks)
        ids, proposals, seeds = check_start(env_ids, checked, seeds, horizon, self.num_envs)
        if len(ids):
            rows = Rows.at(ids, self.num_envs, self.device)
            if seeds is not None:
                self.streams.seed(rows, seeds)
            self._set_proposals(rows, proposals, ids=-1)
            self._begin_now(rows)
        return self.obs_dict

    @without_autograd
    def seed(self, seeds: Sequence[int]) -> None:
        """Give every environment a stream of random numbers of its own seed, from the next reset on."""
        self.streams.seed(self._everyone, seeds)

    def redraw_looks(self) -> None:
        """Draw the looks of all environments anew in mid-episode; the next step's pictures show them."""
        if self.visuals is not None:
            self.visuals.apply(self.sim, self.streams, self._everyone)

    def _draw_tasks(self, rows: Rows) -> None:
        if self.propose is None:
            unit = self.streams.uniform64(rows, self.task_space.dim)
            rows.put(self.tasks, self._low + self._range * unit)
            self._set_origin(rows, ids=-1)
            return
        if rows.masked:  # a task teacher must know how many tasks are needed: wait for the GPU
            indices = rows.mask.nonzero().flatten()
            if not len(indices):
                return
            rows = Rows.of_indices(indices, self.num_envs)
        proposer = getattr(self.propose, "__self__", self)
        with torch.enable_grad():  # task teachers may train networks
            proposed = self.propose(rows.n)
        proposals = check_proposals(proposed, self.task_space, rows.n, type(proposer).__name__)
        if proposals.trains is not None and not proposals.trains.all():
            raise ValueError(
                f"{type(proposer).__name__} proposed episodes with trains=False, but whoever steps a VecTask "
                "learns from all of them; use TaughtVecEnv(SB3VecTask(task), task_teacher)"
            )
        first, self.num_proposed = self.num_proposed, self.num_proposed + rows.n
        ids = torch.arange(first, self.num_proposed, device=self.device)
        self._set_proposals(rows, proposals, ids)

    def _set_proposals(self, rows: Rows, proposals: Proposals, ids: Tensor | int) -> None:
        rows.put(self.tasks, torch.as_tensor(proposals.tasks, device=self.device))
        self._set_origin(rows, ids)
        if proposals.horizon is not None:
            rows.put(self.horizon_buf, torch.as_tensor(proposals.horizon, device=self.device))

    def _set_origin(self, rows: Rows, ids: Tensor | int) -> None:
        """Let the next episodes have the whole time limit, and note of what proposals they come."""
        rows.put(self.horizon_buf, self.max_episode_length)
        if self.observe is None:
            self.observed.interrupt()
        else:
            self.observed.begin(rows, ids, self._steps * self.num_envs)

    def _begin_now(self, rows: Rows) -> None:
        """Begin episodes, of the tasks that are set, outside of a step."""
        self._begin(rows)
        self._set_ends(self.reset_buf.masked_fill(rows.mask, 0))
        self._update_views(rows)

    def _begin(self, rows: Rows) -> None:
        self.sim.reset(rows)
        rows.put(self._over, False)
        rows.put(self._broken, False)
        rows.put(self.progress_buf, 0)
        rows.put(self.actions, 0.0)
        self.log.clear(rows)
        if self.visuals is not None:
            self.visuals.apply(self.sim, self.streams, rows)
        self.start_episodes(rows)
        self.sim.forward(rows)
        self.post_physics_step()

    def _set_ends(self, ends: Tensor) -> None:
        """Replace `reset_buf`, which users were given, rather than change it."""
        self.buffers["reset_buf"] = self.reset_buf = ends
