"""What is seen of a batched task: named views with their noise, and pictures, handed out as copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gymnasium
import numpy as np
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig, Cameras
from tutelage.envs.batched.cameras.factory import make_cameras
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.task_checks import check_view_noise, copy_without, view_space
from tutelage.envs.batched.task.task_definition import TaskDefinition
from tutelage.envs.contract.names import unknown_name

Observations = dict[str, Tensor]
"""``obs``, ``states``, and every named view and image by its own name."""


class TaskViews(TaskDefinition):
    """The part of `VecTask` that turns `compute_views` and cameras into observations.

    Attributes:
        views: every named view and image, as handed out last.
        obs_view, states_view: views that are ``obs`` and ``states``.
        obs_buf, states_buf: those, clipped to +-`clip_obs`.
        obs_dict: all of it, by name.
        view_noise: view -> standard deviation of the noise on it.
        cameras: take the pictures; None: there are none.
    """

    clip_obs = float("inf")

    views: Observations
    obs_view: str
    states_view: str
    obs_buf: Tensor
    states_buf: Tensor
    obs_dict: Observations
    view_noise: dict[str, float]
    cameras: Cameras | None
    _everyone: Rows
    _broken: Tensor  # environments whose simulation diverged and that have not begun anew

    def view_space(self, name: str) -> gymnasium.spaces.Box:
        """The space of one environment's part of a view or image, by its name in ``obs_dict``.

        Raises:
            ValueError: when there is no such view; suggests the nearest name.
        """
        if name not in self.obs_dict:
            raise ValueError(unknown_name(f"{type(self).__name__} view", name, self.obs_dict))
        return view_space(self.obs_dict[name])

    def get_state(self) -> Tensor:
        """The states of the last step, as IsaacGymEnvs names them: `states_buf`."""
        return self.states_buf

    def _prepare_views(self, cameras: Sequence[CameraConfig], view_noise: Mapping[str, float]) -> None:
        """Make the cameras and check the noise; the simulator is there, no episode has begun."""
        self.cameras = make_cameras(self.sim, cameras) if cameras else None
        self.view_noise = check_view_noise(view_noise)

    def _choose_views(self, obs_view: str | None, states_view: str | None) -> None:
        """Decide what ``obs`` and ``states`` are, and compute everything; the first episodes have begun."""
        self.views = self.compute_views()
        self.obs_view = self._known_view(obs_view or self.default_obs_view)
        self.states_view = self._known_view(states_view or self.default_states_view)
        for view in self.view_noise:
            self._known_view(view)
        self._update_views(self._everyone)

    def _update_views(self, rows: Rows | None, pictures: bool = True) -> None:
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

    def _restore_views(self, rows: Rows, noisy_views: Mapping[str, Tensor]) -> None:
        """Compute all views after `rows` were restored; noise that has been drawn is not drawn again.

        Args:
            rows: the restored environments.
            noisy_views: view -> what was handed out of them, ``(rows.n, size)``.
        """
        views = self.compute_views()
        for name, saved in noisy_views.items():
            views[name] = self.views[name].clone()
            rows.put(views[name], saved)
        self._publish(views, rows)

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
        self.obs_dict = {"obs": self.obs_buf, "states": self.states_buf, **self.views}

    def _known_view(self, name: str) -> str:
        if name not in self.views:
            raise ValueError(unknown_name(f"{type(self).__name__} view", name, self.views))
        return name
