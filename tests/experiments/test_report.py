import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tutelage.envs.contract.tasks import BoxTasks, DiscreteTasks
from tutelage.experiments.report import ReportConfig, report
from tutelage.experiments.reports.summary import findings, gather, readable, summary_table
from tutelage.experiments.runs.reading import GridError, read_grid
from tutelage.experiments.runs.statistics import holm, iqm, welch


def set_success(folder, cell, value):
    """Make every evaluation of a cell master the given share of the target test set."""
    path = folder / "ppo" / cell / "evaluations.parquet"
    table = pd.read_parquet(path)
    counts = table["test_set"].map({"target": 30, "uniform": 64})
    table["success"] = (table["task_index"] < value * counts).astype(float)
    table.to_parquet(path)


@pytest.fixture
def known(make_grid):
    """Shares mastered: target 0, 0.1, 0, 0.1, 0; alp-gmm 0.5 to 0.9; random as the baseline, turned round."""
    folder = make_grid(steps=4000, every=2000)
    for seed in range(5):
        set_success(folder, f"target/seed-{seed}", 0.1 * (seed % 2))
        set_success(folder, f"random/seed-{seed}", 0.1 * ((seed + 1) % 2))
        set_success(folder, f"alp-gmm/seed-{seed}", 0.5 + 0.1 * seed)
    return folder


def test_table_by_hand(known):
    rows = {row["task_teacher"]: row for row in summary_table(read_grid(known), resamples=200)}
    assert next(iter(rows)) == "target"
    alp, base = rows["alp-gmm"], rows["target"]
    assert (alp["runs"], alp["runs_asked"], alp["step"], alp["unit"]) == (5, 5, 4000, "% mastered")
    assert alp["target_iqm"] == pytest.approx((60 + 70 + 80) / 3)
    assert alp["target_mean"] == pytest.approx(70)
    assert base["target_mean"] == pytest.approx((0 + 10 + 0 + 10 + 0) / 5)
    assert alp["improvement"] == 1
    # random 10 0 10 0 10 against 0 10 0 10 0: 9 of 25 pairs won, 12 tied, (9 + 6) / 25
    assert rows["random"]["improvement"] == pytest.approx(0.6)
    assert alp["area"] == pytest.approx(alp["target_iqm"])  # the same at every evaluation
    assert alp["difference"] == pytest.approx(70 - 4)
    p = [welch([50, 60, 70, 80, 90], [0, 10, 0, 10, 0]).p, welch([10, 0, 10, 0, 10], [0, 10, 0, 10, 0]).p]
    assert [alp["difference_p_holm"], rows["random"]["difference_p_holm"]] == pytest.approx(list(holm(p)))
    assert np.isnan(base["difference_p"])
    assert alp["task_teacher_share"] == pytest.approx(0.03)
    assert alp["target_iqm_low"] < alp["target_iqm"] < alp["target_iqm_high"]


def test_findings_tell_clear_from_unclear(known):
    grid = read_grid(known)
    rows = summary_table(grid, resamples=200)
    said = " ".join(findings(grid, rows, "ppo"))
    assert "alp-gmm has the highest mean on the test set “target”: 70 % mastered" in said
    assert re.search(r"Clearly above the baseline, target: alp-gmm \(\+66 .*p < 0\.001\)\.", said)
    assert re.search(r"Not clearly different from the baseline, target: random \(\+2 ", said)
    assert "alp-gmm is clearly ahead of random and target" in said
    assert "rough" not in said  # five runs each


def test_a_draw_has_no_winner(known):
    for name in ("target", "random", "alp-gmm"):
        for seed in range(5):
            set_success(known, f"{name}/seed-{seed}", 0.5)
    grid = read_grid(known)
    said = findings(grid, summary_table(grid, resamples=50), "ppo")
    assert said[0] == (
        "After 4,000 steps, all 3 task teachers have the same mean on the test set “target”: 50 % mastered."
    )
    assert not re.search("highest|[Cc]learly (above|ahead)", " ".join(said))


def test_chance_alone_is_rarely_called_clear():
    # 5 task teachers of equal worth against a baseline, 5 runs each: with Holm at most 5 % of comparisons
    # hold any false finding. 300 trials: 5 % has a standard error of 1.3 %.
    rng, false = np.random.default_rng(0), 0
    for _ in range(300):
        runs = rng.normal(50, 10, (6, 5))
        false += bool((holm([welch(x, runs[0]).p for x in runs[1:]]) < 0.05).any())
    assert false / 300 < 0.10


def test_few_runs_and_missing_runs_are_said(known):
    shutil.rmtree(known / "ppo/random/seed-0")
    table = pd.read_parquet(known / "ppo/target/seed-4/evaluations.parquet")
    table[table["step"] < 4000].to_parquet(known / "ppo/target/seed-4/evaluations.parquet")
    grid = read_grid(known)
    rows = summary_table(grid, resamples=100)
    by_name = {row["task_teacher"]: row for row in rows}
    assert (by_name["random"]["runs"], by_name["target"]["runs"]) == (4, 4)
    assert readable(by_name["random"])["runs"] == "4 of 5"
    said = " ".join(findings(grid, rows, "ppo"))
    assert "With as few as 4 runs" in said
    assert "2 runs have no evaluation at step 4,000" in said


def test_a_grid_under_way_is_compared_where_half_of_the_runs_are(make_grid):
    folder = make_grid(seeds=2, steps=6000, every=1000)
    ends = {"target": (6000, 2000), "random": (4000, 4000), "alp-gmm": (1000, 3000)}
    for name, steps in ends.items():
        for seed, end in enumerate(steps):
            path = folder / f"ppo/{name}/seed-{seed}/evaluations.parquet"
            table = pd.read_parquet(path)
            table[table["step"] <= end].to_parquet(path)
    results = gather(read_grid(folder), "ppo")
    assert results.step == 4000  # reached by 3 of 6 runs (6000, 4000, 4000), 5000 only by 1
    assert {name: len(runs) for name, runs in results.final["target"].items()} == {
        "target": 1,
        "random": 2,
        "alp-gmm": 0,
    }
    rows = summary_table(read_grid(folder), resamples=50)
    assert [readable(row)["p (Holm)"] for row in rows] == ["–"] * 3
    assert "no difference can be tested" in " ".join(findings(read_grid(folder), rows, "ppo"))


def test_a_report_end_to_end(make_grid):
    folder = make_grid(students=("ppo", "sac"), steps=6000, every=2000)
    failed = folder / "sac/random/seed-2"
    status = {"state": "failed", "step": 2000, "steps": 6000, "message": "ValueError: NaN"}
    (failed / "status.json").write_text(json.dumps(status))
    (failed / "log.txt").write_text("Traceback\nValueError: the environment <b>returned</b> NaN\n")
    (failed / "evaluations.parquet").unlink()
    page = report(ReportConfig(folder, resamples=100))
    assert page == folder / "report" / "report.html"
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,)|https?://|@import|url\(", text)
    pictures = {path.stem for path in page.parent.glob("*.png")}
    kinds = ["curves", "curves-seconds", "final", "improvement", "profiles", "mastery", "proposals", "time"]
    assert pictures == {f"{kind}-{student}" for kind in kinds for student in ("ppo", "sac")}
    assert text.count("<img ") == 16
    for said in ("29 of 30 runs finished", "sac/random/seed-2", "2,000 of 6,000", "fit_rate", "torch 2.13.0"):
        assert said in text, said
    assert "the environment &lt;b&gt;returned&lt;/b&gt; NaN" in text
    assert "tutelage compare --preset quick --out runs/quick" in text
    markdown = (page.parent / "summary.md").read_text()
    assert "| alp-gmm | 5 |" in markdown
    assert "`sac/random/seed-2`: failed, ValueError: NaN" in markdown
    with (page.parent / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["student"], row["task_teacher"]) for row in rows[:2]] == [
        ("ppo", "target"),
        ("ppo", "random"),
    ]
    expected = summary_table(read_grid(folder), resamples=100)
    assert [float(row["target_iqm"]) for row in rows] == [row["target_iqm"] for row in expected]
    assert not list(page.parent.glob("*.part"))


@pytest.mark.parametrize(
    "options",
    [
        {"space": BoxTasks({"height": (0, 3)}), "students": ("sac",)},
        {"space": BoxTasks({"height": (0, 3), "spacing": (0, 6), "width": (0, 1)}), "per_dimension": 4},
        {"space": DiscreteTasks(["reach", "push", "lift"])},
        {"space": DiscreteTasks(1), "defined": False, "return_range": None},
        {"defined": False},
        {"defined": False, "return_range": None},
        {"seeds": 1},
        {"teachers": ("random",)},
    ],
    ids=[
        "1-D",
        "3-D",
        "discrete",
        "one task",
        "no success",
        "no success, no range",
        "one seed",
        "one task teacher",
    ],
)
def test_reports_of_other_grids(make_grid, options):
    folder = make_grid(**({"seeds": 2, "steps": 4000, "every": 2000} | options))
    page = report(ReportConfig(folder, out=folder / "elsewhere", test_set="uniform", resamples=50))
    assert page.parent == folder / "elsewhere"
    assert len(list(page.parent.glob("*.png"))) >= (7 if options.get("teachers") else 8)
    unit = "mean return, IQM" if options.get("defined") is False else "% mastered, IQM"
    assert f"uniform: {unit}" in page.read_text()
    assert " nan" not in page.read_text().lower()


def test_levels_have_a_report_without_maps(make_grid):
    folder = make_grid(seeds=2, steps=4000, every=2000)
    description = json.loads((folder / "grid.json").read_text())
    description["env"]["task_space"] = {"kind": "maze", "size": [5, 5]}
    (folder / "grid.json").write_text(json.dumps(description))
    sets = {"target": np.zeros((30, 5, 5)).tolist(), "uniform": np.zeros((64, 5, 5)).tolist()}
    (folder / "test_sets.json").write_text(json.dumps(sets))
    page = report(ReportConfig(folder, resamples=50))
    kinds = {path.stem for path in page.parent.glob("*.png")}
    assert {"curves-ppo", "final-ppo", "time-ppo"} < kinds
    assert not kinds & {"mastery-ppo", "proposals-ppo"}


def test_scores_are_returns_where_success_is_undefined(make_grid):
    folder = make_grid(seeds=3, steps=4000, every=2000, defined=False)
    row = summary_table(read_grid(folder), resamples=50)[0]
    table = pd.concat(pd.read_parquet(folder / f"ppo/target/seed-{k}/evaluations.parquet") for k in range(3))
    last = table[(table["step"] == 4000) & (table["test_set"] == "target")]
    means = [float(part.mean()) for part in np.split(last["return"].to_numpy(), 3)]
    assert row["target_iqm"] == pytest.approx(float(iqm(means)))
    assert row["unit"] == "mean return"


def test_a_grid_that_has_just_begun_has_a_report(make_grid):
    folder = make_grid(seeds=2, steps=4000, every=2000)
    shutil.rmtree(folder / "ppo")
    text = report(ReportConfig(folder)).read_text()
    assert "No run of ppo has been evaluated yet." in text
    assert "0 of 6 runs finished" in text
    assert text.count("there is no such run folder") == 6


def test_the_command_names_mistakes_in_one_line(make_grid):
    folder = make_grid(seeds=1, steps=2000, every=2000)
    with pytest.raises(GridError, match="unknown test set 'uniforn'; did you mean 'uniform'"):
        report(ReportConfig(folder, test_set="uniforn"))
    command = [sys.executable, "-m", "tutelage.experiments.report", str(folder / "ppo")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("tutelage: ")
    assert "lies inside a grid" in run.stderr


def test_the_table_needs_no_plotting(make_grid):
    folder = make_grid(seeds=2, steps=2000, every=2000)
    code = (
        "import sys; from tutelage.experiments.runs.reading import read_grid; "
        "from tutelage.experiments.reports.summary import summary_table; "
        f"assert len(summary_table(read_grid({str(folder)!r}))) == 3; "
        "sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tables_can_be_at_equal_charged_steps(make_grid):
    """A task teacher that pays three steps for each of its student's is compared at a third of them."""
    folder = make_grid(teachers=("random", "alp-gmm"), seeds=2, steps=6000, every=1000)
    equal, charged = (
        {row["task_teacher"]: row for row in summary_table(read_grid(folder), over=over)}
        for over in ("steps", "charged")
    )
    assert charged["random"]["target_mean"] == pytest.approx(equal["random"]["target_mean"])
    for path in folder.glob("ppo/*/seed-*/evaluations.parquet"):
        table = pd.read_parquet(path)
        table["charged_steps"] = table["step"] * (3 if "alp-gmm" in str(path) else 1)
        table.to_parquet(path)
    grid = read_grid(folder)
    rows = {row["task_teacher"]: row for row in summary_table(grid, over="charged")}
    assert rows["alp-gmm"]["step"] == rows["random"]["step"] == 6000
    scores = grid.scores("ppo", "target", "success").values
    assert rows["alp-gmm"]["target_mean"] == pytest.approx(100 * scores["alp-gmm"][:, 2].mean())
    assert rows["random"]["target_mean"] == pytest.approx(100 * scores["random"][:, 6].mean())
    page = report(ReportConfig(folder, over="charged", resamples=50)).read_text()
    assert "After 6,000 charged steps" in page
