"""Folders: whose they are, and descriptions that may grow but not change."""

import json
from pathlib import Path

import pytest

from tutelage.experiments.runs.locking import FolderError, check_kind, grow_config

GRID = {
    "env": {"name": "toy"},
    "task_teachers": {"random": {"a": 1}},
    "seeds": [0, 1],
    "steps": 5,
    "created": 1,
}


def _grow(path: Path, **changes: object) -> dict[str, object]:
    return grow_config(path, {**GRID, **changes}, ("seeds",), ("task_teachers",), ("created",))


def test_lists_and_tables_grow(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    _grow(path)
    _grow(path, seeds=[0, 1, 2], created=2)
    merged = _grow(path, task_teachers={"alp-gmm": {"b": 2}}, seeds=[0])
    assert merged == json.loads(path.read_text())
    assert merged["seeds"] == [0, 1, 2]
    assert merged["task_teachers"] == {"random": {"a": 1}, "alp-gmm": {"b": 2}}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 6}, "different: steps"),
        ({"env": {"name": "other"}}, r"different: env\.name"),
        ({"task_teachers": {"random": {"a": 2}}}, r"different: task_teachers\.random\.a"),
    ],
)
def test_what_changes_a_cell_is_refused(changes: dict[str, object], named: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    _grow(path)
    before = path.read_bytes()
    with pytest.raises(FolderError, match=named):
        _grow(path, **changes)
    assert path.read_bytes() == before


def test_a_folder_belongs_to_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_kind(tmp_path / "new", "grid.json")
    check_kind(tmp_path, "grid.json")
    (tmp_path / "grid.json").touch()
    check_kind(tmp_path, "grid.json")
    with pytest.raises(FolderError, match="is a folder of `tutelage compare`; choose another --out"):
        check_kind(tmp_path, "distill.json")
    with pytest.raises(FolderError, match="lies inside"):
        check_kind(tmp_path / "ppo" / "random", "specialists.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FolderError, match="the folder that you are in"):
        check_kind(Path(""), "grid.json")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FolderError, match=r"holds something else \(thesis.tex\)"):
        check_kind(tmp_path, "grid.json")
    with pytest.raises(FolderError, match="is a file"):
        check_kind(tmp_path / "thesis.tex", "grid.json")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "zarr.json").touch()
    with pytest.raises(FolderError, match="`tutelage data`"):
        check_kind(tmp_path / "data", "specialists.json")
