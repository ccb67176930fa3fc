"""State canonicalisation: observations turned about the vertical axis into a frame in which tasks look alike.

UniDexGrasp (Xu et al. 2023, arXiv:2303.00938, section 4.2) turns everything that a grasping policy sees by
-theta about z, theta being the yaw of the grasp that it is to make, and what the policy does back by +theta,
so that it need not learn the same skill once for every direction. A `CanonicalFrame` says which numbers turn
and where theta comes from; `canonical` makes a batched task whose views and actions are in that frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.push_cube import PushCube
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.envs.batched.worlds.robot_arm import BASE_X


@dataclass(frozen=True)
class Turning:
    """Which numbers of a view, or of actions, turn with the world about z, and how; the others stay.

    All are indices of the first number of a group, which lie side by side.

    Attributes:
        points: x, y (and z, which stays) of a place: turns about `origin`.
        vectors: x, y (and z) of a direction, velocity or difference of places.
        quaternions: w, x, y, z of an orientation in the world.
        yaws: angles about z, in radians. They are not wrapped, so that nothing is lost.
        waves: (index, k): cosine and sine of k times such an angle.
        origin: of the points, in their unit: where the axis stands.

    Raises:
        ValueError: when groups share a number, or an index is negative.
    """

    points: tuple[int, ...] = ()
    vectors: tuple[int, ...] = ()
    quaternions: tuple[int, ...] = ()
    yaws: tuple[int, ...] = ()
    waves: tuple[tuple[int, int], ...] = ()
    origin: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        groups = [(first, 2) for first in (*self.points, *self.vectors, *(index for index, _ in self.waves))]
        groups += [(first, 4) for first in self.quaternions] + [(first, 1) for first in self.yaws]
        taken = [first + i for first, size in groups for i in range(size)]
        if len(set(taken)) < len(taken) or min(taken, default=0) < 0:
            raise ValueError(f"each number turns once, and indices count from 0: {self}")

    def turn(self, values: Tensor, theta: Tensor) -> Tensor:
        """Turn the world by theta: a new tensor.

        ``turn(turn(values, theta), -theta)`` is `values`, but for rounding.

        Args:
            values: ``(n, size)``.
            theta: radians, ``(n,)``.
        """
        turned = values.clone()
        c, s = theta.cos(), theta.sin()
        for first in self.vectors:
            turned[:, first : first + 2] = _turn(values[:, first : first + 2], c, s)
        for first in self.points:
            for column, centre in zip((first, first + 1), self.origin, strict=True):
                turned[:, column] -= centre
            turned[:, first : first + 2] = _turn(turned[:, first : first + 2], c, s)
            for column, centre in zip((first, first + 1), self.origin, strict=True):
                turned[:, column] += centre
        for first, k in self.waves:
            wave = values[:, first : first + 2]
            turned[:, first : first + 2] = _turn(wave, (k * theta).cos(), (k * theta).sin())
        for first in self.quaternions:
            # (cos theta/2, 0, 0, sin theta/2) * q turns the pairs (w, z) and (x, y) by theta/2
            w, x, y, z = (values[:, first + i] for i in range(4))
            half_c, half_s = (theta / 2).cos(), (theta / 2).sin()
            wz = _turn(torch.stack([w, z], 1), half_c, half_s)
            xy = _turn(torch.stack([x, y], 1), half_c, half_s)
            turned[:, first : first + 4] = torch.stack([wz[:, 0], xy[:, 0], xy[:, 1], wz[:, 1]], 1)
        for first in self.yaws:
            turned[:, first] = values[:, first] + theta
        return turned


@dataclass(frozen=True)
class CanonicalFrame:
    """A frame for the views and actions of a task.

    Attributes:
        theta: views, as the task has them, -> the yaw of the frame in the world, radians ``(n,)``.
        views: view -> what turns in it; views that are not named stay as they are.
        actions: what turns in actions. Joint increments do not: joints move with the world.
    """

    theta: Callable[[Mapping[str, Tensor]], Tensor]
    views: Mapping[str, Turning]
    actions: Turning = field(default_factory=Turning)

    def canonical_views(self, views: Mapping[str, Tensor], theta: Tensor) -> dict[str, Tensor]:
        """Views as seen in the frame: turned by -theta."""
        return {k: self.views[k].turn(view, -theta) if k in self.views else view for k, view in views.items()}

    def world_views(self, views: Mapping[str, Tensor], theta: Tensor) -> dict[str, Tensor]:
        """The inverse of `canonical_views`: turned by +theta."""
        return self.canonical_views(views, -theta)

    def world_actions(self, actions: Tensor, theta: Tensor) -> Tensor:
        """Actions chosen in the frame, as the task takes them: turned by +theta."""
        return self.actions.turn(actions, theta)

    def canonical_actions(self, actions: Tensor, theta: Tensor) -> Tensor:
        """The inverse of `world_actions`: what an expert of the world does, as seen in the frame."""
        return self.actions.turn(actions, -theta)


def canonical(task: type[VecTask], frame: CanonicalFrame) -> type[VecTask]:
    """A task whose views are seen, and whose actions are taken, in a canonical frame.

    It is a class like `task`, so all that takes tasks takes it: adaptors, PPO, `train_expert`, distillation,
    saving. Physics, rewards, ends and images are the task's. Noise of views is drawn in the frame. Actions
    are clipped to [-1, 1] in the frame, and then turned: the box of actions turns with it.

    Example:
        ``train_expert(canonical(Reach, REACH), seed=0, config=student_preset("reach", "ppo"))``
    """

    class Canonical(task):  # type: ignore[misc, valid-type]
        def compute_views(self) -> dict[str, Tensor]:
            views = super().compute_views()
            self._theta = frame.theta(views)
            return frame.canonical_views(views, self._theta)

        def pre_physics_step(self, actions: Tensor) -> None:
            super().pre_physics_step(frame.world_actions(actions, self._theta))

    Canonical.__name__ = Canonical.__qualname__ = f"Canonical{task.__name__}"
    Canonical.__doc__ = task.__doc__
    return Canonical


def _turn(pairs: Tensor, c: Tensor, s: Tensor) -> Tensor:
    x, y = pairs.unbind(1)
    return torch.stack([c * x - s * y, s * x + c * y], 1)


def _goal_azimuth(views: Mapping[str, Tensor]) -> Tensor:
    goal = views["privileged"][:, 15:17]
    return torch.atan2(goal[:, 1], goal[:, 0] - BASE_X)


REACH = CanonicalFrame(
    theta=_goal_azimuth,
    views={
        "policy": Turning(yaws=(0,), points=(12,), origin=(BASE_X, 0.0)),
        "privileged": Turning(yaws=(0,), points=(12, 15), vectors=(18,), origin=(BASE_X, 0.0)),
    },
)
"""`Reach` with the goal always straight ahead; see `CanonicalReach`.

Exact: gravity is along z and the arm stands on a yaw joint, so turning goal, yaw joint and its target by one
angle about the arm's axis turns the whole motion, and the joint increments that make it stay the same. Two
things only break it: the yaw joint's limits at +-1.8 rad, out of the way of goals within +-1 rad; and where
episodes begin (the yaw joint near 0), which is a distribution of states, not a law of motion. `policy` is
turned by the goal's azimuth, which it does not hold: it tells of the goal now.

PPO (the preset of Reach, 5 seeds) comes to 95 % running success after 57,600 to 64,000 steps, and after
70,400 to 76,800 without the frame.
"""


def _push_direction(views: Mapping[str, Tensor]) -> Tensor:
    direction = views["privileged"][:, 28:30]
    return torch.atan2(direction[:, 1], direction[:, 0])


PUSH_CUBE = CanonicalFrame(
    theta=_push_direction,
    views={
        "policy": Turning(yaws=(0,), points=(12,), origin=(BASE_X, 0.0)),
        "privileged": Turning(
            yaws=(0,),
            points=(12, 15, 24),
            vectors=(17, 21, 26, 28, 30),
            waves=((19, 4),),
            origin=(BASE_X, 0.0),
        ),
    },
    actions=Turning(vectors=(0,)),
)
"""`PushCube` with the push always along +x; actions, steps of the fingertip in the world, turn back.

Exact in the same sense as `REACH`, away from the limits of the hand's reach, which do not turn.
"""

CanonicalReach = canonical(Reach, REACH)
CanonicalPushCube = canonical(PushCube, PUSH_CUBE)
