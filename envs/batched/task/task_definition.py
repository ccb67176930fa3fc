"""What a batched task says of itself: the part of `VecTask` that the author of a task writes.

The whole of a task is one file with a subclass of `VecTask`. It says how its
model is built, how an episode starts, what actions do, what is seen, what is rewarded and when it ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypedDict

import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.contract.recipe import WorldRecipe
from tutelage.envs.contract.tasks import BoxTasks

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.cameras.camera_config import CameraConfig
    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
    from tutelage.envs.batched.simulators.simulator import Backend, Simulator
    from tutelage.envs.batched.task.episode_log import EpisodeLog
    from tutelage.envs.batched.task.streams import RandomStreams


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


class TaskDefinition(ABC):
    """The hooks of a task, in the order in which they are called.

    All of it is torch over ``(num_envs, ...)`` tensors and runs unchanged on the CPU and on a GPU, so it
    never asks a tensor for its value (``.item()``, ``nonzero()``, ``if tensor``), and picks out environments
    by `Rows`.

    Attributes:
        task_space: the box of task parameters.
        num_actions: size of the action of one environment.
        decimation: time steps of the physics for each step of the environment.
        max_episode_length: steps until an episode is truncated.
        model_fields: fields of ``MjModel`` that `start_episodes` sets for each environment.
        default_obs_view, default_states_view: views that are ``obs`` and ``states`` unless others are chosen.
        default_camera: the camera of the model that clips are made with.
        default_max_contacts, default_max_constraints: room for them on Warp.
        recipe: what commands need to know of the task, see `WorldRecipe`; no need to have one elsewhere.
        num_envs, device, sim, model, streams, tasks, actions: there from `setup` on; see `VecTask`.
        views, view_noise, log, num_diverged: there once the first episodes have begun.
    """

    task_space: BoxTasks
    num_actions: int
    decimation: int = 4
    max_episode_length: int = 200
    model_fields: tuple[str, ...] = ()
    default_obs_view: ClassVar[str] = "policy"
    default_states_view: ClassVar[str] = "privileged"
    default_camera: ClassVar[str] = "front"
    default_max_contacts: ClassVar[int] = 24
    default_max_constraints: ClassVar[int] = 96
    recipe: ClassVar[WorldRecipe]

    num_envs: int
    device: torch.device
    sim: Simulator
    model: mujoco.MjModel
    streams: RandomStreams
    tasks: Tensor
    actions: Tensor
    buffers: dict[str, Tensor]
    views: dict[str, Tensor]
    view_noise: Mapping[str, float]
    log: EpisodeLog
    num_diverged: Tensor
    num_proposed: int
    success: Tensor
    rew_buf: Tensor
    reset_buf: Tensor
    progress_buf: Tensor
    _steps: int

    @abstractmethod
    def build_spec(self) -> mujoco.MjSpec:
        """Build the model; called once, before anything else exists."""

    def setup(self) -> None:
        """Look up ids and make buffers (`new_buffer`); called once, when the simulator exists."""

    @abstractmethod
    def start_episodes(self, rows: Rows) -> None:
        """Write the first state of new episodes, of the tasks ``rows.take(self.tasks)``.

        The simulator has been reset in these rows; `forward` follows. Random numbers come from
        ``self.streams``, so that an episode depends on its task and seed alone.
        """

    @abstractmethod
    def pre_physics_step(self, actions: Tensor) -> None:
        """Turn actions, ``(num_envs, num_actions)`` in [-1, 1], into controls, and write them."""

    def post_physics_step(self) -> None:
        """Compute what rewards, views and ends share; called whenever the simulator has changed.

        That can be twice in a step, so it computes from the present state and counts nothing.
        """

    @abstractmethod
    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """Which episodes fail or are complete now, and which have success so far; bool ``(num_envs,)`` each.

        The first ends episodes; the second counts at the end, whatever the reason for it.
        """

    @abstractmethod
    def compute_rewards(self) -> dict[str, Tensor]:
        """Terms of the reward, weighted, ``(num_envs,)`` each; their sum is the reward."""

    @abstractmethod
    def compute_views(self) -> dict[str, Tensor]:
        """Named views, float32 ``(num_envs, size)`` each; at least `obs_view` and `states_view`.

        They may be live views of the simulator: `VecTask` hands out copies.
        """

    def new_buffer(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Make a ``(num_envs, *shape)`` tensor of zeros that is part of the saved state."""
        self.buffers[name] = torch.zeros(self.num_envs, *shape, dtype=dtype, device=self.device)
        return self.buffers[name]

    def parameter(self, name: str) -> Tensor:
        """A task parameter of all environments, float32, shape ``(num_envs,)``.

        Raises:
            ValueError: when the task space has no such parameter.
        """
        return self.tasks[:, self.task_space.names.index(name)].to(torch.float32)
