"""Folders that earlier versions wrote still report, to the same tables: one of each kind, kept as it was."""

import csv
import math
import shutil
from pathlib import Path

import pytest

from tutelage.experiments.report import ReportConfig, report

GOLDEN = Path(__file__).parent / "golden"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def _assert_equal(new: dict[str, str], old: dict[str, str]) -> None:
    for key, value in old.items():
        try:
            assert math.isclose(float(new[key]), float(value), rel_tol=1e-9, abs_tol=1e-9), key
        except ValueError:  # words, and figures that cannot be had
            assert new[key] == value, key


@pytest.mark.parametrize(
    ("kind", "table"), [("compare", "summary"), ("distill", "summary"), ("distill", "runs")]
)
def test_a_folder_of_an_earlier_version_reports_as_it_did(kind: str, table: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / kind, tmp_path / kind)
    report(ReportConfig(tmp_path / kind, out=tmp_path / "new"))
    old, new = (_rows(folder / f"{table}.csv") for folder in (GOLDEN / kind / "report", tmp_path / "new"))
    assert len(old) == len(new) >= 2
    for before, now in zip(old, new, strict=True):
        _assert_equal(now, before)
