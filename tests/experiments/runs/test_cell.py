"""The loop of every run, on a training of plain numbers: when it evaluates, and exact resume anywhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, load_state, rng_state, save_state, set_rng_state
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.experiments.runs.cell import run_cell
from tutelage.experiments.runs.locking import FolderError
from tutelage.experiments.runs.records import read_table
from tutelage.experiments.runs.report import Report
from tutelage.experiments.runs.training import Costs, PlayTestSet, Progress, Results


class Killed(BaseException):
    """Stands for a kill: nothing after it is carried out."""


class Walk:
    """A random walk: each round takes 30 of 100 steps, and its place is its return."""

    task_space = BoxTasks({"x": (-1.0, 1.0)})

    def __init__(
        self,
        evaluations: Sequence[float],
        untrained: bool,
        dies: tuple[str, int] | None = None,
    ) -> None:
        self.evaluations, self.evaluates_untrained, self.dies = evaluations, untrained, dies
        self.rng = np.random.default_rng(0)
        self.costs = Costs(expert=7)
        self.step, self.place = 0, 0.0
        self.moments: list[tuple[str, int]] = []

    @property
    def spent(self) -> float:
        return self.step / 100

    @property
    def progress(self) -> Progress:
        return Progress(self.step, 100)

    def hyperparameters(self) -> Mapping[str, bool | int | float | str]:
        return {"kind": "walk"}

    def advance(self, until: float, report: Report) -> None:
        while True:
            self.step += 30
            self.place += float(self.rng.normal())
            self.costs.student = self.step
            tasks, returns = self.rng.uniform(-1, 1, (2, 1)), [self.place, -self.place]
            episodes = Episodes.of(tasks, returns, successes=[float(self.place > 0), 1.0])
            report.episodes(self.step, episodes)
            report.scalars({"place": self.place}, self.step)
            report.progress(True)
            self._moment("round")
            if self.spent >= until:
                break

    def test_sets(self, at_end: bool) -> Sequence[str]:
        return ("main", "other") if at_end else ("main",)

    def policies(self) -> Mapping[str, PlayTestSet]:
        def play(name: str, at_end: bool) -> Episodes:
            return Episodes.of(np.zeros((3, 1)), [self.place] * 3, [4] * 3, [float(self.place > 0)] * 3)

        return {"student": play, "antagonist": play}

    def scores(self, results: Mapping[str, Episodes]) -> Mapping[str, float]:
        return {f"score/{name}": float(episodes.returns.mean()) for name, episodes in results.items()}

    def evaluated(self, results: Results, report: Report) -> None:
        assert list(results) == ["student", "antagonist"]
        self._moment("evaluation")

    def finish(self, report: Report) -> Mapping[str, Any]:
        self._moment("finish")
        return {"place": self.place, "charged": self.costs.charged, "evaluation": self.costs.evaluation}

    def save(self, folder: Path, run: StateDict) -> None:
        state = {"step": self.step, "place": self.place, "rng": rng_state(self.rng), "run": run}
        save_state(folder / "walk.npz", state)

    def load(self, folder: Path) -> StateDict | None:
        if not (folder / "walk.npz").exists():
            return None
        state = load_state(folder / "walk.npz")
        self.step, self.place = state["step"], state["place"]
        set_rng_state(self.rng, state["rng"])
        run: StateDict = state["run"]
        return run

    def close(self) -> None:
        pass

    def _moment(self, kind: str) -> None:
        self.moments.append((kind, self.step))
        if self.dies == (kind, self.step):
            raise Killed


def _train(folder: Path, walk: Walk, save_every: float | None = None) -> Walk:
    run_cell(lambda: walk, {"kind": "walk"}, folder, save_every=save_every)
    return walk


def _left_behind(folder: Path) -> dict[str, Any]:
    """All numbers of a finished run that no clock decides."""
    tables = {}
    for name in ("episodes", "evaluations"):
        columns = read_table(folder / f"{name}.parquet").to_pydict()
        tables[name] = {k: v for k, v in columns.items() if "seconds" not in k}
    events = EventAccumulator(str(folder))
    events.Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    status = json.loads((folder / "status.json").read_text())
    lines = (folder / "monitor.csv").read_text().splitlines()
    monitor = [line.rpartition(",")[0] for line in lines]
    results = json.loads((folder / "results.json").read_text())
    return {**tables, "curves": curves, "scores": status["scores"], "monitor": monitor, "results": results}


def test_evaluations_come_when_they_are_due(tmp_path: Path) -> None:
    """Rounds end at 30, 60, 90 and 120 of 100 steps; those due at 50 and 55 are one."""
    walk = _train(tmp_path, Walk([0.0, 0.5, 0.55, 1.0], untrained=True))
    assert [step for kind, step in walk.moments if kind == "evaluation"] == [0, 60, 120]
    table = read_table(tmp_path / "evaluations.parquet")
    assert table["share"].to_pylist() == [0.0] * 3 + [0.55] * 3 + [1.0] * 6
    # 7 steps of the expert, and those of the student; evaluations are charged to nobody
    assert table["charged_steps"].to_pylist() == [7] * 3 + [67] * 3 + [127] * 6
    assert table["test_set"].to_pylist() == ["main"] * 9 + ["other"] * 3
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"], status["steps"]) == ("finished", 120, 100)
    assert [at for at, _ in status["scores"]] == [0, 60, 120]
    # two policies, three episodes of four steps in each of 1 + 1 + 2 evaluations of a test set
    assert json.loads((tmp_path / "results.json").read_text())["evaluation"] == 2 * 3 * 4 * 4
    assert not (tmp_path / "checkpoints").exists()
    assert not list(tmp_path.glob("*.parts"))


def test_the_first_evaluation_may_wait_for_a_round(tmp_path: Path) -> None:
    walk = _train(tmp_path, Walk([0.0, 0.5, 1.0], untrained=False))
    assert [step for kind, step in walk.moments if kind == "evaluation"] == [30, 60, 120]
    assert read_table(tmp_path / "evaluations.parquet")["share"].to_pylist()[:6] == [0.0] * 3 + [0.5] * 3


@pytest.mark.parametrize("save_every", [None, 0.0], ids=["by-evaluation", "by-round"])
@pytest.mark.parametrize("untrained", [True, False])
@pytest.mark.parametrize(
    "dies",
    [(kind, step) for kind in ("round", "evaluation") for step in (30, 60, 90, 120)] + [("finish", 120)],
)
def test_a_run_killed_anywhere_ends_with_the_same_numbers(
    dies: tuple[str, int], untrained: bool, save_every: float | None, tmp_path: Path
) -> None:
    shares = [0.0, 0.5, 0.8, 1.0]
    _train(tmp_path / "whole", Walk(shares, untrained), save_every)
    walk = Walk(shares, untrained, dies)
    try:
        _train(tmp_path / "killed", walk, save_every)
    except Killed:
        assert json.loads((tmp_path / "killed/status.json").read_text())["state"] == "running"
        _train(tmp_path / "killed", Walk(shares, untrained), save_every)
    one, other = (_left_behind(tmp_path / name) for name in ("whole", "killed"))
    if (
        save_every is not None
    ):  # an evaluation that was under way when a run of rounds was killed is logged anew
        for curves in (one["curves"], other["curves"]):
            curves |= {tag: sorted(set(points)) for tag, points in curves.items()}
    assert one == other


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    _train(tmp_path, Walk([1.0], untrained=False))
    added: list[str] = []
    run_cell(lambda: pytest.fail("built"), {"kind": "walk"}, tmp_path, complete=lambda: added.append("more"))
    assert added == ["more"]
    with pytest.raises(FolderError, match="different: kind"):
        run_cell(lambda: pytest.fail("built"), {"kind": "run"}, tmp_path)
