"""The base of all Box2D tracks: the walker in its world, observation, reward, ends of episodes, pictures.

The tracks themselves, and what there is to know about them, are in `tutelage.envs.stumps.stump_tracks`.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from Box2D import b2World
from gymnasium import Env, spaces
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from tutelage.envs.contract.tasks import BoxTasks
from tutelage.envs.stumps.stump_bodies import BodyBuilder, TerrainBuilder, body_named
from tutelage.envs.stumps.stump_lidar import Lidar
from tutelage.envs.stumps.stump_rendering import draw_track
from tutelage.envs.stumps.stump_terrain import FINISH, GROUND_HEIGHT, SCALE, START_PAD, Terrain

FPS = 50
MASTERED_RETURN = 230.0
"""An episode is a success when its undiscounted return is greater."""
FAIL_REWARD = -100.0
"""Reward of the step in which the hull touches the terrain or the walker leaves the track on the left."""
START_PUSH = 5.0
"""Greatest horizontal force on the hull in the first step, to either side."""
_VELOCITY_ITERATIONS, _POSITION_ITERATIONS = 180, 60
_TEST_SEED = 31
# The observed speeds of the hull, scaled by the size of the picture, 20 x 40/3 units, and the frame rate.
_TURN_SCALE, _X_SCALE, _Y_SCALE = 2.0 / FPS, 0.3 * (600 / SCALE) / FPS, 0.3 * (400 / SCALE) / FPS
# Box2D moves a body by at most 2 units and turns it by at most pi / 2 in a step: speeds are bounded by these.
_MAX_SPEED, _MAX_TURN = 2.0 * FPS, np.pi / 2 * FPS


class BipedalTracks(Env[NDArray[np.float32], NDArray[np.float32]]):
    """Base class of the Box2D tracks: the walker, its observation, its reward and the end of episodes.

    Subclasses say which task parameters they know and draw the terrain. See `StumpTracks` for everything
    else.

    Attributes:
        task_space: the box of task parameters.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": FPS}  # type: ignore[misc]

    known_parameters: ClassVar[Mapping[str, float | None]]
    """Every task parameter that a track understands, with its value where it is not part of the task."""
    default_parameters: ClassVar[Mapping[str, tuple[float, float]]]
    """The task space of the literature."""

    def __init__(
        self,
        body: str = "classic_bipedal",
        parameters: Mapping[str, tuple[float, float]] | None = None,
        render_mode: str | None = None,
        max_steps: int = 2000,
        obstacle_spacing: float = 8.0,
    ) -> None:
        bounds = dict(self.default_parameters if parameters is None else parameters)
        for name in bounds:
            if name not in self.known_parameters:
                near = difflib.get_close_matches(name, self.known_parameters, 1, cutoff=0.0)[0]
                known = ", ".join(self.known_parameters)
                raise ValueError(f"unknown task parameter {name!r}, did you mean {near!r}? There are {known}")
        self.task_space = BoxTasks(bounds)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; use 'rgb_array' or None")
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, but an episode needs at least one step")
        self.render_mode = render_mode
        self.max_steps = max_steps
        self._fixed = {**self.known_parameters, "obstacle_spacing": obstacle_spacing}

        self._builder = BodyBuilder(body_named(body))
        links = self._builder.body.links
        self._motors = [(link.speed, self._builder.body.torque) for link in links]
        self.action_space = spaces.Box(-1.0, 1.0, (len(links),), np.float32)
        high = [2 * np.pi, _TURN_SCALE * _MAX_TURN, _X_SCALE * _MAX_SPEED, _Y_SCALE * _MAX_SPEED]
        low = [-value for value in high]
        for link in links:
            high += [np.pi + link.offset, 2 * _MAX_TURN / link.speed] + [1.0] * link.foot
            low += [-np.pi + link.offset, -2 * _MAX_TURN / link.speed] + [0.0] * link.foot
        self._low = np.array(low + [0.0] * 10, np.float32)
        self._high = np.array(high + [1.0] * 10, np.float32)
        self.observation_space = spaces.Box(self._low, self._high, dtype=np.float32)

        self._terrain_builder = TerrainBuilder()
        self.world: b2World | None = None

    @abstractmethod
    def _generate(self, values: Mapping[str, Any]) -> Terrain:
        """Draw the terrain of the task whose parameters' values are given by name."""

    def test_tasks(self) -> NDArray[np.float64]:
        """Return the fixed tasks on which students are compared: 100, uniform, always the same."""
        return self.task_space.sample(np.random.default_rng(_TEST_SEED), 100)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode of the task ``options["task"]``, or of one drawn uniformly.

        Raises:
            TaskError: when the task is not in the task space.
        """
        super().reset(seed=seed)
        if options is not None and options.get("task") is not None:
            self._task = self._checked(options["task"])
        else:
            self._task = self.task_space.sample(self.np_random, 1)[0]

        push = float(self.np_random.uniform(-START_PUSH, START_PUSH))
        named = dict(zip(self.task_space.names, self._task.tolist(), strict=True))
        self.terrain = self._generate({**self._fixed, **named})
        self._lidar = Lidar(self.terrain)
        # A new world each time: nothing of an earlier episode can reach this one.
        self.world = b2World(gravity=(0, -10), doSleep=True)
        self._terrain_builder.start(self.world, self.terrain)
        self._terrain_builder.extend(START_PAD / 2)
        self._parts, self._joints = self._builder.build(self.world, START_PAD / 2, GROUND_HEIGHT)
        self._hull = self._parts[0]
        self._hull.ApplyForceToCenter((push, 0.0), True)
        links = self._builder.body.links
        self._sensors = [
            (joint, link.offset, link.speed, self._parts[k] if link.foot else None)
            for k, (joint, link) in enumerate(zip(self._joints, links, strict=True), start=1)
        ]

        self._steps = 0
        self._return = 0.0
        self._apply([0.0] * len(self._joints))
        observation, position, angle = self._observe()
        self._shaping = 130.0 * position / SCALE - 5.0 * abs(angle)
        return observation, {"task": self._task.copy()}

    def step(self, action: ArrayLike) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply one motor command of each joint in [-1, 1] for a fiftieth of a second.

        Raises:
            ResetNeeded: before the first reset.
            ValueError: when the action holds a NaN, or has not one value for each motor.
        """
        if self.world is None:
            raise ResetNeeded("call reset before step")
        effort = self._apply(np.asarray(action).tolist())
        observation, position, angle = self._observe()

        # Reward: progress, minus leaning, minus effort.
        shaping = 130.0 * position / SCALE - 5.0 * abs(angle)
        reward = shaping - self._shaping - self._builder.body.torque_penalty * effort
        self._shaping = shaping
        failed = position < 0.0 or _touches(self._hull)
        if failed:
            reward = FAIL_REWARD
        terminated = failed or position > FINISH

        self._steps += 1
        self._return += reward
        truncated = not terminated and self._steps >= self.max_steps
        info: dict[str, Any] = {"task": self._task.copy()}
        if terminated or truncated:
            info["success"] = self._return > MASTERED_RETURN
        return observation, reward, terminated, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture of the walker, shape ``(400, 600, 3)``; None without a render mode."""
        if self.render_mode is None:
            return None
        if self.world is None:
            raise ResetNeeded("call reset before render")
        polygons = [
            [tuple(part.GetWorldPoint(vertex)) for vertex in part.fixtures[0].shape.vertices]
            for part in self._parts
        ]
        hull = (self._hull.position.x, self._hull.position.y)
        return draw_track(self.terrain, polygons, hull, self._lidar(*hull))

    def close(self) -> None:
        """Free the Box2D world."""
        self.world = None

    def _checked(self, task: ArrayLike) -> NDArray[np.float64]:
        space, array = self.task_space, np.asarray(task)
        if array.dtype == np.float32 and array.shape == space.shape:
            # A bound rounded to float32 may lie just outside the box in float64.
            clipped = np.clip(array.astype(np.float64), space.low, space.high)
            array = np.where(clipped.astype(np.float32) == array, clipped, array)
        checked: NDArray[np.float64] = space.check(array[None], source="options['task']")[0].copy()
        return checked

    def _apply(self, action: list[float]) -> float:
        """Set the motors, move the world on, and return the sum of the motors' efforts, each in [0, 1]."""
        motors = len(self._joints)
        if len(action) != motors:
            raise ValueError(f"the action has {len(action)} values, but this body has {motors} motors")
        total = 0.0
        for joint, (speed, torque), value in zip(self._joints, self._motors, action, strict=True):
            effort = min(abs(value), 1.0)
            joint.motorSpeed = speed if value > 0 else -speed if value < 0 else 0.0
            joint.maxMotorTorque = torque * effort
            total += effort
        if total != total:
            raise ValueError(f"the action {action} holds a NaN; has the policy diverged?")
        assert self.world is not None
        self.world.Step(1.0 / FPS, _VELOCITY_ITERATIONS, _POSITION_ITERATIONS)
        return total

    def _observe(self) -> tuple[NDArray[np.float32], float, float]:
        """Return the observation, and position and angle of the hull, which the reward is made of."""
        hull = self._hull
        position, velocity, angle = hull.position, hull.linearVelocity, hull.angle
        x, y = position.x, position.y
        if x > self._terrain_builder.end:
            self._terrain_builder.extend(x)
        state = [angle, _TURN_SCALE * hull.angularVelocity, _X_SCALE * velocity.x, _Y_SCALE * velocity.y]
        for joint, offset, speed, foot in self._sensors:
            if foot is None:
                state += (joint.angle + offset, joint.speed / speed)
            else:
                state += (joint.angle + offset, joint.speed / speed, _touches(foot))
        observation = np.empty(len(state) + 10, np.float32)
        observation[:-10] = state
        observation[-10:] = self._lidar(x, y)
        np.minimum(observation, self._high, out=observation)
        np.maximum(observation, self._low, out=observation)
        return observation, x, angle


def _touches(part: Any) -> bool:
    """Whether a part of the walker touches the terrain, all that it can touch.

    Asked after the step, this costs less than a contact listener, which is called for every contact and step.
    """
    for edge in part.contacts:  # noqa: SIM110  # any() takes longer
        if edge.contact.touching:
            return True
    return False
