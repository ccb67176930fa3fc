"""Task spaces, finished episodes, and state files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.envs.contract.described_tasks import DescribedTasks, task_space_from_json
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import (
    StateError,
    atomic_file,
    load_state,
    rng_state,
    save_state,
    set_rng_state,
)
from tutelage.envs.contract.tasks import BoxTasks, DiscreteTasks, TaskError, TaskSpace

finite = st.floats(-1e9, 1e9, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn) -> BoxTasks:
    bounds = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True)):
        low = draw(finite)
        high = low + draw(st.floats(1e-3, 1e9))
        bounds[name] = (low, high)
    return BoxTasks(bounds)


# ---------------------------------------------------------------- boxes


def test_a_box_maps_to_and_from_the_unit_cube() -> None:
    space = BoxTasks({"a": (-2, 2), "b": (10, 30)})
    # (-1 - -2) / (2 - -2) = 0.25; (25 - 10) / (30 - 10) = 0.75
    assert space.to_unit([[-1, 25]]).tolist() == [[0.25, 0.75]]
    assert space.from_unit([[0.25, 0.75]]).tolist() == [[-1.0, 25.0]]
    assert (space.dim, space.shape, space.names) == (2, (2,), ("a", "b"))


@given(boxes(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_samples_and_corners_lie_inside_and_survive_the_unit_cube(space: BoxTasks, seed: int) -> None:
    tasks = np.concatenate([space.sample(np.random.default_rng(seed), 20), [space.low, space.high]])
    assert space.contains(tasks).all()
    assert space.contains(space.from_unit(space.to_unit(tasks))).all()
    scale = np.maximum(np.abs(space.low), np.abs(space.high))
    assert np.allclose(space.from_unit(space.to_unit(tasks)), tasks, rtol=0, atol=1e-12 * scale.max())
    assert np.array_equal(space.from_unit(np.ones((1, space.dim)))[0], space.high)


@given(boxes(), st.integers(0, 2**32), st.integers(0, 7), st.integers(0, 7))
@settings(max_examples=50, deadline=None)
def test_samples_do_not_depend_on_how_they_are_batched(space: BoxTasks, seed: int, m: int, n: int) -> None:
    for kind in (space, DiscreteTasks(7)):
        rng = np.random.default_rng(seed)
        parts = np.concatenate([kind.sample(rng, m), kind.sample(rng, n)])
        assert np.array_equal(parts, kind.sample(np.random.default_rng(seed), m + n))


@given(boxes())
@settings(max_examples=100, deadline=None)
def test_a_box_survives_json(space: BoxTasks) -> None:
    again = task_space_from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert hash(again) == hash(space)
    assert isinstance(again, BoxTasks)
    assert np.array_equal(again.low, space.low)


def test_a_grid_has_cell_centres_with_the_last_parameter_fastest() -> None:
    space = BoxTasks({"a": (0, 4), "b": (0, 3)})
    # centres of 2 cells of [0, 4]: 1, 3; of 3 cells of [0, 3]: 0.5, 1.5, 2.5
    expected = [[1, 0.5], [1, 1.5], [1, 2.5], [3, 0.5], [3, 1.5], [3, 2.5]]
    assert np.allclose(space.grid((2, 3)), expected)
    assert space.grid(10).shape == (100, 2)


def test_check_names_the_parameter_the_task_and_the_bounds() -> None:
    space = BoxTasks({"height": (0, 3), "spacing": (0, 6)})
    with pytest.raises(
        TaskError, match=r"proposal: spacing = 7\.0 in task 1 is outside \[0\.0, 6\.0\]; clip"
    ):
        space.check([[1, 2], [1, 7]], "proposal")
    with pytest.raises(TaskError, match="height = nan in task 0"):
        space.check([[np.nan, 2]])
    with pytest.raises(TaskError, match=r"shape \(2,\), expected \(n, 2\): one row for each task"):
        space.check([1, 2])
    with pytest.raises(TaskError, match="cannot be read as an array of float64"):
        space.check([["high", "low"]])


def test_check_returns_float64_and_accepts_the_border() -> None:
    space = BoxTasks({"height": (0, 3)})
    checked = space.check(np.array([[0], [3]], dtype=np.float32))
    assert checked.dtype == np.float64
    assert checked.tolist() == [[0.0], [3.0]]
    assert space.check(np.empty((0, 1))).shape == (0, 1)


def test_contains_says_no_to_nan_and_infinity() -> None:
    space = BoxTasks({"height": (0, 3)})
    assert space.contains([[np.nan], [np.inf], [-np.inf], [1.5]]).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "at least one named parameter"),
        ({"a": (1, 1)}, "'a' has bounds"),
        ({"a": (2, 1)}, "need finite low < high"),
        ({"a": (0, np.inf)}, "need finite"),
        ({"a": (np.nan, 1)}, "need finite"),
    ],
)
def test_impossible_boxes_are_refused(bounds: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxTasks(bounds)


def test_boxes_compare_by_names_and_bounds() -> None:
    one = BoxTasks({"a": (0, 1), "b": (0, 2)})
    assert one == BoxTasks({"a": (0.0, 1.0), "b": (0.0, 2.0)})
    assert one != BoxTasks({"a": (0, 1), "b": (0, 3)})
    assert one != BoxTasks({"a": (0, 1), "c": (0, 2)})
    assert one != "a box"
    assert repr(one) == "BoxTasks({'a': (0, 1), 'b': (0, 2)})"


def test_boxes_with_parameters_in_another_order_differ() -> None:
    assert BoxTasks({"a": (0, 1), "b": (0, 2)}) != BoxTasks({"b": (0, 2), "a": (0, 1)})


# ---------------------------------------------------------------- discrete sets


def test_discrete_tasks_are_checked_and_named() -> None:
    space = DiscreteTasks(["reach", "push", "lift"])
    assert (space.n, space.shape, DiscreteTasks(2).names) == (3, (), ("0", "1"))
    assert space.contains([0, 2, 3, -1, 0.5, np.nan]).tolist() == [True, True, False, False, False, False]
    checked = space.check([2.0, 0.0])
    assert (checked.tolist(), checked.dtype) == ([2, 0], np.int64)
    with pytest.raises(TaskError, match=r"plan: task 1 is 3\.0, expected an integer from 0 to 2"):
        space.check([0, 3], "plan")
    with pytest.raises(TaskError, match=r"expected \(n,\)"):
        space.check([[0, 1]])
    assert task_space_from_json(json.loads(json.dumps(space.to_json()))) == space
    assert space != DiscreteTasks(3)


def test_discrete_samples_are_uniform() -> None:
    counts = np.bincount(DiscreteTasks(4).sample(np.random.default_rng(0), 40_000), minlength=4)
    # each count is binomial(40,000, 1/4): standard deviation 87; five of them are 433
    assert (np.abs(counts - 10_000) < 433).all()


@pytest.mark.parametrize("names", [0, [], ["a", "a"]])
def test_impossible_discrete_sets_are_refused(names: Any) -> None:
    with pytest.raises(ValueError, match="at least one task, and different names"):
        DiscreteTasks(names)


def test_both_kinds_are_task_spaces_and_other_kinds_are_known_by_name() -> None:
    assert isinstance(BoxTasks({"a": (0, 1)}), TaskSpace)
    assert isinstance(DiscreteTasks(2), TaskSpace)
    assert task_space_from_json({"kind": "maze"}) == DescribedTasks("maze")
    with pytest.raises(KeyError, match="kind"):
        task_space_from_json({"size": 3})


# ---------------------------------------------------------------- episodes


def test_episodes_fill_in_what_is_not_known() -> None:
    batch = Episodes.of(np.array([[0.5], [1.0]]), [3, 4], value_l1=[0.1, 0.2])
    assert batch.lengths.tolist() == [1, 1]
    assert np.isnan(batch.successes).all()
    assert batch.returns.dtype == batch.scores["value_l1"].dtype == np.float64
    assert len(batch) == 2


def test_episodes_are_cut_in_all_their_parts() -> None:
    batch = Episodes.of(np.arange(3), [1, 2, 3], [10, 20, 30], [True, False, True], regret=[7, 8, 9])
    for cut in (batch[1:], batch[np.array([1, 2])], batch[np.array([False, True, True])]):
        assert cut.tasks.tolist() == [1, 2]
        assert cut.returns.tolist() == [2, 3]
        assert cut.lengths.tolist() == [20, 30]
        assert cut.successes.tolist() == [0, 1]
        assert cut.scores["regret"].tolist() == [8, 9]


def test_episodes_refuse_unequal_parts_and_returns_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match=r"lengths has shape \(1,\), expected \(2,\) as for tasks"):
        Episodes.of(np.zeros((2, 1)), [1, 2], [1])
    with pytest.raises(ValueError, match=r"regret has shape \(3,\)"):
        Episodes.of(np.zeros((2, 1)), [1, 2], regret=[1, 2, 3])
    with pytest.raises(ValueError, match=r"return nan of task \[5\.\] is not finite"):
        Episodes.of(np.array([[4.0], [5.0]]), [1, np.nan])
    with pytest.raises(ValueError, match="return -inf"):
        Episodes.of(np.zeros((1, 1)), [-np.inf])
    assert len(Episodes.of(np.zeros((0, 2)), [])) == 0


# ---------------------------------------------------------------- state files

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**130), 2**130)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=10)
    | st.builds(
        lambda dtype, n, fill: np.full((n, 2), fill).astype(dtype),
        st.sampled_from(["f4", "f8", "i8", "u8", "?"]),
        st.integers(0, 3),
        st.integers(0, 100),
    )
)
trees = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(trees)
@settings(max_examples=100, deadline=None)
def test_state_trees_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.npz"
    save_state(path, tree)
    assert same(tree, load_state(path))


def test_nan_and_numpy_scalars_survive(tmp_path: Path) -> None:
    save_state(
        tmp_path / "s", {"nan": float("nan"), "inf": -np.inf, "i": np.int64(3), "pair": (1, np.float32(0.5))}
    )
    state = load_state(tmp_path / "s")
    assert np.isnan(state["nan"])
    assert (state["inf"], state["i"], state["pair"]) == (-np.inf, 3, [1, 0.5])


def test_generators_continue_where_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rng.integers(100, dtype=np.int32)  # leaves half of a 64-bit draw in the generator
    save_state(tmp_path / "rng", {"rng": rng_state(rng)})
    other = np.random.default_rng(1)
    set_rng_state(other, load_state(tmp_path / "rng")["rng"])
    assert np.array_equal(
        other.integers(100, size=9, dtype=np.int32), rng.integers(100, size=9, dtype=np.int32)
    )
    assert np.array_equal(other.random(9), rng.random(9))


@pytest.mark.parametrize(
    "bad", [{}, {"bit_generator": "MT19937", "state": {}}, {"bit_generator": "PCG64"}, [1]]
)
def test_a_foreign_generator_state_is_refused(bad: Any) -> None:
    with pytest.raises(StateError, match="does not fit a PCG64"):
        set_rng_state(np.random.default_rng(0), bad)


@pytest.mark.parametrize("bits", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_other_kinds_of_generator_survive_too(tmp_path: Path, bits: type[np.random.BitGenerator]) -> None:
    rng = np.random.Generator(bits(5))
    save_state(tmp_path / "rng", rng_state(rng))
    other = np.random.Generator(bits(6))
    set_rng_state(other, load_state(tmp_path / "rng"))
    assert np.array_equal(other.random(700), rng.random(700))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused_with_a_cure(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "state.npz"
    save_state(path, {"a": np.arange(1000.0), "b": 3})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(StateError, match=r"state\.npz is truncated or is no state file .* delete it"):
        load_state(path)


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_foreign_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "foreign"
    path.write_bytes(content)
    with pytest.raises(StateError):
        load_state(path)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_a_damaged_byte_never_gives_another_state(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    state = {"a": np.arange(20.0), "b": [1, {"c": "text"}]}
    save_state(path, state)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = load_state(path)
    except StateError:
        return
    assert same(state, loaded)


def test_foreign_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], dtype=object))
    (tmp_path / "text").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
        archive.writestr("tree.json.npy", "{}")
    for name in ("other.npz", "array.npy", "pickled.npz", "text", "tree.zip"):
        with pytest.raises(StateError, match="no state file"):
            load_state(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "missing.npz")


def test_what_is_no_plain_value_is_refused_by_name_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    save_state(path, {"a": 1})
    with pytest.raises(TypeError, match="'/b/0' is a set"):
        save_state(path, {"a": 2, "b": [{1}]})
    with pytest.raises(TypeError, match="'/c' is an array of Python objects"):
        save_state(path, {"c": np.array([None])})
    assert load_state(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_file(path) as part:
        part.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as part:  # noqa: PT012
        part.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
