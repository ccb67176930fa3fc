"""Galleries: the space draws its levels, frames and order tell how the student did."""

import numpy as np
import pytest
from matplotlib import colormaps

from tutelage.envs.contract.levels import LevelSpace
from tutelage.envs.contract.tasks import BoxTasks, DiscreteTasks, TaskSpace
from tutelage.experiments.tensorboard.galleries import draw_task_space, level_gallery, level_sheet
from tutelage.experiments.tensorboard.pictures import COLOURS, task_space_picture

LOW, HIGH = (np.array(colormaps[COLOURS](x)[:3]) * 255 for x in (0.0, 1.0))


class Shades(LevelSpace):
    """A level is a grey; it is drawn as a square of it with a red corner."""

    shape, dtype = (1,), np.dtype(np.uint8)

    def gallery(self, tasks):
        drawn = (
            np.repeat(tasks[:, None, None], 3, axis=3).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
        )
        drawn[:, 0, 0] = (255, 0, 0)
        return drawn


class Bare(TaskSpace):
    shape, dtype = (1,), np.dtype(np.uint8)


def near(image: np.ndarray, colour: object) -> np.ndarray:
    return (np.abs(image.astype(float) - np.asarray(colour)) <= 3).all(axis=-1)


def test_a_sheet_frames_each_level_in_its_colour() -> None:
    pictures = Shades().gallery(np.array([[10], [20], [30], [40], [50], [60], [70]]))
    colours = np.arange(21, dtype=np.uint8).reshape(7, 3) + 100
    sheet = level_sheet(pictures, colours)
    side = 48 + 2 * 6  # four pixels, each drawn 12 times 12; frame and gap
    assert sheet.shape == (2 * side, 5 * side, 3)
    for i in range(7):
        tile = sheet[i // 5 * side :, i % 5 * side :][:side, :side]
        assert (tile[:2] == 255).all()
        assert (tile[2:6, 2:-2] == colours[i]).all()
        assert (tile[6:18, 6:18] == (255, 0, 0)).all()
        assert (tile[18:-6, 6:-6] == 10 * (i + 1)).all()
    assert (sheet[side:, 2 * side :] == 255).all()  # where there is no level


def test_the_hardest_test_level_comes_first_and_the_newest_proposal() -> None:
    proposals, tests = np.array([[20], [40]], np.uint8), np.array([[90], [110], [130]], np.uint8)
    image = level_gallery(Shades(), proposals, [0.0, 10.0], tests, [1.0, 0.0, np.nan])
    assert image.shape == (420, 900, 3)
    where = {grey: np.argwhere(near(image, grey)).mean(axis=0) for grey in (20, 40, 90, 110, 130)}
    assert where[40][1] < where[20][1] < 450 < where[110][1] < where[90][1] < where[130][1]
    frames = [np.argwhere(near(image[:, 450 : 430 + 450], colour)) for colour in (LOW, HIGH)]
    left = [np.median(frame[frame[:, 1] < 340][:, 1]) for frame in frames]
    assert left[0] < left[1]  # what failed is framed dark, left of what succeeded


@pytest.mark.parametrize("n", [0, 1, 50])
def test_galleries_of_any_number(n: int) -> None:
    tasks = np.arange(n, dtype=np.uint8)[:, None]
    image = level_gallery(Shades(), tasks, None, np.zeros((30, 1), np.uint8), np.full(30, np.nan))
    assert image.shape == (420, 900, 3)
    assert near(image, (255, 0, 0)).sum() > 100


@pytest.mark.parametrize(
    "drawn", [None, np.zeros((2, 4, 4, 3)), np.zeros((1, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8)]
)
def test_what_is_no_gallery_is_refused(drawn: object) -> None:
    space = Shades()
    space.gallery = lambda tasks: drawn
    with pytest.raises(ValueError, match=r"Shades.gallery drew 2 tasks .* must return .* of uint8"):
        level_gallery(space, np.zeros((2, 1), np.uint8), None, np.zeros((2, 1), np.uint8), [0, 1])


def test_each_space_is_drawn_as_far_as_it_can_be() -> None:
    one = np.zeros((1, 1), np.uint8)
    assert draw_task_space(Bare(), one, [1.0], {}, one, [1.0]) is None
    np.testing.assert_array_equal(
        draw_task_space(Shades(), one, [1.0], {}, one, [1.0]), level_gallery(Shades(), one, [1.0], one, [1.0])
    )
    box = BoxTasks({"height": (0, 3)})
    given = (box, one, [1.0], {}, one, [1.0])
    np.testing.assert_array_equal(draw_task_space(*given), task_space_picture(*given))
    finite = draw_task_space(DiscreteTasks(3), np.array([[0], [2]]), [0.0, 1.0], {}, np.arange(3), [1, 0, 1])
    assert finite.shape == (420, 900, 3)
    bars = near(finite, [0x8F, 0xA8, 0xC8]).any(axis=0)
    assert bars[[110, 211, 313]].tolist() == [True, False, True]  # one bar for each task, none was the second
