"""Box2D walkers on procedurally generated tracks: Stump Tracks, Hexagon Tracks and stump sequences.

These are the environments on which task teachers for continuous task spaces are compared in the literature
(Portelas et al. 2019; TeachMyAgent, Romac et al. 2021), with its physics, bodies, reward and test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.recipe import TaskKnowledge, WorldRecipe
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.envs.stumps.bipedal_tracks import BipedalTracks
from tutelage.envs.stumps.stump_terrain import Terrain, hexagon_track, stump_sequence_track, stump_track


class StumpTracks(BipedalTracks):
    """A walker on a track of stumps: task = how high they are, how far apart, and optionally more.

    The Box2D benchmark of curriculum learning over continuous tasks: Stump Tracks of Portelas et al. (2019),
    with the bodies of TeachMyAgent (Romac et al. 2021). The walker starts on a flat pad; then follow stumps
    with `obstacle_spacing` units of flat ground between them, up to the finish about 84 units away. Each
    stump's size is drawn anew about the task's, so that a task is a distribution of tracks.

    **Task parameters** (`parameters` names those that vary, in order, with their bounds; default
    ``{"stump_height": (0, 3), "obstacle_spacing": (0, 6)}``):

    - ``stump_height``: mean height in terrain steps of 14/30 units; each ``max(0.05, N(height, 0.1))``, so
      that negative heights are all but flat. TeachMyAgent's unit tests use (0, 9), mostly unfeasible, and
      (-3, 3), mostly trivial. 0 where it is no parameter.
    - ``obstacle_spacing``: flat ground between stumps in units, at least 0.01; the constructor's
      `obstacle_spacing` where it is no parameter.
    - ``stump_width``: mean width in terrain steps, ``max(0.05, N(width, 0.1))``; exactly 1 where it is no
      parameter.
    - ``stump_rotation``: mean angle in radians by which a stump turns about the middle of its base,
      ``N(rotation, 0.1)`` clipped to [0, 2 pi]; upright where it is no parameter.
    - ``roughness``: unevenness of the flat parts; 0 where it is no parameter.

    **Bodies**: ``classic_bipedal`` and ``small_bipedal`` (24 observations, 4 actions), ``spider`` (42 and
    12), and ``old_classic_bipedal``, the body of the published benchmark, which is Gymnasium's bipedal
    walker: the solver must pull its legs into place in the first step. Dashes serve as well as underscores.

    **Action**: motor command of each joint in [-1, 1]: the sign chooses the direction, the size the greatest
    torque.

    **Observation** (float32): angle of the hull, its angular speed, its velocities x and y, scaled to about
    1; for each joint angle and speed, and for each lowest part of a leg whether it touches the terrain (0 or
    1); then 10 lidar fractions (1: nothing within 160/30 units). Angles are clipped to one turn and more, and
    speeds are bounded by what Box2D allows, so that the bounds of the space always hold.

    **Reward**: change of 130/30 x - 5 abs(angle of the hull), minus 0.028 for each fully used motor (spider:
    0.014); -100 instead in the step in which the hull touches the terrain or the walker goes off to the left,
    which ends the episode, as does the finish. The 2,000-step cap is a truncation. Returns lie in about
    [-150, 350]; ``info["success"]`` at the end of an episode tells whether the return is above 230
    ("mastered").

    **Test set**: `test_tasks`, the 10 x 10 grid of TeachMyAgent.

    Unlike the public code, every random number comes from ``np_random``; the ground goes on to the finish
    where the last stretch of flat ground used to be missing; a foot counts as on the ground while any contact
    lasts.

    Args:
        body: the walker.
        parameters: task parameters that vary, with (low, high).
        render_mode: None or ``"rgb_array"``.
        max_steps: cap on an episode's length.
        obstacle_spacing: the spacing where it is no task parameter.

    Raises:
        ValueError: for an unknown body or task parameter (names the nearest), empty bounds, or a bad cap.

    Example:
        >>> env = StumpTracks(body="spider")
        >>> observation, info = env.reset(seed=0, options={"task": [1.5, 3.0]})
        >>> observation.shape, env.action_space.shape, info["task"]
        ((42,), (12,), array([1.5, 3. ]))
    """

    known_parameters: ClassVar[Mapping[str, float | None]] = {
        "stump_height": 0.0,
        "obstacle_spacing": 8.0,
        "stump_width": None,
        "stump_rotation": None,
        "roughness": 0.0,
    }
    default_parameters: ClassVar[Mapping[str, tuple[float, float]]] = {
        "stump_height": (0.0, 3.0),
        "obstacle_spacing": (0.0, 6.0),
    }

    def test_tasks(self) -> NDArray[np.float64]:
        """Return the fixed tasks on which students are compared, shape ``(100, d)``.

        With the two usual parameters these are the 10 x 10 values ``linspace(0, 3, 10)`` x ``linspace(0, 6,
        10)``, borders included, the height varying fastest: the rule by which TeachMyAgent's
        ``teacher_controller.py`` makes the test set of Stump Tracks. Wider boxes are tested on the same 100
        tasks, as in its unit tests; a box that does not hold them is cut in the same way. Further parameters:
        100 uniform tasks, always the same.
        """
        if set(self.task_space.names) != set(self.default_parameters):
            return super().test_tasks()
        published = BoxTasks({name: self.default_parameters[name] for name in self.task_space.names})
        inside = self.task_space.contains([published.low, published.high]).all()
        box = published if inside else self.task_space
        axes = [np.linspace(low, high, 10) for low, high in zip(box.low, box.high, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="xy"), axis=-1).reshape(-1, 2)

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="Box2D walker over stumps: height [0, 3] x spacing [0, 6], 100 test tasks",
        mastered="undiscounted return above 230",
        gymnasium_id="tutelage/StumpTracks-v0",
        # The easy task and its spread: TeachMyAgent's "low knowledge" (flat ground, 10 % of the ranges).
        knowledge=TaskKnowledge(
            easy_task=(0.0, 6.0),
            easy_std=(0.3, 0.6),
            target_mean=(3.0, 0.0),
            target_std=(0.3, 0.6),
            mastered_return=230.0,
            return_range=(-150.0, 350.0),
        ),
        test_sets={"grid": test_tasks},
        students={
            "ppo": {
                "n_envs": 32,
                "kwargs": {
                    "n_steps": 512,
                    "batch_size": 2048,
                    "n_epochs": 10,
                    "learning_rate": 3e-4,
                    "policy_kwargs": {"net_arch": [64, 64], "activation_fn": "Tanh"},
                },
                "normalize_observations": True,
                "normalize_rewards": True,
            },
            # TeachMyAgent's SAC: replay of 2 M, an update every 10 steps, fixed entropy weight.
            "sac-paper": {
                "algorithm": "sac",
                "n_envs": 1,
                "kwargs": {
                    "learning_rate": 1e-3,
                    "batch_size": 1000,
                    "buffer_size": 2_000_000,
                    "learning_starts": 10_000,
                    "train_freq": 10,
                    "gradient_steps": 1,
                    "ent_coef": 0.005,
                    "policy_kwargs": {"net_arch": [400, 300], "activation_fn": "ReLU"},
                },
            },
        },
    )

    def _generate(self, values: Mapping[str, Any]) -> Terrain:
        return stump_track(
            self.np_random,
            height=values["stump_height"],
            spacing=values["obstacle_spacing"],
            width=values["stump_width"],
            rotation=values["stump_rotation"],
            roughness=values["roughness"],
        )


class HexagonTracks(BipedalTracks):
    """A walker on a track of deformed hexagons: a task of twelve parameters (Portelas et al. 2019, Hexagon
    Tracks).

    The parameters ``x1, y1, ..., x6, y6`` in [0, 4] displace the six corners of a hexagon, in terrain steps
    of 14/30 units, from the left end of its base to the right; ``y1`` and ``y6`` have no effect, since these
    two corners stay on the ground. Each hexagon draws its own displacements, N(parameter, 0.1), and is the
    convex hull of its corners. Between two hexagons lie `obstacle_spacing` units of flat ground, 8 as in the
    public code, unless ``obstacle_spacing`` is one of `parameters`; ``roughness`` may be another.

    Bodies, observation, reward, ends of episodes, arguments and errors: see `StumpTracks`. The test set
    (`test_tasks`) is 100 uniform tasks from a fixed seed; the authors' 400 tasks were of an older format.

    Example:
        >>> env = HexagonTracks()
        >>> env.task_space.dim, env.test_tasks().shape
        (12, (100, 12))
    """

    default_parameters: ClassVar[Mapping[str, tuple[float, float]]] = {
        f"{axis}{corner}": (0.0, 4.0) for corner in range(1, 7) for axis in "xy"
    }
    known_parameters: ClassVar[Mapping[str, float | None]] = {
        **dict.fromkeys(default_parameters, 0.0),
        "obstacle_spacing": 8.0,
        "roughness": 0.0,
    }

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="Box2D walker (classic_bipedal) over deformed hexagons: 12 parameters in [0, 4]",
        mastered="undiscounted return above 230",
        gymnasium_id="tutelage/HexagonTracks-v0",
        knowledge=TaskKnowledge(
            easy_task=(0.0,) * 12,
            easy_std=(0.4,) * 12,
            target_mean=(4.0,) * 12,
            target_std=(0.4,) * 12,
            mastered_return=230.0,
            return_range=(-150.0, 350.0),
        ),
        test_sets={"uniform": BipedalTracks.test_tasks},
    )

    def _generate(self, values: Mapping[str, Any]) -> Terrain:
        moves = [values[name] for name in self.default_parameters]
        return hexagon_track(self.np_random, moves, values["obstacle_spacing"], values["roughness"])


class StumpSequenceTracks(BipedalTracks):
    """A walker on a track that repeats five adjacent stumps: a task of ten parameters (Portelas et al. 2019).

    The parameters ``height1, width1, ..., height5, width5`` in [0, 6] are mean heights in terrain steps of
    14/30 units and mean widths in units; each stump's are ``max(0.05, N(parameter, 0.1))``. Between two
    sequences lie `obstacle_spacing` units of flat ground, 8 unless ``obstacle_spacing`` is one of
    `parameters`; ``roughness`` may be another.

    Bodies, observation, reward, ends of episodes, arguments and errors: see `StumpTracks`. The test set
    (`test_tasks`) is 100 uniform tasks from a fixed seed.

    Example:
        >>> StumpSequenceTracks().task_space.names[:4]
        ('height1', 'width1', 'height2', 'width2')
    """

    default_parameters: ClassVar[Mapping[str, tuple[float, float]]] = {
        f"{size}{stump}": (0.0, 6.0) for stump in range(1, 6) for size in ("height", "width")
    }
    known_parameters: ClassVar[Mapping[str, float | None]] = {
        **dict.fromkeys(default_parameters, 0.0),
        "obstacle_spacing": 8.0,
        "roughness": 0.0,
    }

    def _generate(self, values: Mapping[str, Any]) -> Terrain:
        sizes = [values[name] for name in self.default_parameters]
        return stump_sequence_track(self.np_random, sizes, values["obstacle_spacing"], values["roughness"])
