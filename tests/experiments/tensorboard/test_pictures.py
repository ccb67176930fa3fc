import io
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tutelage.envs.contract.tasks import BoxTasks
from tutelage.experiments.tensorboard.clips import clip_tasks, encode_gif, record_clip
from tutelage.experiments.tensorboard.pictures import _edges, _grid_sides, task_space_picture

PLANE = BoxTasks({"stump_height": (0, 3), "obstacle_spacing": (0, 6)})
YELLOW, VIOLET = np.array([253, 231, 37]), np.array([68, 1, 84])  # the ends of viridis


def right(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The student's panel without its colour scale."""
    return image[:, 510:810]


def count(image: NDArray[np.uint8], colour: NDArray[Any]) -> int:
    return int((np.abs(image.astype(int) - colour).max(axis=2) < 12).sum())


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_pictures_of_any_dimension(dim: int, n: int) -> None:
    rng = np.random.default_rng(0)
    space = BoxTasks({f"parameter_{i}": (-1.0, 2.0 + i) for i in range(dim)})
    tasks, tests = space.sample(rng, n), space.sample(rng, 30)
    shown = {
        "gaussians": {
            "means": space.sample(rng, 2),
            "covariances": np.stack([np.eye(dim)] * 2),
            "weights": [0.5, 0.5],
        },
        "boxes": {"low": [space.low], "high": [space.high], "weights": [1.0]},
    }
    image = task_space_picture(space, tasks, rng.random(n), shown, tests, rng.random(30))
    assert (image.shape, image.dtype) == ((420, 900, 3), np.uint8)
    plain = task_space_picture(space, tasks, None, {}, tests, np.full(30, np.nan), size=(700, 300))
    assert plain.shape == (300, 700, 3)
    assert not np.array_equal(image[:300, :340], plain[:, :340])


def test_mastered_cells_are_yellow_where_they_lie() -> None:
    tests = PLANE.grid(10)
    low = (tests[:, 1] < 3).astype(float)  # mastered: spacing below 3, the lower half of the panel
    image = right(task_space_picture(PLANE, np.empty((0, 2)), None, {}, tests, low))
    top, bottom = image[50:200], image[215:360]
    assert count(bottom, YELLOW) > 30_000 > count(top, YELLOW) == 0
    assert count(top, VIOLET) > 30_000 > count(bottom, VIOLET) == 0
    # a third parameter: cells show the mean over it
    cube = BoxTasks({"a": (0, 1), "b": (0, 1), "c": (0, 1)})
    half = (cube.grid(4)[:, 2] < 0.5).astype(float)
    image = right(task_space_picture(cube, np.empty((0, 3)), None, {}, cube.grid(4), half))
    assert count(image, np.array([33, 145, 140])) > 10_000  # the middle of viridis
    assert count(image, YELLOW) == 0


def test_outlines_are_drawn_where_the_task_teacher_holds_them() -> None:
    orange = np.array([213, 94, 0])

    def drawn(shown: dict[str, Any]) -> NDArray[Any]:
        image = task_space_picture(PLANE, np.empty((0, 2)), None, shown, PLANE.grid(3), np.zeros(9))
        return np.argwhere(np.abs(image.astype(int) - orange).max(axis=2) < 40)

    # one Gaussian in the middle; at two standard deviations it spans the panel's whole width (306 pixels)
    wide = drawn(
        {"gaussians": {"means": [[1.5, 3.0]], "covariances": [np.diag([0.75**2, 0.5**2])], "weights": [1.0]}}
    )
    assert np.ptp(wide[:, 1]) == pytest.approx(306, abs=6)
    # 4 standard deviations of 0.5 are a third of 6; the panel is 0.76 x 420 = 319 pixels high
    assert np.ptp(wide[:, 0]) == pytest.approx(319 / 3, abs=6)
    box = drawn({"boxes": {"low": [[1.0, 2.0]], "high": [[2.0, 4.0]], "weights": [0.3]}})
    assert (np.ptp(box[:, 1]), np.ptp(box[:, 0])) == (pytest.approx(102, abs=5), pytest.approx(106, abs=5))
    assert len(drawn({})) == 0


def test_test_grids_are_recognised() -> None:
    sides = _grid_sides(PLANE.grid([3, 2]))
    assert sides is not None
    np.testing.assert_allclose(sides[0], [0.5, 1.5, 2.5])
    np.testing.assert_allclose(_edges(sides[1], 0.0, 6.0), [0, 3, 6])
    assert _grid_sides(PLANE.sample(np.random.default_rng(0), 20)) is None


def test_clip_tasks_on_the_border_of_success() -> None:
    tests = PLANE.grid(10)
    mastered = (tests[:, 0] < 1.5).astype(float)
    chosen = {name: tests[i] for name, i in clip_tasks(tests, mastered).items()}
    assert list(chosen) == ["easy", "current", "hard"]
    # columns lie at 0.15, 0.45, ..., 2.85; success ends between 1.35 and 1.65
    assert chosen["easy"][0] < 0.7
    assert chosen["current"][0] == pytest.approx(1.5, abs=0.16)
    assert chosen["hard"][0] > 2.3


def test_clip_tasks_by_returns_and_in_the_corner_cases() -> None:
    line = np.linspace(0, 1, 11)[:, None]
    assert clip_tasks(line, 100 - 10 * np.arange(11)) == {"easy": 0, "current": 5, "hard": 10}
    assert clip_tasks(line, [1.0] * 5 + [0.5] * 5 + [np.nan])["hard"] == 10
    for same in (0.0, 1.0, np.nan):
        assert all(0 <= i < 11 for i in clip_tasks(line, np.full(11, same)).values())
    assert clip_tasks(np.array([4]), [1.0]) == {"easy": 0, "current": 0, "hard": 0}
    with pytest.raises(ValueError, match="one for each"):
        clip_tasks(line, [1.0])


class Slider(gym.Env[Any, Any]):
    """A block that goes right by the action; the task is the length of the episode."""

    observation_space = gym.spaces.Box(-100, 100, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        assert options is not None
        self.at, self.left = 0, int(options["task"][0])
        return np.array([self.at]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at, self.left = self.at + int(action), self.left - 1
        return np.array([self.at]), 0.0, self.left == 0, False, {}

    def render(self) -> Any:
        frame = np.zeros((100, 400, 3), np.uint8)
        frame[:, : 4 * self.at] = 255
        return frame

    def close(self) -> None:
        self.closed = True


def test_clips_hold_first_every_nth_and_last_state() -> None:
    env = Slider()
    frames = record_clip(env, lambda observation: 1, np.array([10]), seed=0, frame_skip=4, width=200)
    # steps 0, 4, 8 and the end at 10, each 4 pixels a step, halved
    assert [int((frame[25, :, 0] > 127).sum()) for frame in frames] == [0, 8, 16, 20]
    assert {frame.shape for frame in frames} == {(50, 200, 3)}
    assert env.closed
    assert len(record_clip(Slider(), lambda o: 1, np.array([90]), seed=0, frame_skip=1, max_frames=7)) == 7
    assert record_clip(Slider(), lambda o: 1, np.array([3]), seed=0, width=800)[0].shape == (100, 400, 3)


def test_clips_of_what_cannot_render_say_so() -> None:
    env = Slider()
    env.render = lambda: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="rgb_array"):
        record_clip(env, lambda o: 1, np.array([3]), seed=0)
    assert env.closed


def test_gifs_keep_order_colours_and_time() -> None:
    colours = np.array([[230, 60, 20], [20, 90, 200], [250, 250, 240]], dtype=np.uint8)
    frames = [np.broadcast_to(colour, (40, 60, 3)).copy() for colour in colours]
    gif = Image.open(io.BytesIO(encode_gif(frames, fps=20)))
    assert (gif.n_frames, gif.info["loop"]) == (3, 0)
    durations = []
    for i, colour in enumerate(colours):
        gif.seek(i)
        durations.append(gif.info["duration"])
        seen = np.asarray(gif.convert("RGB"), dtype=int)
        assert np.abs(seen - colour).max() <= 12
    assert durations == [50, 50, 1000]  # 1 / 20 s each, the last held
    with pytest.raises(ValueError, match="one shape"):
        encode_gif([])
    with pytest.raises(ValueError, match="one shape"):
        encode_gif([frames[0], frames[0][:10]])
