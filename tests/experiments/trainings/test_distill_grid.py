"""The grid of `tutelage distill`: any number of workers, kills, crashes, and what all leave in the folder."""

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tutelage.envs.contract.state import write_json
from tutelage.experiments.distill import DistillConfig, distill, only
from tutelage.experiments.reports.distill_results import read_distillation
from tutelage.experiments.runs.executor import LocalProcesses
from tutelage.experiments.runs.locking import FolderError
from tutelage.experiments.runs.pool import Job, JobPool
from tutelage.experiments.runs.records import read_json
from tutelage.experiments.trainings.distill_checks import checked
from tutelage.experiments.trainings.distill_grid import DistillGrid
from tutelage.experiments.trainings.distilled_student import cell_description, distil_student
from tutelage.experiments.trainings.expert import expert_description, make_expert
from tutelage.students.vision.vision_student import WEIGHTS

METHODS = ("on-policy", "asymmetric-ppo")


@pytest.fixture
def config(reach_expert: Path, tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        "reach",
        method=METHODS,
        seeds=2,
        expert=reach_expert,
        out=tmp_path / "one",
        cameras=("front",),
        size=16,
        num_envs=8,
        frames=300,
        episodes=4,
        evaluations=1,
        augment="none",
        clips=False,
        report=False,
    )


def untimed(results: dict[str, Any]) -> dict[str, Any]:
    """Results without what a clock said."""
    return {key: value for key, value in results.items() if not key.endswith("seconds")}


def outcome(out: Path) -> dict[str, Any]:
    """Of every cell its untimed results and its student's weights."""
    cells = [f"{method}/seed-{seed}" for method in METHODS for seed in (0, 1)]
    weights = {name: (out / name / "student" / WEIGHTS).read_bytes() for name in cells}
    return {name: (untimed(read_json(out / name / "results.json")), weights[name]) for name in cells}


def test_any_number_of_workers_gives_the_same_results(
    config: DistillConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(config) == 0
    one = outcome(config.folder)
    assert all(results["frames"] >= 300 for results, _ in one.values())
    assert len({weights for _, weights in one.values()}) == 4  # methods and seeds differ
    printed = capsys.readouterr().out
    assert "finished experts/seed-1" in printed
    assert "asymmetric-ppo" in printed

    assert distill(replace(config, out=tmp_path / "two", workers=2)) == 0
    assert outcome(tmp_path / "two") == one

    # The same command, then another: what is finished is not run again, and what is new comes to it.
    ages = {path: path.stat().st_mtime_ns for path in config.folder.rglob("results.json")}
    capsys.readouterr()
    assert distill(replace(config, report=True)) == 0
    assert "6 of 6 cells are finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in config.folder.rglob("results.json")} == ages
    report = (config.folder / "report" / "report.html").read_text()
    assert "on-policy" in report
    found = read_distillation(config.folder)
    assert (found.methods, found.baseline) == (METHODS, "on-policy")
    assert [run.state for run in found.runs] == ["finished"] * 4

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(config.folder / "_grid" / "on-policy"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"grid/held-out_looks", "grid/held-out_looks/lower", "grid/seeds"} <= set(tags)
    assert [e.step for e in events.Scalars("grid/held-out_looks")] == [192, 384]  # 24 steps of 8 environments


CELL = """
import json, sys
from pathlib import Path
from tutelage.experiments.trainings.distilled_student import distil_student
distil_student(json.loads(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_cell_ends_with_the_same_results(config: DistillConfig, tmp_path: Path) -> None:
    config = checked(replace(config, method=("on-policy",), frames=2400, evaluations=5, checkpoint_every=0.0))
    cells = []
    for out in ("whole", "killed"):
        mine = only(replace(config, out=tmp_path / out), "on-policy")
        values = {"config": mine.to_json(), "seed": 0}
        make_expert(values, tmp_path / out / "experts/seed-0")
        cells.append((values, tmp_path / out / "on-policy/seed-0"))
    (whole_values, whole), (values, killed) = cells
    distil_student(whole_values, whole)

    process = subprocess.Popen([sys.executable, "-c", CELL, json.dumps(values), str(killed)])
    deadline = time.monotonic() + 180
    while not list(killed.glob("checkpoints/*.json")) or _frames(killed) < 600:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not read_json(killed / "results.json")
    distil_student(values, killed)
    assert untimed(read_json(killed / "results.json")) == untimed(read_json(whole / "results.json"))
    assert (killed / "student" / WEIGHTS).read_bytes() == (whole / "student" / WEIGHTS).read_bytes()
    curves = [_curve(folder) for folder in (killed, whole)]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 6  # five on the way, and the one at the end


def _frames(folder: Path) -> int:
    try:
        return int(json.loads((folder / "status.json").read_text()).get("frames", 0))
    except (FileNotFoundError, ValueError):
        return 0


def _curve(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("success_on_held-out_looks/student")]


JOBS = """
import json, os, signal
from pathlib import Path

def good(values, folder):
    before = [path for path in Path(folder).parent.iterdir() if (path / "done").exists()]
    (Path(folder) / "done").write_text(",".join(sorted(path.name for path in before)))
    status = {"state": "finished", "step": 1, "steps": 1, "seconds": 0.0, "scores": [[1, 50.0]]}
    (Path(folder) / "status.json").write_text(json.dumps(status))

def bad(values, folder):
    raise RuntimeError("the gripper fell off " + values["what"])

def dies(values, folder):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_has_finished_stays_so_when_an_addition_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    status = {"state": "finished", "step": 7, "steps": 7, "seconds": 0.0, "scores": [[7, 50.0]]}
    for name in ("bad", "dies", "late"):
        write_json(tmp_path / "out" / name / "status.json", status)
    jobs = [
        Job("first", "grid_jobs:bad", {"what": ""}, 1),
        Job("bad", "grid_jobs:bad", {"what": "and\n  broke"}, 7, again=True),
        Job("dies", "grid_jobs:dies", {}, 7, again=True),
        Job("late", "grid_jobs:good", {}, 7, after=("first",), again=True),
    ]
    text = io.StringIO()
    failed = JobPool(tmp_path / "out", jobs, Console(file=text, width=200), LocalProcesses()).run(2)
    assert {job.name for job in failed} == {"first", "bad", "dies", "late"}
    for name in ("bad", "dies", "late"):
        assert json.loads((tmp_path / "out" / name / "status.json").read_text()) == status
    printed = " ".join(text.getvalue().split())
    for said in (
        "bad: RuntimeError: the gripper fell off and broke",
        "dies: killed by signal 9",
        "late: it needs first",
    ):
        assert printed.count(f"failed {said}") == 2  # when it happens, and at the end


def test_jobs_wait_for_others_and_crash_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grid_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = io.StringIO()
    jobs = [
        Job("late", "grid_jobs:good", {}, 1, after=("early",)),
        Job("never", "grid_jobs:good", {}, 1, after=("early", "bad")),
        Job("bad", "grid_jobs:bad", {"what": "[/red]"}, 1),
        Job("dies", "grid_jobs:dies", {}, 1),
        Job("early", "grid_jobs:good", {}, 1),
    ]
    seen: dict[str, str] = {}
    pool = JobPool(
        tmp_path / "out",
        jobs,
        Console(file=text, width=200),
        LocalProcesses(),
        on_status=lambda job, status: seen.update({job.name: status.get("state", "")}),
    )
    assert {job.name for job in pool.run(2)} == {"bad", "dies", "never"}
    assert (tmp_path / "out/late/done").read_text() == "early"
    assert seen["late"] == seen["early"] == "finished"
    printed = " ".join(text.getvalue().split())
    assert "bad: RuntimeError: the gripper fell off [/red]; see" in printed
    assert str(tmp_path / "out/bad/log.txt") in printed
    assert "dies: killed by signal 9 (out of memory?)" in printed
    assert "never: it needs bad, which failed" in printed
    assert "Traceback" in (tmp_path / "out/bad/log.txt").read_text()
    assert not (tmp_path / "out/never/done").exists()


def test_experts_are_shared_and_asked_for_where_they_are_needed(config: DistillConfig) -> None:
    config = checked(replace(config, method=("pixels-ppo", "on-policy", "aacd"), first_seed=3))
    grid = DistillGrid(config, "tutelage distill")
    jobs = {job.name: job.after for job in grid.jobs()}
    expected: dict[str, tuple[str, ...]] = {}
    for seed in (3, 4):
        expert = (f"experts/seed-{seed}",)
        expected |= {expert[0]: (), f"pixels-ppo/seed-{seed}": ()}
        expected |= {f"on-policy/seed-{seed}": expert, f"aacd/seed-{seed}": expert}
    assert jobs == expected
    alone = checked(replace(config, method=("pixels-ppo",)))
    names = [job.name for job in DistillGrid(alone, "").jobs()]
    assert names == ["pixels-ppo/seed-3", "pixels-ppo/seed-4"]
    # Both commands are in the folder's description; the baseline stays that of the first.
    found = read_distillation(config.folder)
    assert [run["methods"] for run in found.description["runs"]] == [[*config.method], ["pixels-ppo"]]
    assert (found.methods, found.baseline, len(found.runs)) == (config.method, "pixels-ppo", 6)
    assert {run.state for run in found.runs} == {"missing"}
    with pytest.raises(FolderError, match="holds runs of reach"):
        DistillGrid(replace(config, task="push-cube"), "")


def test_what_cannot_stand_in_one_folder_is_refused(config: DistillConfig) -> None:
    def grid(config: DistillConfig) -> DistillGrid:
        return DistillGrid(config, "")

    config = checked(replace(config, method=("on-policy",)))
    out = config.folder
    write_json(out / "experts/seed-0/config.json", expert_description(config, 0))
    write_json(out / "on-policy/seed-1/config.json", cell_description(config, "on-policy", 1))
    grid(config)
    with pytest.raises(FolderError, match=r"experts/seed-0 was made .* \(different: expert_steps\)"):
        grid(replace(config, method=("bc",), expert_steps=5))  # a finished expert would be taken as it is
    with pytest.raises(FolderError, match=r"on-policy/seed-1 was made .* \(different: frames\)"):
        grid(replace(config, first_seed=7, frames=400))  # seeds of a method are averaged
    with pytest.raises(FolderError, match=r"no run of the baseline dagger is in .*, only of: bc, on-policy"):
        grid(replace(config, method=("bc",), baseline="dagger"))
    grid(replace(config, method=("bc",), frames=400))
    grid(replace(config, method=("pixels-ppo",), expert_steps=5))  # has nothing of the expert
