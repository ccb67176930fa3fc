"""Tables and report of a folder of `tutelage distill` made up by hand, with figures worked out beside."""

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tutelage.experiments.report import ReportConfig, report
from tutelage.experiments.reports import plots
from tutelage.experiments.reports.distill_results import read_distillation
from tutelage.experiments.reports.distill_speed import needed
from tutelage.experiments.reports.distill_summary import (
    cost_table,
    print_tables,
    run_rows,
    speed_table,
    success_table,
    summary_rows,
    with_interval,
)
from tutelage.experiments.runs.reading import GridError
from tutelage.experiments.runs.statistics import Estimate, iqm, probability_of_improvement
from tutelage.experiments.trainings.distill_presets import test_sets
from tutelage.students.distillation.machinery.registry import METHODS

test_sets.__test__ = False  # type: ignore[attr-defined]  # a name of the domain, not a test

SETS = list(test_sets("reach", "strong"))
MAIN = SETS[0]
SUCCESS = {
    "dagger": [0.80, 0.90, 0.70, 0.85, 1.00],
    "bc": [0.40, 0.50, 0.90, 0.45, 0.50],
    "pixels-ppo": [0.00, 0.10, 0.00, 0.05, 0.10],
}
EXPERT = [1.0, 1.0, 0.8, 1.0, 1.0]
EXPERT_SECONDS = 10.0


def write_cell(folder: Path, method: str, seed: int) -> None:
    """A finished cell, with evaluations at 0, 1/2 and all of its budget: 0, half, all of its success."""
    cell, success = folder / method / f"seed-{seed}", SUCCESS[method][seed]
    cell.mkdir(parents=True)
    expert = method != "pixels-ppo"
    seconds = {"expert": EXPERT_SECONDS * expert, "rollout": 20.0, "learning": 30.0 + seed, "evaluation": 5.0}
    results: dict[str, Any] = {
        "task": "reach",
        "method": method,
        "seed": seed,
        "success": dict.fromkeys(SETS, success),
        "action_error": {"elbow": 0.1 * (seed + 1), "wrist": 0.2} if expert else None,
        "frames": 1000,
        "queries": 1000 * expert,
        "updates": 60,
        "expert_steps": 500 * expert,
        "environment_steps": 1000 + 500 * expert,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "total_seconds": sum(seconds.values()),
    }
    (cell / "results.json").write_text(json.dumps(results))
    (cell / "status.json").write_text(json.dumps({"state": "finished", "message": ""}))
    config = {"task": "reach", "method": method, "seed": seed, "loss": "kl" if method == "bc" else "huber"}
    (cell / "config.json").write_text(json.dumps(config))
    rows = []
    for share in (0.0, 0.5, 1.0):
        for name in SETS if share == 1 else SETS[:1]:
            for index in range(20):
                won = index < round(20 * share * success)
                rows.append((100 + 900 * share, 50 * share, share, name, index, won))
    columns = ["step", "seconds", "share", "test_set", "task_index", "success"]
    pd.DataFrame(rows, columns=columns).to_parquet(cell / "evaluations.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "distill-reach"
    for method in SUCCESS:
        for seed in range(5):
            write_cell(out, method, seed)
    for seed, success in enumerate(EXPERT):
        expert = out / "experts" / f"seed-{seed}"
        expert.mkdir(parents=True)
        found = {"success": dict.fromkeys(SETS, success), "seconds": EXPERT_SECONDS, "steps": 500}
        (expert / "results.json").write_text(json.dumps({**found, "facts": {"method": "sb3"}}))
    config = {"obs": "rgb", "cameras": ["front"], "size": 64, "looks": "strong", "task": "reach"}
    run = {
        "created": "2026-11-21",
        "versions": {"torch": "2.13.0"},
        "machine": {"cores": 2},
        "config": config,
    }
    runs = [
        {**run, "command": "tutelage distill --task reach", "methods": ["dagger"], "seeds": [0, 1, 2, 3, 4]},
        {
            **run,
            "command": "tutelage distill --task reach --method bc pixels-ppo <2>",
            "methods": ["bc", "pixels-ppo"],
            "seeds": [0, 1, 2, 3, 4],
        },
    ]
    description = {"task": "reach", "baseline": "dagger", "test_sets": SETS, "runs": runs}
    (out / "distill.json").write_text(json.dumps(description))
    return out


def test_figures_of_the_tables(folder: Path) -> None:
    found = read_distillation(folder)
    assert (found.methods, found.baseline, found.main) == (("dagger", "bc", "pixels-ppo"), "dagger", MAIN)
    rows = {row["method"]: row for row in summary_rows(found, resamples=200)}
    assert list(rows) == ["dagger", "bc", "pixels-ppo"]
    dagger, bc, ppo = rows.values()
    assert dagger[MAIN] == pytest.approx(100 * (0.8 + 0.9 + 0.7 + 0.85 + 1.0) / 5)  # 85
    assert dagger[f"{MAIN}_iqm"] == pytest.approx(100 * (0.8 + 0.85 + 0.9) / 3)  # without 0.7 and 1
    assert bc[MAIN] == pytest.approx(55)
    assert bc[f"{MAIN}_low"] < 55 < bc[f"{MAIN}_high"]
    # each run by the expert of its seed: 80, 90, 70 / 0.8 = 87.5, 85, 100
    assert dagger["share"] == pytest.approx((80 + 90 + 87.5 + 85 + 100) / 5)
    # pairs of bc above dagger: 0.9 beats 0.8, 0.7, 0.85 and ties with 0.9: 3.5 of 25
    assert bc["improvement"] == pytest.approx(3.5 / 25)
    assert ppo["improvement"] == 0
    assert math.isnan(dagger["improvement"])
    assert math.isnan(dagger["difference_p_holm"])
    assert bc["difference_value"] == pytest.approx(55 - 85)
    assert ppo["difference_p_holm"] < bc["difference_p_holm"]
    assert (dagger["environment_steps"], ppo["environment_steps"]) == (1500, 1000)
    assert dagger["learning_seconds"] == pytest.approx(32)  # of 30, 31, 32, 33, 34
    assert (dagger["total_seconds"], ppo["total_seconds"]) == (pytest.approx(67), pytest.approx(57))


def test_speed_by_hand(folder: Path) -> None:
    """Success is 0, half and all of it at 100, 550 and 1000 frames; 20 episodes: 0.85 / 2 is 8 of 20."""
    found = read_distillation(folder)
    rows = {row["method"]: row for row in summary_rows(found, resamples=100)}
    dagger, ppo = rows["dagger"], rows["pixels-ppo"]
    # (start + 2 middle + end) / 4 of each run
    assert dagger["over_frames"] == pytest.approx((160 / 4 + 180 / 4 + 140 / 4 + 165 / 4 + 200 / 4) / 5)
    # pixels-ppo, which no expert is charged to, ends after 50 s: 3/5 of the way from 35 to 60 for the others
    assert dagger["common_seconds"] == ppo["common_seconds"] == 50
    assert dagger["after_seconds"] == pytest.approx((64 + 72 + 56 + 67 + 80) / 5)
    assert ppo["after_seconds"] == pytest.approx(100 * (0 + 0.1 + 0 + 0.05 + 0.1) / 5)
    # Only the run with 100 % has 95 % of its expert's; 70 % is short of 0.95 * 80 % too.
    assert needed(found, "dagger") == [(math.inf, math.inf)] * 4 + [(1000, 60)]
    assert (dagger["runs_enough"], dagger["frames_needed"]) == (1, math.inf)
    assert speed_table(list(rows.values()))[1][3:] == ["1 of 5", "–", "–"]


def test_no_success_is_not_as_good_as_an_expert_without_any(folder: Path) -> None:
    for seed in range(5):
        path = folder / "experts" / f"seed-{seed}" / "results.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "success": dict.fromkeys(SETS, 0.0)}))
    # bc: nothing at 100 frames; 4, 5, 9, 4, 5 of 20 at 550, after 25 s and the 10 of the expert.
    assert needed(read_distillation(folder), "bc") == [(550, 35)] * 5


def test_speed_is_not_told_of_one_evaluation(folder: Path) -> None:
    """Other test sets are evaluated at the end alone, when slower methods would have had no time yet."""
    found = read_distillation(folder)
    found = replace(found, test_sets=("looks beyond", *SETS[:-1]))
    rows = summary_rows(found, resamples=100)
    assert speed_table(rows)[0][2] == "success after – s"
    assert {cell for _, *cells in speed_table(rows)[1:] for cell in cells} == {"–"}


def test_tables_in_words(folder: Path) -> None:
    found = read_distillation(folder)
    rows = summary_rows(found, resamples=200)
    head, dagger, *_, expert = success_table(found, rows)
    assert head == ["success, %", "runs", *SETS, "% of the expert's", "P(beats baseline)"]
    assert dagger[:2] == ["dagger (baseline)", "5"]
    assert dagger[2].startswith("85.0 [")
    assert dagger[-1] == "–"
    assert expert[:2] == ["expert", "5"]
    assert expert[2].startswith("96.0 [")
    costs = cost_table(rows)
    assert costs[1][:6] == ["dagger", "1,000", "500", "1,500", "1,000", "60"]
    assert costs[3][6:] == ["0.0", "20.0", "32.0", "5.0", "57.0"]
    assert with_interval({"x": math.nan, "x_low": math.nan}, "x") == "–"


def test_curves_have_the_experts_seconds_where_they_are_charged(folder: Path) -> None:
    runs = {run.name: run for run in read_distillation(folder).runs}
    frames, seconds, success = runs["dagger/seed-0"].curves[MAIN]
    assert frames.tolist() == [100, 550, 1000]
    assert seconds.tolist() == [10, 35, 60]
    assert success.tolist() == [0, 40, 80]
    assert runs["pixels-ppo/seed-0"].curves[MAIN][1].tolist() == [0, 25, 50]


def test_the_report_is_one_page_with_pictures_and_tables(folder: Path) -> None:
    page = report(ReportConfig(folder, resamples=200))
    text = page.read_text()
    assert page == folder / "report" / "report.html"
    assert text.count("data:image/png;base64,") == len(list(page.parent.glob("*.png"))) == 6
    assert "http" not in text.replace("http-equiv", "")
    assert "--method bc pixels-ppo &lt;2&gt;" in text
    assert "15 of 15 runs finished" in text
    assert (
        "dagger has the highest mean success on held-out looks: 85.0 % (5 runs), 88.5 % of the expert" in text
    )
    assert "Methods were not given the same settings: loss: dagger huber, bc kl, pixels-ppo huber." in text
    names = {path.stem for path in page.parent.glob("*.png")}
    assert names == {"curves", "curves-seconds", "final", "improvement", "action-error", "time"}
    with (page.parent / "summary.csv").open() as file:
        summary = list(csv.DictReader(file))
    assert [row["method"] for row in summary] == ["dagger", "bc", "pixels-ppo"]
    assert float(summary[1][MAIN]) == pytest.approx(55)
    assert summary[0]["improvement"] == ""
    with (page.parent / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 15
    assert (runs[2]["method"], runs[2]["seed"], float(runs[2][MAIN])) == ("dagger", "2", 0.7)
    assert float(runs[2]["action error, elbow"]) == pytest.approx(0.3)
    markdown = (page.parent / "summary.md").read_text()
    assert "| bc | 5 | 48.3 [" in markdown  # the IQM: (0.45 + 0.5 + 0.5) / 3
    assert "Versions: torch 2.13.0." in markdown


def test_cells_that_are_missing_failed_or_damaged_are_named(folder: Path) -> None:
    status = {"state": "failed", "message": "RuntimeError: no more memory"}
    (folder / "bc/seed-1/status.json").write_text(json.dumps(status))
    (folder / "bc/seed-2/results.json").write_text("{")
    (folder / "bc/seed-3/evaluations.parquet").write_bytes(b"PAR1")
    (folder / "bc/seed-3/status.json").write_text(json.dumps({"state": "running"}))
    (folder / "experts/seed-4/results.json").unlink()
    for path in sorted((folder / "bc/seed-4").iterdir()):
        path.unlink()
    found = read_distillation(folder)
    states = {run.name: run.state for run in found.of("bc")}
    assert list(states.values()) == ["finished", "failed", "failed", "running", "missing"]
    [row] = [row for row in summary_rows(found, resamples=100) if row["method"] == "bc"]
    assert (row["runs"], row["runs_asked"], row[MAIN]) == (1, 5, pytest.approx(40))
    assert [row["state"] for row in run_rows(found)].count("finished") == 11
    text = report(ReportConfig(folder, resamples=100)).read_text()
    assert "4 of 15 runs are not finished" in text
    assert "RuntimeError: no more memory" in text
    assert "its evaluations cannot be read" in text


def test_one_run_of_one_method_and_none_at_all(folder: Path) -> None:
    description = json.loads((folder / "distill.json").read_text())
    description["runs"] = [{**description["runs"][0], "seeds": [0]}]
    (folder / "distill.json").write_text(json.dumps(description))
    text = report(ReportConfig(folder, resamples=100)).read_text()
    assert "dagger has a mean success on held-out looks: 80.0 % (1 run)" in text
    (folder / "dagger/seed-0/status.json").unlink()
    (folder / "dagger/seed-0/evaluations.parquet").unlink()
    assert "No run has finished yet." in report(ReportConfig(folder, resamples=100)).read_text()


def test_another_test_set_and_wrong_folders(folder: Path, tmp_path: Path) -> None:
    page = report(ReportConfig(folder, resamples=100, test_set="looks beyond")).read_text()
    assert "success on looks beyond" in page
    assert "states that the student meets on held-out looks" in page  # where errors were measured
    with pytest.raises(GridError, match="unknown test set 'looks beyon'; did you mean 'looks beyond'"):
        report(ReportConfig(folder, test_set="looks beyon"))
    with pytest.raises(GridError, match=r"has no distill\.json"):
        read_distillation(tmp_path)
    with pytest.raises(GridError, match=r"lies inside a grid; give .*"):
        report(ReportConfig(folder / "bc"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(GridError, match=r"no grid\.json and no distill\.json"):
        report(ReportConfig(empty))
    (folder / "distill.json").write_text("{")
    with pytest.raises(GridError, match="cannot be understood"):
        read_distillation(folder)


def test_the_command_finds_such_a_folder(folder: Path) -> None:
    command = [sys.executable, "-m", "tutelage.experiments.main", "report", str(folder), "--resamples", "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(folder / "report" / "report.html")]


def test_statistics_are_those_of_the_runs() -> None:
    dagger, bc = (100 * np.array(SUCCESS[name]) for name in ("dagger", "bc"))
    assert float(iqm(bc)) == pytest.approx(48.333, abs=1e-3)
    assert float(probability_of_improvement(bc, dagger)) == pytest.approx(0.14)


@pytest.mark.parametrize("panels", [1, 3])
def test_a_legend_of_all_methods_is_not_cut_off(panels: int) -> None:
    names = [*METHODS, "expert"]
    point = Estimate(*(np.array([1.0, 2.0]),) * 3)
    lines = {name: (np.array([0.0, 1.0]), point) for name in names}
    figure = plots.curves(
        [(f"panel {i}", lines) for i in range(panels)],
        dict.fromkeys(names, "#000000"),
        x_label="frames",
        y_label="success",
        percent=True,
    )
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_costs_of_many_methods_can_be_read(folder: Path) -> None:
    from rich.console import Console

    found = read_distillation(folder)
    names = tuple(METHODS)
    first = [replace(run, method=name) for name in names for run in found.of("bc")]
    text = io.StringIO()
    print_tables(replace(found, methods=names, runs=tuple(first)), Console(file=text, width=80))
    lines = [
        line.split() for line in text.getvalue().splitlines() if line.split()[:2] == ["expert", "queries"]
    ]
    assert sum(len(line) - 2 for line in lines) == len(names)
    assert "\u2026" not in text.getvalue()  # an ellipsis
