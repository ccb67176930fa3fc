"""Reading a folder of `tutelage distill`: what its cells came to, complete or not.

Cells may be missing, unfinished, failed or damaged: a folder reads all the same, and each cell says what is
wrong with it. Only one whose ``distill.json`` cannot be understood raises `GridError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.envs.contract.names import base_name, folder_name
from tutelage.experiments.runs.reading import FloatArray, GridError
from tutelage.experiments.runs.records import read_json, read_status, read_table
from tutelage.students.distillation.machinery.registry import METHODS, method_card

DESCRIPTION = "distill.json"
"""Makes a folder one of `tutelage distill`: its task and test sets, and every command given in it."""


@dataclass(frozen=True)
class Run:
    """One cell.

    Attributes:
        state: ``finished``, ``running``, ``failed`` or ``missing``.
        message: what its status says about it.
        results: ``results.json``; empty before the end.
        curves: test set -> frames, seconds (the expert's included), success in percent, each
            ``(evaluations,)``.
        config: ``config.json``.
    """

    method: str
    seed: int
    folder: Path
    state: str
    message: str
    results: dict[str, Any]
    curves: dict[str, tuple[FloatArray, FloatArray, FloatArray]]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Its folder relative to the grid's."""
        return f"{folder_name(self.method)}/seed-{self.seed}"


@dataclass(frozen=True)
class Distillation:
    """A folder of `tutelage distill`, as far as it has come.

    Attributes:
        folder: where it lies.
        description: ``distill.json``.
        test_sets: names, the main one first.
        methods: names, in the order in which they were asked for.
        baseline: the method that others are compared with.
        runs: every cell that was asked for.
        experts: seed -> ``results.json`` of its expert.
    """

    folder: Path
    description: dict[str, Any]
    test_sets: tuple[str, ...]
    methods: tuple[str, ...]
    baseline: str
    runs: tuple[Run, ...]
    experts: dict[int, dict[str, Any]]

    def title(self, method: str) -> str:
        """What a method is called."""
        return _card(self.description, method)["title"]

    @property
    def main(self) -> str:
        """The test set that methods are compared on."""
        return self.test_sets[0]

    def of(self, method: str) -> list[Run]:
        """All runs of a method."""
        return [run for run in self.runs if run.method == method]

    def finished(self, method: str) -> list[Run]:
        """Those of them that have finished."""
        return [run for run in self.of(method) if run.results]

    def scores(self, method: str, test_set: str) -> FloatArray:
        """Success in percent at the end, of each finished run."""
        return np.array([100 * run.results["success"][test_set] for run in self.finished(method)])

    def expert_scores(self, test_set: str) -> FloatArray:
        """Success of the experts in percent."""
        return np.array([100 * found["success"][test_set] for found in self.experts.values()])

    def shares(self, method: str, test_set: str) -> FloatArray:
        """Success of each finished run in percent of that of its seed's expert, where there is one."""
        pairs = [
            (run.results["success"][test_set], self.experts[run.seed]["success"][test_set])
            for run in self.finished(method)
            if run.seed in self.experts
        ]
        return np.array([100 * ours / theirs for ours, theirs in pairs if theirs > 0])


def is_distillation(folder: Path) -> bool:
    """Whether a folder is one of `tutelage distill`."""
    return (folder / DESCRIPTION).exists()


def read_distillation(folder: Path) -> Distillation:
    """Read a folder, complete or not.

    Raises:
        GridError: when it is none, or its description is damaged.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        cells = cells_of(description)
        test_sets, baseline = tuple(description["test_sets"]), str(description["baseline"])
    except FileNotFoundError:
        raise GridError(f"{folder} has no {DESCRIPTION}; give a folder of `tutelage distill`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise GridError(f"{folder / DESCRIPTION} cannot be understood ({error!r})") from None
    experts = {}
    for seed in sorted({seed for _, seed in cells}):
        if found := read_json(folder / "experts" / f"seed-{seed}" / "results.json"):
            experts[seed] = found
    runs = tuple(_read_run(folder, description, method, seed, test_sets) for method, seed in cells)
    methods = tuple(dict.fromkeys(method for method, _ in cells))
    baseline = baseline if baseline in methods else methods[0]
    return Distillation(folder, description, test_sets, methods, baseline, runs, experts)


def described_card(method: str) -> dict[str, str]:
    """What reports need to know of a method, for the folder's description."""
    card = method_card(method)
    return {"title": card.title, "expert": card.expert}


def _card(description: Mapping[str, Any], method: str) -> dict[str, str]:
    """The same of a method in a folder, which describes a user's: its module is not imported."""
    if base_name(method) in METHODS:
        return described_card(method)
    cards = description.get("cards")
    own = cards.get(method) if isinstance(cards, dict) else None
    own = own if isinstance(own, dict) else {}
    return {"title": str(own.get("title", method)), "expert": str(own.get("expert", "labels"))}


def _read_run(
    folder: Path, description: Mapping[str, Any], method: str, seed: int, test_sets: tuple[str, ...]
) -> Run:
    cell = folder / folder_name(method) / f"seed-{seed}"
    status = read_status(cell)
    state, message = str(status.get("state", "missing")), str(status.get("message", ""))
    results = read_json(cell / "results.json") if state == "finished" else {}
    if state == "finished" and not results:
        state, message = "failed", "its results.json is missing or damaged"
    expert = read_json(folder / "experts" / f"seed-{seed}" / "results.json")
    charged = float(expert.get("seconds", 0.0)) if _card(description, method)["expert"] != "nothing" else 0.0
    curves = {}
    try:
        curves = _read_curves(cell / "evaluations.parquet", charged, test_sets)
    except (OSError, KeyError, ValueError) as error:
        message = message or f"its evaluations cannot be read: {error}"
    return Run(method, seed, cell, state, message, results, curves, read_json(cell / "config.json"))


def _read_curves(
    path: Path, charged: float, test_sets: tuple[str, ...]
) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """Curves of one run; `charged` are the expert's seconds."""
    try:
        table = read_table(path)
    except FileNotFoundError:
        return {}
    names = np.array(table["test_set"].to_pylist(), dtype=object)
    share = table["share"].to_numpy()
    curves = {}
    for name in test_sets:
        points = []
        for at in np.unique(share[names == name]):
            rows = (names == name) & (share == at)
            points.append(
                [table[column].to_numpy()[rows].mean() for column in ("step", "seconds", "success")]
            )
        if points:
            steps, seconds, success = np.array(points, np.float64).T
            curves[name] = (steps, charged + seconds, 100 * success)
    return curves


def cells_of(description: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Method and seed of every cell that any command of a folder asked for: method by method, by seed."""
    runs = description["runs"]
    methods = dict.fromkeys(method for run in runs for method in run["methods"])
    cells = {(method, int(seed)) for run in runs for method in run["methods"] for seed in run["seeds"]}
    return [(m, seed) for m in methods for seed in sorted(s for name, s in cells if name == m)]
