"""A comparison with settings, from the command line to the report: its sweep is compared like all else."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tyro
from rich.console import Console

from tutelage.experiments.compare import CompareConfig, compare
from tutelage.experiments.report import ReportConfig, report
from tutelage.experiments.reports.summary import summary_table
from tutelage.experiments.runs.locking import FolderError
from tutelage.experiments.runs.reading import read_grid
from tutelage.experiments.trainings.comparison import print_summary
from tutelage.experiments.trainings.taught_student import load_trained

SETTINGS = ("alp_gmm.fit-rate=50,100", "ppo.n-envs=8", "ppo.n-steps=16", "ppo.batch-size=64")
LABELS = {"alp-gmm:fit-rate=50": "alp-gmm.fit-rate-50", "alp-gmm:fit-rate=100": "alp-gmm.fit-rate-100"}


def test_settings_follow_one_option() -> None:
    words = ["--set", "alp-gmm.fit-rate=50,100", "ppo.learning-rate=1e-4", "--seeds", "2"]
    config = tyro.cli(CompareConfig, args=words)
    assert (config.set, config.seeds) == (("alp-gmm.fit-rate=50,100", "ppo.learning-rate=1e-4"), 2)


pytestmark = pytest.mark.xdist_group("sweep")  # all share one finished comparison


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> CompareConfig:
    """A finished comparison of `random` with a sweep of `alp-gmm`, with a report."""
    config = CompareConfig(
        env="point-mass-gate",
        teachers=("random", "alp-gmm"),
        students=("ppo",),
        seeds=1,
        steps=1024,
        evaluate_every=512,
        clips=False,
        workers=2,
        set=SETTINGS,
        out=tmp_path_factory.mktemp("sweep") / "out",
    )
    assert compare(config) == 0
    return config


def test_every_value_has_cells_rows_and_curves_of_its_own(swept: CompareConfig) -> None:
    out = swept.out
    assert out is not None
    for label, folder in LABELS.items():
        written = json.loads((out / "ppo" / folder / "seed-0" / "config.json").read_text())
        rate = int(label.rpartition("=")[2])
        assert written["task_teacher"] == label
        assert written["task_teacher_config"]["fit_rate"] == rate
        assert written["sweep"] == {"task_teacher": {"name": "alp-gmm", "values": {"fit_rate": rate}}}
        assert written["student_config"]["n_envs"] == 8
        assert written["student_config"]["kwargs"]["n_steps"] == 16
        assert list((out / "_grid" / folder).glob("events.*"))  # its mean over seeds
        assert load_trained(out / "ppo" / folder / "seed-0").num_timesteps == 1024
    assert "sweep" not in json.loads((out / "ppo/random/seed-0/config.json").read_text())
    grid = read_grid(out)
    assert [cell.state for cell in grid.cells] == ["finished"] * 3
    assert [cell.name for cell in grid.cells][1:] == [f"ppo/{folder}/seed-0" for folder in LABELS.values()]
    assert grid.description["task_teachers"]["alp-gmm:fit-rate=50"]["fit_rate"] == 50
    rows = summary_table(grid, resamples=10)
    assert [(row["task_teacher"], row["runs"]) for row in rows] == [
        ("random", 1),
        *((name, 1) for name in LABELS),
    ]
    page = (out / "report" / "report.html").read_text()
    assert all(label in page for label in LABELS)


def test_the_same_settings_continue_others_are_refused_and_values_are_added(swept: CompareConfig) -> None:
    assert swept.out is not None
    files = sorted(swept.out.glob("ppo/*/seed-0/episodes.parquet"))
    ages = [path.stat().st_mtime_ns for path in files]
    again = replace(swept, report=False)
    respelled = ("alp-gmm.fit_rate=50,1e2", "ppo.n_envs=8", "ppo.batch-size=64", "ppo.n-steps=16")
    assert compare(replace(again, set=respelled)) == 0
    assert [path.stat().st_mtime_ns for path in files] == ages  # finished cells are not run again
    with pytest.raises(
        FolderError, match=r"\(different: students.ppo.n_envs\); choose another --out, or repeat"
    ):
        compare(replace(again, set=(*SETTINGS[:1], "ppo.n-envs=4", *SETTINGS[2:])))
    # Another value is a further task teacher: the folder grows, and what is finished stays.
    assert compare(replace(again, set=("alp-gmm.fit-rate=50,60", *SETTINGS[1:]))) == 0
    assert [path.stat().st_mtime_ns for path in files] == ages
    written = json.loads((swept.out / "grid.json").read_text())
    assert set(written["task_teachers"]) == {"random", *LABELS, "alp-gmm:fit-rate=60"}
    assert set(written["sweep"]) == {*LABELS, "alp-gmm:fit-rate=60"}


def test_names_that_are_no_folders_are_read_and_drawn(make_grid: Callable[..., Path]) -> None:
    student, teacher = 'ppo:policy-kwargs={net_arch:[a]},policy="a/b"', "users.own:Curriculum"
    folder = make_grid(students=(student,), teachers=("random", teacher), seeds=2)
    rows = summary_table(read_grid(folder), resamples=10)
    assert [(row["student"], row["task_teacher"], row["runs"]) for row in rows] == [
        (student, "random", 2),
        (student, teacher, 2),
    ]
    page = report(ReportConfig(folder, resamples=10)).read_text()
    assert html.escape(student) in page
    pictures = list((folder / "report").glob("*.png"))
    assert pictures
    assert all(re.fullmatch(r"[\w.+-]+", picture.name) for picture in pictures)
    console = Console(record=True, width=300)
    print_summary(folder, console)
    assert teacher in console.export_text()
