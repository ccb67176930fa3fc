"""Levels are kept once, in a file that grows at its end and survives a kill at any moment."""

from pathlib import Path

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.levels import LevelSpace
from tutelage.envs.contract.state import StateError
from tutelage.experiments.runs.levels import LevelStore, read_levels
from tutelage.experiments.runs.records import RunRecord, read_table


class Levels(LevelSpace):
    shape, dtype = (2, 2), np.dtype(np.uint8)


def level(*cells: int) -> np.ndarray:
    return np.array(cells, np.uint8).reshape(2, 2)


A, B, C, D = level(1, 0, 0, 0), level(0, 1, 0, 0), level(0, 0, 1, 0), level(0, 0, 0, 1)


def test_ids_count_different_levels_in_the_order_of_their_coming(tmp_path: Path) -> None:
    store = LevelStore(tmp_path / "levels.npy", Levels())
    assert store.index(np.stack([B, A, B])).tolist() == [0, 1, 0]
    assert store.index(np.stack([C, A])).tolist() == [2, 1]
    np.testing.assert_array_equal(store.levels, [B, A, C])
    assert store.index(np.empty((0, 2, 2), np.uint8)).tolist() == []
    many = np.arange(100, dtype=np.uint8)[:, None, None] + np.zeros((2, 2), np.uint8)
    ids = store.index(many)
    np.testing.assert_array_equal(store.levels[ids], many)
    assert len(store) == 103


def test_a_save_appends_what_is_new_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    path = tmp_path / "levels.npy"
    store = LevelStore(path, Levels())
    store.save()
    assert read_levels(tmp_path) is None
    store.index(np.stack([A, B]))
    store.save()
    size, before = path.stat().st_size, path.read_bytes()
    store.index(np.stack([B, C]))
    store.save()
    assert path.stat().st_size == size + 4  # one level more, of four bytes
    assert path.read_bytes()[size - 8 : size] == before[-8:]
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), [A, B, C])


def test_a_resumed_store_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "levels.npy"
    store = LevelStore(path, Levels())
    store.index(np.stack([A, B, C]))
    store.save()
    again = LevelStore(path, Levels())
    again.resume(1)
    again.save()  # nothing new, and B and C are gone
    np.testing.assert_array_equal(read_levels(tmp_path), [A])
    assert again.index(np.stack([D, A])).tolist() == [1, 0]
    again.save()
    np.testing.assert_array_equal(read_levels(tmp_path), [A, D])


def test_rows_that_no_header_counts_are_not_read_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "levels.npy"
    store = LevelStore(path, Levels())
    store.index(np.stack([A, B]))
    store.save()
    with path.open("ab") as file:
        file.write(b"\x07\x07\x07")  # killed while it appended
    np.testing.assert_array_equal(read_levels(tmp_path), [A, B])
    again = LevelStore(path, Levels())
    again.resume(2)
    again.index(np.stack([C]))
    again.save()
    np.testing.assert_array_equal(read_levels(tmp_path), [A, B, C])


@pytest.mark.parametrize("fault", ["missing", "short", "foreign", "other shape", "doubled"])
def test_a_damaged_file_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "levels.npy"
    store = LevelStore(path, Levels())
    store.index(np.stack([A, B, C]))
    store.save()
    if fault == "missing":
        path.unlink()
    elif fault == "short":
        path.write_bytes(path.read_bytes()[:-5])
    elif fault == "foreign":
        path.write_bytes(b"no array" * 30)
    elif fault == "other shape":
        np.save(path, np.zeros((3, 4), np.uint8))
    else:
        np.save(path, np.stack([A, A, B]))
    with pytest.raises(StateError, match=r"levels.npy is damaged .*delete its folder to start anew"):
        LevelStore(path, Levels()).resume(3)


def test_python_objects_are_no_levels(tmp_path: Path) -> None:
    space = Levels()
    space.dtype = np.dtype(object)
    with pytest.raises(TypeError, match="Python objects"):
        LevelStore(tmp_path / "levels.npy", space)


def test_a_record_holds_ids_and_is_cut_back_with_its_levels(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, Levels())
    record.add_episodes(10, Episodes.of(np.stack([A, B]), [1, 2]))
    record.write()
    checkpoint = record.state_dict()
    record.add_episodes(20, Episodes.of(np.stack([B, C]), [3, 4]))
    record.write()
    assert read_table(tmp_path / "episodes.parquet")["task/level"].to_pylist() == [0, 1, 1, 2]
    tasks, returns = record.recent(3)
    np.testing.assert_array_equal(tasks, [B, B, C])
    assert returns.tolist() == [2, 3, 4]
    again = RunRecord(tmp_path, Levels())
    again.load_state_dict(checkpoint)
    again.add_episodes(20, Episodes.of(np.stack([D, A]), [5, 6]))
    again.write()
    assert read_table(tmp_path / "episodes.parquet")["task/level"].to_pylist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(read_levels(tmp_path), [A, B, D])
