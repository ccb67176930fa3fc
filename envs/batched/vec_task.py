"""`VecTask`: the base of batched tasks, with IsaacGymEnvs' contract, task parameters and named views.

What a task says of itself is `tutelage.envs.batched.task_definition.TaskDefinition`; stepping, resets, time
limits, logging, cameras, task parameters and seeds are here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import gymnasium
import numpy as np
import torch
from torch import Tensor

from tutelage.envs.batched.cameras import VISUAL_FIELDS, CameraConfig, Cameras, make_cameras
from tutelage.envs.batched.episode_log import EpisodeLog
from tutelage.envs.batched.rows import Rows
from tutelage.envs.batched.simulator import Backend, make_simulator
from tutelage.envs.batched.streams import RandomStreams
from tutelage.envs.batched.task_definition import TaskDefinition, check_actions
from tutelage.envs.batched.task_state import load_task, save_task
from tutelage.envs.state import StateDict
from tutelage.envs.tasks import Tasks

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.visual_randomization import VisualRandomization

Observations = dict[str, Tensor]
"""``obs``, ``states``, and every named view and image by its own name."""

CHECK_EVERY = 1000  # steps between checks that wait for a GPU
VELOCITY_LIMIT = 1e4  # rad/s or m/s beyond which a simulation counts as diverged, though MuJoCo goes on


class TaskOptions(TypedDict, total=False):
    """What every task's constructor takes beside its own arguments; see `VecTask`."""

    device: str | torch.device
    backend: Backend | None
    seed: int
    obs_view: str
    states_view: str
    cameras: Sequence[CameraConfig]
    visuals: VisualRandomization | None
    view_noise: Mapping[str, float]
    threads: int
    max_contacts: int
    max_constraints: int


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
    and its last ones are in ``extras["terminal_obs"]``.

    Beyond that contract:

    - *Views*. ``obs_dict`` holds every named view: ``policy``, what a robot could know; ``privileged``, all
      of it; others that the task names; images as ``"<camera>/<modality>"``. ``obs`` is the view `obs_view`,
      ``states`` (for asymmetric critics) the view `states_view`.
    - *Task parameters*. `task_space` is a box; ``tasks`` (float64, ``(num_envs, d)``) are the running ones,
      drawn uniformly unless `propose` is set, or `start` begins chosen ones.
    - *Ends*. `terminated`, `truncated`, `success`, `diverged` (bool, ``(num_envs,)``) tell how the step ended
      each episode. A simulation that diverged ends its episode, without success, counts in `num_diverged`,
      and gives reward 0 and observations 0 in its last step.
    - *Reward terms* are logged apart: ``extras["log"]`` has, for the episodes that ended, the mean of each
      term's sum, their mean length and success rate (tensors: nothing waits for a GPU).
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
        visual_fields = VISUAL_FIELDS if visuals is not None else ()
        self.sim = make_simulator(
            self.build_spec().compile(),
            num_envs,
            device=device,
            backend=backend,
            model_fields=(*self.model_fields, *visual_fields),
            threads=threads,
            max_contacts=max_contacts or self.default_max_contacts,
            max_constraints=max_constraints or self.default_max_constraints,
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
        self.reset_buf = self.new_buffer("reset_buf", dtype=torch.int64)
        self.rew_buf = torch.zeros(num_envs, device=self.device)
        self.timeout_buf = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.terminated = self.timeout_buf.clone()
        self.truncated = self.timeout_buf.clone()
        self.success = self.timeout_buf.clone()
        self.diverged = self.timeout_buf.clone()
        self.num_diverged = torch.zeros((), dtype=torch.int64, device=self.device)
        self.extras: dict[str, Any] = {}
        self.log = EpisodeLog(num_envs, self.device)
        self._bad_actions = torch.zeros((), dtype=torch.bool, device=self.device)
        self._steps = 0
        self._everyone = Rows.all(num_envs, self.device)

        self.visuals = visuals
        self.cameras: Cameras | None = make_cameras(self.sim, cameras) if cameras else None
        self.view_noise = dict(view_noise or {})
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
        self.num_acts = self.num_actions
        self.observation_space = _box(self.num_obs, np.inf)
        self.state_space = _box(self.num_states, np.inf)
        self.action_space = _box(self.num_actions, self.clip_actions)
        self._observe(self._everyone)

    # --- what users call -------------------------------------------------------------------------------

    def reset(self) -> Observations:
        """Begin a new episode everywhere; return the first observations."""
        self.reset_idx(self._everyone.indices)
        return self.obs_dict

    def reset_idx(self, env_ids: Tensor) -> None:
        """Begin new episodes, of newly drawn tasks, in these environments (int64 indices)."""
        rows = Rows.of_indices(torch.sort(env_ids.to(self.device)).values, self.num_envs)
        self._draw_tasks(rows)
        self._begin(rows)
        rows.put(self.reset_buf, 0)
        self._observe(rows)

    def seed(self, seeds: Sequence[int]) -> None:
        """Give every environment a stream of random numbers of its own seed, from the next reset on."""
        self.streams.seed(self._everyone, seeds)

    def reset_done(self) -> tuple[Observations, Tensor]:
        """Begin new episodes where `reset_buf` is 1; return observations and those environments' indices."""
        done_env_ids = self.reset_buf.nonzero().flatten()
        if len(done_env_ids):
            self.reset_idx(done_env_ids)
        return self.obs_dict, done_env_ids

    def start(self, env_ids: Tensor, tasks: Tasks, seeds: Sequence[int] | None = None) -> Observations:
        """Begin episodes of chosen tasks.

        Args:
            env_ids: int64, ascending, shape ``(n,)``.
            tasks: shape ``(n, task_space.dim)``.
            seeds: with them, an episode depends on its task, seed and actions alone.

        Raises:
            TaskError: when a task is not in the task space.
            ValueError: when there are not as many tasks, and seeds, as environments.
        """
        tasks = self.task_space.check(tasks)
        if not len(env_ids) == len(tasks) == len(env_ids if seeds is None else seeds):
            raise ValueError(
                f"{len(env_ids)} environments were given {len(tasks)} tasks"
                + ("" if seeds is None else f" and {len(seeds)} seeds")
            )
        rows = Rows.of_indices(env_ids.to(self.device), self.num_envs)
        if seeds is not None:
            self.streams.seed(rows, seeds)
        rows.put(self.tasks, torch.as_tensor(tasks, device=self.device))
        self._begin(rows)
        rows.put(self.reset_buf, 0)
        self._observe(rows)
        return self.obs_dict

    def step(self, actions: Tensor) -> tuple[Observations, Tensor, Tensor, dict[str, Any]]:
        """Apply actions for `decimation` time steps of the physics.

        Args:
            actions: float32, ``(num_envs, num_actions)``, on `device`; clipped to [-1, 1].

        Returns:
            Observations, rewards (float32), ends (int64), and extras: all of `num_envs`.
        """
        finite = check_actions(actions, self.actions)
        if self.device.type == "cuda":
            self._bad_actions |= ~finite
        self.actions.copy_(actions).clamp_(-self.clip_actions, self.clip_actions)
        self.pre_physics_step(self.actions)
        self.sim.step(self.decimation)
        self.progress_buf += 1
        self.post_physics_step()
        self._find_diverged()

        ended, succeeding = self.compute_outcomes()
        self.terminated = ended | self.diverged
        self.truncated = (self.progress_buf >= self.max_episode_length) & ~self.terminated
        self.timeout_buf = self.truncated
        done = self.terminated | self.truncated
        self.success = succeeding & done & ~self.diverged
        self.reset_buf.copy_(done)
        self.rew_buf = self.log.add(self.compute_rewards(), ~self.diverged)
        self.extras = {"time_outs": self.timeout_buf, "success": self.success, "diverged": self.diverged}
        rows = self._rows_of(done)
        if rows is None:
            self._observe(None)
        else:
            self.extras["log"] = {
                **self.log.means(done, self.progress_buf, self.success),
                "episode/diverged": self.num_diverged.clone(),
            }
            # Under a mask pictures would be taken twice in every step, whether an episode ends or not.
            self._observe(None, pictures=self.terminal_images or not rows.masked or not self.auto_reset)
            self.extras["terminal_obs"] = self._clone_views()
            self.extras["ended_tasks"] = self.tasks.clone()
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
        if bool(self._bad_actions):
            raise ValueError(
                f"some action of the last {CHECK_EVERY} steps was NaN or infinite; look for a policy that "
                "diverged, e.g. lower its learning rate"
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
            near = difflib.get_close_matches(name, self.obs_dict, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{type(self).__name__} has no view {name!r}{hint} (known: {', '.join(self.obs_dict)})"
            )
        view = self.obs_dict[name]
        shape = tuple(view.shape[1:])
        if view.dtype == torch.uint8:
            return gymnasium.spaces.Box(0, 255, shape, np.uint8)
        if view.dtype == torch.int32:  # segmentation, -1 where nothing is
            return gymnasium.spaces.Box(-1, np.iinfo(np.int32).max, shape, np.int32)
        return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)

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

    def load_state_dict(self, state: StateDict) -> None:
        """Continue the episodes of a `state_dict`.

        Raises:
            StateError: when it is of another task or number of environments.
        """
        load_task(self, state)
        self.diverged = torch.zeros_like(self.diverged)
        self.post_physics_step()
        self.views = self.compute_views()
        for name, view in state["noisy_views"].items():  # noise that has been drawn is not drawn again
            self.views[name] = torch.from_numpy(view).to(self.device)
        self._publish(None)

    # --- inner works -----------------------------------------------------------------------------------

    def _rows_of(self, done: Tensor) -> Rows | None:
        """The finished environments; on a GPU by mask, without waiting for it to tell if there are any."""
        if self.device.type == "cuda":
            return Rows.of_mask(done)
        indices = done.nonzero().flatten()
        return Rows.of_indices(indices, self.num_envs) if len(indices) else None

    def _draw_tasks(self, rows: Rows) -> None:
        if self.propose is not None:
            if rows.masked:  # a task teacher must know how many tasks are needed: wait for the GPU
                indices = rows.mask.nonzero().flatten()
                if not len(indices):
                    return
                rows = Rows.of_indices(indices, self.num_envs)
            tasks = self.task_space.check(self.propose(rows.n), "proposed tasks")
            if len(tasks) != rows.n:
                raise ValueError(f"{rows.n} tasks were asked for, and {len(tasks)} proposed")
            rows.put(self.tasks, torch.as_tensor(tasks, device=self.device))
        else:
            unit = self.streams.uniform64(rows, self.task_space.dim)
            rows.put(self.tasks, self._low + self._range * unit)

    def _begin(self, rows: Rows) -> None:
        self.sim.reset(rows)
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
        self.diverged = self.sim.take_diverged() | fast
        self.num_diverged += self.diverged.sum()

    def _observe(self, rows: Rows | None, pictures: bool = True) -> None:
        """Compute all views; `rows` are those that just began an episode, None when a step was made."""
        before, self.views = self.views, self.compute_views()
        for name, view in self.views.items():
            if deviation := self.view_noise.get(name, 0.0):
                # Noise is drawn for what is new alone: a stream must not depend on when neighbours end.
                which = rows or self._everyone
                noisy = rows.take(view) if rows else view
                noisy = noisy + deviation * self.streams.normal(which, view.shape[1])
                view = before[name].clone() if rows else view.clone()
                which.put(view, noisy)
            self.views[name] = torch.where(self.diverged[:, None], 0.0, view) if rows is None else view
        self._publish(rows, pictures)

    def _publish(self, rows: Rows | None, pictures: bool = True) -> None:
        """Take the pictures of at least `rows`, and hand out all views."""
        if self.cameras is not None and pictures:
            self.views.update(self.cameras.render(rows))
        self.obs_buf, self.states_buf = self.views[self.obs_view], self.views[self.states_view]
        self.obs_dict: Observations = {"obs": self.obs_buf, "states": self.states_buf, **self.views}

    def _clone_views(self) -> Observations:
        return {name: view.clone() for name, view in self.obs_dict.items()}

    def _known_view(self, name: str) -> str:
        if name not in self.views:
            raise ValueError(f"{type(self).__name__} has no view {name!r} (known: {', '.join(self.views)})")
        return name


def _box(size: int, bound: float) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-bound, bound, (size,), np.float32)
