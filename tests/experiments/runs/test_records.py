"""Tables that grow by parts: every checkpoint writes what is new, and a resumed table is a whole one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.envs.contract.state import StateError
from tutelage.experiments.runs import records
from tutelage.experiments.runs.records import Table, read_table

COLUMNS = {"step": np.int64, "value": np.float64, "name": object}


def _add(table: Table, first: int, count: int) -> None:
    steps = np.arange(first, first + count)
    table.append(step=steps, value=steps / 8, name=[f"row {i}" for i in steps])


def test_a_checkpoint_writes_what_is_new_alone(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.parquet", COLUMNS, kept=10)
    _add(table, 0, 5000)
    table.write()
    [first] = (tmp_path / "t.parquet.parts").iterdir()
    before = first.stat()
    _add(table, 5000, 3)
    table.write()
    _, second = sorted((tmp_path / "t.parquet.parts").iterdir())
    assert first.stat() == before
    assert pd.read_parquet(second)["step"].tolist() == [5000, 5001, 5002]
    assert table.recent(4)["step"].tolist() == [4999, 5000, 5001, 5002]
    assert len(table.recent()["step"]) == 10  # no more are kept in memory
    assert read_table(tmp_path / "t.parquet").num_rows == 5003
    table.finish()
    assert pd.read_parquet(tmp_path / "t.parquet")["step"].tolist() == list(range(5003))
    assert not (tmp_path / "t.parquet.parts").exists()


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.parquet", COLUMNS)
    table.write()
    _add(table, 0, 2)
    table.write()
    table.finish()
    assert pd.read_parquet(tmp_path / "t.parquet").columns.tolist() == ["step", "value", "name"]


def test_many_parts_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_PARTS", 3)
    table = Table(tmp_path / "t.parquet", COLUMNS, kept=2)
    for i in range(10):
        _add(table, i, 1)
        table.write()
    assert len(list((tmp_path / "t.parquet.parts").glob("*"))) <= 3
    assert read_table(tmp_path / "t.parquet")["step"].to_pylist() == list(range(10))


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    lost=st.integers(0, 6),
    kept=st.sampled_from([None, 2]),
)
def test_a_table_that_was_cut_back_goes_on_as_a_whole_one(
    counts: list[int], lost: int, kept: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    table, rows = Table(path, COLUMNS, kept), 0
    for count in counts:
        _add(table, rows, count)
        rows += count
        table.write()
    at = max(0, rows - lost)
    again = Table(path, COLUMNS, kept)
    again.resume(at)
    _add(again, at, 4)
    again.write()
    again.finish()
    assert pd.read_parquet(path)["step"].tolist() == list(range(at + 4))


def test_damage_is_named(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.parquet", COLUMNS)
    _add(table, 0, 5)
    table.write()
    [part] = (tmp_path / "t.parquet.parts").iterdir()
    with pytest.raises(StateError, match="it has 5 rows; the checkpoint was made after 9"):
        Table(tmp_path / "t.parquet", COLUMNS).resume(9)
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(StateError, match="delete its folder to start anew"):
        Table(tmp_path / "t.parquet", COLUMNS).resume(5)
