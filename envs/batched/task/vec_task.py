"""`VecTask`: the base of batched tasks, with IsaacGymEnvs' contract, task parameters and named views.

What a task says of itself is `TaskDefinition`; stepping, resets, time
limits, logging, cameras, task parameters and seeds are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig, Cameras
from tutelage.envs.batched.cameras.factory import make_cameras
from tutelage.envs.batched.simulators.factory import make_simulator
from tutelage.envs.batched.simulators.simulator import Backend
from tutelage.envs.batched.task.episode_log import EpisodeLog
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.streams import RandomStreams
from tutelage.envs.batched.task.task_checks import (
    EnvIds,
    check_actions,
    check_env_ids,
    check_start,
    check_view_noise,
    copy_without,
    proposed_tasks,
    unknown,
    view_space,
    without_autograd,
)
from tutelage.envs.batched.task.task_definition import TaskDefinition
from tutelage.envs.batched.task.task_definition import TaskOptions as TaskOptions
from tutelage.envs.batched.task.task_state import load_task, save_task
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import Tasks

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization

Observations = dict[str, Tensor]
"""``obs``, ``states``, and every named view and image by its own name."""

CHECK_EVERY = 1000  # steps between checks that wait for a GPU
VELOCITY_LIMIT = 1e4  # rad/s or m/s beyond which a simulation counts as diverged, though MuJoCo goes on


class VecTask(TaskDefinition):
    """A batch of environments of one task, as tensors, with the contract of IsaacGymEnvs' ``VecTask``.

    ::

        task = Reach(num_envs=256)                       # device="cuda" on a GPU
        obs_dict = task.reset()                          # {"obs": (256, num_obs), "states": ..., views}
        obs_dict, rew, reset, extras = task.step(actions)    # actions (256, num_actions) in [-1, 1]

    As there, ``reset`` (int64) is 1 where an episode ended, ``extras["time_outs"]`` (bool) where that was
    the time limit alone, and buffers are ``obs_buf``, ``states_buf``, ``rew_buf``, ``reset_buf``,
    ``progress_buf``, ``timeout_buf``. Unlike there, a finished environment begins its next episode within the
    same step: its row of the observations is the first of the new episode (Isaac Gym resets one step later),
    and its last ones are in ``extras["terminal_obs"]``. `reset_buf` begins as zeros, not ones, as the first
    episodes have begun. What `reset`, `start` and `step` return is never changed afterwards: it can be kept.

    Beyond that contract:

    - *Views*. ``obs_dict`` holds every named view: ``policy``, what a robot could know; ``privileged``, all
      of it; others that the task names; images as ``"<camera>/<modality>"``. ``obs`` is the view `obs_view`,
      ``states`` (for asymmetric critics) the view `states_view`, both clipped to +-`clip_obs`.
    - *Task parameters*. `task_space` is a box; ``tasks`` (float64, ``(num_envs, d)``) are the running ones,
      drawn uniformly unless `propose` is set, or `start` begins chosen ones. When `propose` raises, or
      proposes what is not in the space, in a `step`, that step was made, but the episodes that ended in it
      wait for `reset` or `reset_done`.
    - *Ends*. `terminated`, `truncated`, `success`, `diverged` (bool, ``(num_envs,)``) tell how the step ended
      each episode. A simulation that diverged ends its episode, without success, counts in `num_diverged`,
      and gives reward 0, observations 0 and black pictures until its next episode begins.
    - *Extras*, in every step: ``time_outs``, ``success``, ``diverged``, ``terminal_obs``, ``ended_tasks``
      (the tasks before those of the next episodes), all of `num_envs`.
    - *Reward terms* are logged apart: ``extras["log"]`` has, for the episodes that ended, the mean of each
      term's sum, their mean length, success rate, and number, ``episode/count``. On the CPU it is there only
      when some ended; on a GPU, where nothing waits to know that, always: the means stay the last ones, and
      are NaN until the first end.
    - *Images* of terminal observations cost a second rendering in every step of a GPU; set
      `terminal_images` to have them in ``extras["terminal_obs"]`` there too, as on the CPU.

    Args:
        num_envs: environments.
        device: ``cpu`` or ``cuda``.
        backend: simulator; default ``batch`` (CPU threads) on ``cpu``, ``warp`` on ``cuda``.
        seed: decides tasks and starts; environment *i* has a stream of its own.
        obs_view, states_view: views that are ``obs`` and ``states``; the defaults are the task's.
        cameras: images to render in every step.
        visuals: randomisation of looks at every reset.
        view_noise: view -> standard deviation of Gaussian noise added to it.
        threads: of the CPU simulator; 0: all.
        max_contacts, max_constraints: room for them on Warp; default: the task's.

    Raises:
        SimulatorError: when there is no such GPU, or a package is missing.
        ValueError: when a view or camera does not exist; in `step`, for a wrong shape, dtype or device of
            actions, or actions that are not finite (on a GPU that is found within `CHECK_EVERY` steps).
    """

    num_agents = 1
    clip_actions = 1.0
    clip_obs = float("inf")

    @without_autograd
    def __init__(
        self,
        num_envs: int,
        *,
        device: str | torch.device = "cpu",
        backend: Backend | None = None,
        seed: int = 0,
        obs_view: str | None = None,
        states_view: str | None = None,
        cameras: Sequence[CameraConfig] = (),
        visuals: VisualRandomization | None = None,
        view_noise: Mapping[str, float] | None = None,
        threads: int = 0,
        max_contacts: int | None = None,
        max_constraints: int | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.auto_reset = True
        self.terminal_images = False
        self.propose: Callable[[int], Tasks] | None = None
        spec = self.build_spec()
        visual_fields = visuals.prepare(spec) if visuals is not None else ()
        self.sim = make_simulator(
            spec.compile(),
            num_envs,
            device=device,
            backend=backend,
            model_fields=(*self.model_fields, *visual_fields),
            threads=threads,
            max_contacts=self.default_max_contacts if max_contacts is None else max_contacts,
            max_constraints=self.default_max_constraints if max_constraints is None else max_constraints,
        )
        self.model: mujoco.MjModel = self.sim.model
        self.device = self.rl_device = self.sim.device
        self.streams = RandomStreams(num_envs, seed, self.device)
        self._low = torch.as_tensor(self.task_space.low, device=self.device)
        self._range = torch.as_tensor(self.task_space.high - self.task_space.low, device=self.device)
        self.buffers: dict[str, Tensor] = {}

        self.tasks = self.new_buffer("tasks", self.task_space.dim, dtype=torch.float64)
        self.actions = self.new_buffer("actions", self.num_actions)
        self.progress_buf = self.new_buffer("progress_buf", dtype=torch.int64)
        self.randomize_buf = self.new_buffer("randomize_buf", dtype=torch.int64)
        self.reset_buf = self.new_buffer("reset_buf", dtype=torch.int64)
        # Of the running episodes, where a step may leave ended ones, or `reset_buf` tells of the one before:
        self._over = self.new_buffer("episode_over", dtype=torch.bool)
        self._broken = self.new_buffer("episode_diverged", dtype=torch.bool)
        self.rew_buf = torch.zeros(num_envs, device=self.device)
        self.timeout_buf = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.terminated, self.truncated, self.success, self.diverged, self._bad_actions = (
            self.timeout_buf.clone() for _ in range(5)
        )
        self.num_diverged = torch.zeros((), dtype=torch.int64, device=self.device)
        self.extras: dict[str, Any] = {}
        self.log = EpisodeLog(num_envs, self.device)
        self._steps = 0
        self._everyone = Rows.all(num_envs, self.device)

        self.visuals = visuals
        self.cameras: Cameras | None = make_cameras(self.sim, cameras) if cameras else None
        self.view_noise = check_view_noise(view_noise or {})
        self.setup()
        self._draw_tasks(self._everyone)
        self._begin(self._everyone)
        self.views = self.compute_views()
        self.obs_view = self._known_view(obs_view or self.default_obs_view)
        self.states_view = self._known_view(states_view or self.default_states_view)
        for view in self.view_noise:
            self._known_view(view)
        self.num_obs = self.views[self.obs_view].shape[1]
        self.num_states = self.views[self.states_view].shape[1]
        self.num_acts, self.num_environments, self.num_observations = self.num_actions, num_envs, self.num_obs
        self.control_freq_inv = self.decimation
        self.action_space = gymnasium.spaces.Box(
            -self.clip_actions, self.clip_actions, (self.num_actions,), np.float32
        )
        self._observe(self._everyone)
        self.observation_space, self.state_space = view_space(self.obs_buf), view_space(self.states_buf)

    # --- what users call -------------------------------------------------------------------------------

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
            rows = self._rows_at(np.sort(ids))
            self._draw_tasks(rows)
            self._begin_now(rows)

    @without_autograd
    def seed(self, seeds: Sequence[int]) -> None:
        """Give every environment a stream of random numbers of its own seed, from the next reset on."""
        self.streams.seed(self._everyone, seeds)

    def redraw_looks(self) -> None:
        """Draw the looks of all environments anew in mid-episode; the next step's pictures show them."""
        if self.visuals is not None:
            self.visuals.apply(self.sim, self.streams, self._everyone)

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
    def start(self, env_ids: EnvIds, tasks: Tasks, seeds: Sequence[int] | None = None) -> Observations:
        """Begin episodes of chosen tasks.

        Args:
            env_ids: indices, shape ``(n,)``, or a mask.
            tasks: shape ``(n, task_space.dim)``, in the order of `env_ids`.
            seeds: in that order; with them, an episode depends on its task, seed and actions alone.

        Raises:
            TaskError: when a task is not in the task space.
            ValueError: when `env_ids` are wrong, or there are not as many tasks, and seeds, as environments.
                Nothing has been changed then.
        """
        ids, tasks, seeds = check_start(env_ids, self.task_space.check(tasks), seeds, self.num_envs)
        if len(ids):
            rows = self._rows_at(ids)
            if seeds is not None:
                self.streams.seed(rows, seeds)
            rows.put(self.tasks, torch.as_tensor(tasks, device=self.device))
            self._begin_now(rows)
        return self.obs_dict

    @without_autograd
    def step(self, actions: Tensor) -> tuple[Observations, Tensor, Tensor, dict[str, Any]]:
        """Apply actions for `decimation` time steps of the physics.

        Args:
            actions: float32, ``(num_envs, num_actions)``, on `device`; clipped to [-1, 1].

        Returns:
            Observations, rewards (float32), ends (int64), and extras (see `VecTask`).
        """
        finite = check_actions(actions, self.actions)
        if self.device.type == "cuda":
            self._bad_actions |= ~finite
        self.actions.copy_(actions).clamp_(-self.clip_actions, self.clip_actions)
        self.pre_physics_step(self.actions)
        self.sim.step(self.decimation)
        self.progress_buf += 1
        self.randomize_buf += 1
        self.post_physics_step()
        self._find_diverged()

        ended, succeeding = self.compute_outcomes()
        self.terminated = ended | self.diverged
        self.truncated = (self.progress_buf >= self.max_episode_length) & ~self.terminated
        self.timeout_buf = self.truncated
        done = self.terminated | self.truncated
        self.success = succeeding & done & ~self.diverged
        self._set_ends(done.to(torch.int64))
        self._over |= done
        self.rew_buf = self.log.add(self.compute_rewards(), ~self.diverged)
        rows = self._rows_of(done)
        # Under a mask pictures would be taken twice in every step, whether an episode ends or not.
        by_index = rows is None or not rows.masked
        self._observe(None, pictures=self.terminal_images or by_index or not self.auto_reset)
        self.extras = {
            "time_outs": self.timeout_buf,
            "success": self.success,
            "diverged": self.diverged,
            "terminal_obs": dict(self.obs_dict),
            "ended_tasks": self.tasks.clone(),
        }
        if rows is not None:
            self.extras["log"] = {
                **self.log.means(done, self.progress_buf, self.success),
                "episode/diverged": self.num_diverged.clone(),
            }
            if self.auto_reset:
                self._draw_tasks(rows)
                self._begin(rows)
                self._observe(rows)
        self._steps += 1
        if self._steps % CHECK_EVERY == 0:
            self.check()
        return self.obs_dict, self.rew_buf, self.reset_buf, self.extras

    def check(self) -> None:
        """Look for what is checked only now and then on a GPU, as it waits for it."""
        self.sim.check()
        if bad := self._bad_actions.nonzero().flatten().tolist():
            self._bad_actions.zero_()
            raise ValueError(
                f"actions of {len(bad)} environments, first {bad[0]}, were NaN or infinite within the last "
                f"{CHECK_EVERY} steps; look for a policy that diverged, e.g. lower its learning rate"
            )

    def zero_actions(self) -> Tensor:
        """Actions that do nothing, ``(num_envs, num_actions)``."""
        return torch.zeros(self.num_envs, self.num_actions, device=self.device)

    def view_space(self, name: str) -> gymnasium.spaces.Box:
        """The space of one environment's part of a view or image, by its name in ``obs_dict``.

        Raises:
            ValueError: when there is no such view; suggests the nearest name.
        """
        if name not in self.obs_dict:
            raise unknown(f"{type(self).__name__} has no view", name, self.obs_dict)
        return view_space(self.obs_dict[name])

    def get_state(self) -> Tensor:
        """The states of the last step, as IsaacGymEnvs names them: `states_buf`."""
        return self.states_buf

    def close(self) -> None:
        """Free the simulator."""
        self.sim.close()

    # --- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> StateDict:
        """Running episodes, by value: physics, model fields, buffers, random streams."""
        return save_task(self)

    @without_autograd
    def load_state_dict(self, state: StateDict) -> None:
        """Continue the episodes of a `state_dict`.

        Raises:
            StateError: when it is of another task, model or number of environments, with nothing changed.
        """
        self._set_ends(self.reset_buf.clone())
        load_task(self, state)
        self.diverged = self._broken.clone()
        self.post_physics_step()
        views = self.compute_views()
        for name, view in state["noisy_views"].items():  # noise that has been drawn is not drawn again
            views[name] = torch.from_numpy(view).to(self.device)
        self._publish(views, None)

    # --- inner works -----------------------------------------------------------------------------------

    def _rows_of(self, done: Tensor) -> Rows | None:
        """The finished environments; on a GPU by mask, without waiting for it to tell if there are any."""
        if self.device.type == "cuda":
            return Rows.of_mask(done)
        indices = done.nonzero().flatten()
        return Rows.of_indices(indices, self.num_envs) if len(indices) else None

    def _rows_at(self, ids: NDArray[np.int64]) -> Rows:
        return Rows.of_indices(torch.from_numpy(ids).to(self.device), self.num_envs)

    def _set_ends(self, ends: Tensor) -> None:
        """Replace `reset_buf`, which users were given, rather than change it."""
        self.buffers["reset_buf"] = self.reset_buf = ends

    def _draw_tasks(self, rows: Rows) -> None:
        if self.propose is not None:
            if rows.masked:  # a task teacher must know how many tasks are needed: wait for the GPU
                indices = rows.mask.nonzero().flatten()
                if not len(indices):
                    return
                rows = Rows.of_indices(indices, self.num_envs)
            tasks = proposed_tasks(self.propose, rows.n, self.task_space)
            rows.put(self.tasks, torch.as_tensor(tasks, device=self.device))
        else:
            unit = self.streams.uniform64(rows, self.task_space.dim)
            rows.put(self.tasks, self._low + self._range * unit)

    def _begin_now(self, rows: Rows) -> None:
        """Begin episodes, of the tasks that are set, outside of a step."""
        self._begin(rows)
        self._set_ends(self.reset_buf.masked_fill(rows.mask, 0))
        self._observe(rows)

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

    def _find_diverged(self) -> None:
        fast = self.sim.read("qvel").abs().amax(1) > VELOCITY_LIMIT
        found = self.sim.take_diverged() | fast
        self.num_diverged += (found & ~self._over).sum()
        self._broken |= found
        self.diverged = self._broken.clone()

    def _observe(self, rows: Rows | None, pictures: bool = True) -> None:
        """Compute all views; `rows` are those that just began an episode, None when a step was made."""
        views = self.compute_views()
        for name, view in views.items():
            if deviation := self.view_noise.get(name, 0.0):
                # Noise is drawn for what is new alone: a stream must not depend on when neighbours end.
                which = rows or self._everyone
                noisy = rows.take(view) if rows else view
                noisy = noisy + deviation * self.streams.normal(which, view.shape[1])
                views[name] = self.views[name].clone() if rows else view.clone()
                which.put(views[name], noisy)
        self._publish(views, rows, pictures)

    def _publish(self, views: Observations, rows: Rows | None, pictures: bool = True) -> None:
        """Take the pictures of at least `rows`, and hand out copies of all, with zeros for what diverged."""
        if self.cameras is not None and pictures:
            views = {**views, **self.cameras.render(rows)}
        self.views = {name: copy_without(view, self._broken) for name, view in views.items()}
        self.obs_buf, self.states_buf = self.views[self.obs_view], self.views[self.states_view]
        if self.clip_obs < np.inf:
            self.obs_buf, self.states_buf = (
                view.clamp(-self.clip_obs, self.clip_obs) for view in (self.obs_buf, self.states_buf)
            )
        self.obs_dict: Observations = {"obs": self.obs_buf, "states": self.states_buf, **self.views}

    def _known_view(self, name: str) -> str:
        if name not in self.views:
            raise unknown(f"{type(self).__name__} has no view", name, self.views)
        return name
