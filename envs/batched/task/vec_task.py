"""`VecTask`: the base of batched tasks, with IsaacGymEnvs' contract, task parameters and named views.

It stands on three layers: what a task says of itself (`TaskDefinition`), what is seen of it (`TaskViews`),
and how its episodes begin (`TaskEpisodes`). Here are the constructor, the step and its ends, and saving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.simulators.factory import make_simulator
from tutelage.envs.batched.simulators.simulator import Backend
from tutelage.envs.batched.task.episode_log import EpisodeLog
from tutelage.envs.batched.task.observed_episodes import ObservedEpisodes
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.streams import RandomStreams
from tutelage.envs.batched.task.task_checks import (
    EnvIds,
    check_actions,
    check_env_ids,
    view_space,
    without_autograd,
)
from tutelage.envs.batched.task.task_definition import TaskOptions as TaskOptions
from tutelage.envs.batched.task.task_episodes import TaskEpisodes
from tutelage.envs.batched.task.task_state import load_rows, load_task, save_rows, save_task
from tutelage.envs.batched.task.task_views import Observations as Observations
from tutelage.envs.contract.state import StateDict

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization

CHECK_EVERY = 1000  # steps between checks that wait for a GPU
VELOCITY_LIMIT = 1e4  # rad/s or m/s beyond which a simulation counts as diverged, though MuJoCo goes on


class VecTask(TaskEpisodes):
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
      drawn uniformly unless `propose` is set, or `start` begins chosen ones.
    - *Task teachers*. ``task.teach(task_teacher)``, followed by `reset`, sets `propose` and `observe`. At the
      end of a step in which episodes ended, `observe` gets those that were observed from their first step, in
      one call, before `propose` is asked for their successors; on a GPU both wait for it. Adaptors that leave
      resets to the task (rsl_rl, skrl, Gymnasium) need nothing more. When one of the two raises in a `step`,
      or what is proposed is not in the space, that step was made, but the episodes that ended in it wait for
      `reset` or `reset_done`.
    - *Horizons*. An episode is cut off after ``min(horizon_buf, max_episode_length)`` steps, as by the time
      limit: `Proposals` and `start` can give each a horizon of its own.
    - *Snapshots*. `save_rows` and `restore_rows` save and continue running episodes of some environments,
      `state_dict` and `load_state_dict` those of all.
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
        self.propose = self.observe = None
        self.num_proposed = 0
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
        self.horizon_buf = self.new_buffer("horizon_buf", dtype=torch.int64)
        self.observed = ObservedEpisodes(self.new_buffer)
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
        self._prepare_views(cameras, view_noise or {})
        self.setup()
        self._draw_tasks(self._everyone)
        self._begin(self._everyone)
        self._choose_views(obs_view, states_view)
        self.num_obs = self.views[self.obs_view].shape[1]
        self.num_states = self.views[self.states_view].shape[1]
        self.num_acts, self.num_environments, self.num_observations = self.num_actions, num_envs, self.num_obs
        self.control_freq_inv = self.decimation
        self.action_space = gymnasium.spaces.Box(
            -self.clip_actions, self.clip_actions, (self.num_actions,), np.float32
        )
        self.observation_space, self.state_space = view_space(self.obs_buf), view_space(self.states_buf)

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
        limit = self.horizon_buf.clamp(max=self.max_episode_length)
        self.truncated = (self.progress_buf >= limit) & ~self.terminated
        self.timeout_buf = self.truncated
        done = self.terminated | self.truncated
        self.success = succeeding & done & ~self.diverged
        self._set_ends(done.to(torch.int64))
        self._over |= done
        self.rew_buf = self.log.add(self.compute_rewards(), ~self.diverged)
        self._steps += 1
        if self.observe is None:
            self.observed.interrupt()
        else:
            self.observed.add(self.rew_buf)
        rows = self._rows_of(done)
        # Under a mask pictures would be taken twice in every step, whether an episode ends or not.
        by_index = rows is None or not rows.masked
        self._update_views(None, pictures=self.terminal_images or by_index or not self.auto_reset)
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
            self._report(done)
            if self.auto_reset:
                self._draw_tasks(rows)
                self._begin(rows)
                self._update_views(rows)
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
        self._continue(*load_task(self, state))

    @without_autograd
    def save_rows(self, env_ids: EnvIds) -> StateDict:
        """The running episodes of some environments, by value, in the order of `env_ids`.

        Every array in it has those environments as its first axis, so rows can be picked out and joined.

        Args:
            env_ids: indices, shape ``(n,)``, or a mask.

        Raises:
            ValueError: when `env_ids` are wrong.
        """
        return save_rows(self, Rows.at(check_env_ids(env_ids, self.num_envs), self.num_envs, self.device))

    @without_autograd
    def restore_rows(self, env_ids: EnvIds, state: StateDict) -> Observations:
        """Continue saved episodes in these environments, whichever they were saved from.

        Each goes on as its original would have, whatever its neighbours do: bit for bit, but on a GPU, whose
        sums vary in their last bits.

        Args:
            env_ids: indices, shape ``(n,)``, or a mask.
            state: of `save_rows`, of as many environments, in the order of `env_ids`.

        Returns:
            Observations of all environments; those restored have the ones that were seen when they were
            saved.

        Raises:
            StateError: when the state is of another task, model or number of environments, with nothing
                changed.
            ValueError: when `env_ids` are wrong, with nothing changed.
        """
        self._continue(*load_rows(self, check_env_ids(env_ids, self.num_envs), state))
        return self.obs_dict

    # --- inner works -----------------------------------------------------------------------------------

    def _continue(self, rows: Rows, noisy_views: Mapping[str, Tensor]) -> None:
        """Compute what follows from restored episodes."""
        self.diverged = self._broken.clone()
        self.post_physics_step()
        self._restore_views(rows, noisy_views)

    def _rows_of(self, done: Tensor) -> Rows | None:
        """The finished environments; on a GPU by mask, without waiting for it to tell if there are any."""
        if self.device.type == "cuda":
            return Rows.of_mask(done)
        indices = done.nonzero().flatten()
        return Rows.of_indices(indices, self.num_envs) if len(indices) else None

    def _report(self, done: Tensor) -> None:
        """Hand finished episodes to who observes."""
        if self.observe is not None and (finished := self.observed.take_finished(self, done)):
            with torch.enable_grad():  # task teachers may train networks
                self.observe(finished)

    def _find_diverged(self) -> None:
        fast = self.sim.read("qvel").abs().amax(1) > VELOCITY_LIMIT
        found = self.sim.take_diverged() | fast
        self.num_diverged += (found & ~self._over).sum()
        self._broken |= found
        self.diverged = self._broken.clone()
