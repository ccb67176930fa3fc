"""What a task space says of itself: kinds, axes, columns; and what a file keeps of it."""

import json

import numpy as np
import pytest

from tutelage.envs.contract.described_tasks import DescribedTasks, task_space_from_json, task_space_to_json
from tutelage.envs.contract.levels import DrawsTasks, LevelSpace
from tutelage.envs.contract.tasks import (
    Axis,
    BoxSpace,
    BoxTasks,
    DiscreteTasks,
    TaskSpace,
    missing_members,
    unit_grid,
)

BOX = BoxTasks({"height": (0, 3), "spacing": (-1, 6)})


class Levels(LevelSpace):
    shape, dtype = (2, 2), np.dtype(np.uint8)

    def to_json(self):
        return {"kind": self.kind, "size": 2}


class Rings(TaskSpace):
    """A user's own box, which no class of ours is the parent of: radius and angle."""

    kind, shape, dtype = "rings", (2,), np.dtype(np.float64)
    names, low, high, dim = ("radius", "angle"), np.array([1.0, -3.0]), np.array([2.0, 3.0]), 2
    axes = (Axis("radius", 1.0, 2.0), Axis("angle", -3.0, 3.0))

    def describe(self, tasks):
        return {"radius": tasks[:, 0], "angle": tasks[:, 1]}

    def sample(self, rng, n):
        return self.from_unit(rng.random((n, 2)))

    def contains(self, tasks):
        return ((tasks >= self.low) & (tasks <= self.high)).all(axis=1)

    def check(self, tasks, source="tasks"):
        assert self.contains(np.asarray(tasks)).all(), source
        return np.asarray(tasks, dtype=np.float64)

    def to_unit(self, tasks):
        return (np.asarray(tasks) - self.low) / (self.high - self.low)

    def from_unit(self, points):
        return self.low + np.asarray(points) * (self.high - self.low)

    def to_json(self):
        return {"inner": 1, "outer": 2}


def test_each_kind_names_its_axes_and_columns() -> None:
    assert (BOX.kind, BOX.axes) == ("box", (Axis("height", 0, 3), Axis("spacing", -1, 6)))
    columns = BOX.describe([[1.0, 2.0], [3.0, 4.0]])
    assert {name: column.tolist() for name, column in columns.items()} == {
        "height": [1, 3],
        "spacing": [2, 4],
    }
    finite = DiscreteTasks(["reach", "push", "lift"])
    assert (finite.kind, finite.axes) == ("discrete", (Axis("task", -0.5, 2.5, whole=True),))
    assert finite.describe([2, 0])["index"].tolist() == [2, 0]
    assert (Levels().kind, Levels().axes, Levels().describe(np.zeros((1, 2, 2)))) == ("level", (), {})


def test_axes_are_cut_into_bins_and_whole_numbers_get_one_each() -> None:
    np.testing.assert_allclose(Axis("x", 0, 3).edges(4), [0, 0.75, 1.5, 2.25, 3])
    np.testing.assert_array_equal(Axis("x", -0.5, 2.5, whole=True).edges(30), [-0.5, 0.5, 1.5, 2.5])
    assert len(Axis("x", 0, 1e12, whole=True).edges(30)) == 31  # a file may say anything
    with pytest.raises(ValueError, match=r"'x' has bounds \(1, 1\)"):
        Axis("x", 1, 1)
    np.testing.assert_array_equal(unit_grid([1, 2], 2), [[0.5, 0.25], [0.5, 0.75]])


def test_protocols_ask_what_a_space_offers_not_what_it_is() -> None:
    assert isinstance(BOX, BoxSpace)
    assert isinstance(Rings(), BoxSpace)
    assert not isinstance(DiscreteTasks(2), BoxSpace)
    assert not isinstance(Levels(), BoxSpace)
    assert isinstance(Levels(), DrawsTasks)
    assert not isinstance(BOX, DrawsTasks)
    for space in (BOX, DiscreteTasks(2), Levels(), Rings()):
        assert isinstance(space, TaskSpace)
        assert missing_members(space, TaskSpace) == []
    assert missing_members(object(), TaskSpace) == [
        "axes", "check", "contains", "describe", "dtype", "kind", "sample", "shape", "to_json"
    ]  # fmt: skip
    assert missing_members(BOX, LevelSpace) == ["decode", "encode", "features", "gallery", "mutate"]


def test_a_file_keeps_what_can_be_drawn_of_a_space_of_any_kind() -> None:
    for space in (BOX, DiscreteTasks(["a", "b"])):
        described = task_space_to_json(space)
        assert described == space.to_json()  # as folders have always held them
        assert task_space_from_json(json.loads(json.dumps(described))) == space
    described = json.loads(json.dumps(task_space_to_json(Rings())))
    assert (described["kind"], described["outer"]) == ("rings", 2)
    assert task_space_from_json(described) == DescribedTasks("rings", Rings.axes)
    assert task_space_from_json(task_space_to_json(Levels())) == DescribedTasks("level")


def test_a_box_that_does_not_say_its_bounds_is_still_drawn() -> None:
    space = Rings()
    space.kind = "box"
    assert task_space_from_json(task_space_to_json(space)) == DescribedTasks("box", Rings.axes)


@pytest.mark.parametrize(
    "axes",
    [[{"name": "x", "low": 0}], [{"name": "x", "low": 0, "high": float("nan")}], [3], 3],
    ids=["no end", "NaN", "a number", "no list"],
)
def test_axes_that_make_no_sense_are_refused(axes: object) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        task_space_from_json({"kind": "mine", "axes": axes})
