"""The figures of a folder of `tutelage distill`: tables over the seeds of each method.

Stands between `distill_results` and `distill_report`; the command prints the same tables when it ends. A
run's score is its success in percent, on fixed episodes; every interval resamples whole runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.experiments.reports.distill_results import Distillation
from tutelage.experiments.reports.distill_speed import (
    ENOUGH,
    after_seconds,
    common_seconds,
    over_frames,
    speed_figures,
)
from tutelage.experiments.runs.reading import FloatArray
from tutelage.experiments.runs.statistics import (
    Estimate,
    Statistic,
    bootstrap,
    holm,
    iqm,
    mean,
    probability_of_improvement,
    welch,
)

if TYPE_CHECKING:
    from rich.console import Console

SECONDS = {
    "expert_seconds": "expert's training",
    "rollout_seconds": "roll-out",
    "learning_seconds": "learning",
    "evaluation_seconds": "evaluation",
    "total_seconds": "all",
}
"""Names in ``results.json``, and what they are called."""

COSTS = {
    "frames": "frames",
    "expert_steps": "expert's steps",
    "environment_steps": "environment steps",
    "queries": "expert queries",
    "updates": "gradient steps",
}


def estimate(
    scores: list[FloatArray],
    statistic: Statistic = iqm,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of runs with its interval; NaN where a sample is empty."""
    if not all(len(sample) for sample in scores):
        nothing = np.asarray(np.nan)
        return Estimate(nothing, nothing, nothing)
    rng = np.random.default_rng(seed)
    return bootstrap(scores, statistic, rng, confidence=confidence, resamples=resamples)


def summary_rows(
    found: Distillation, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """One row for each method, the baseline's first: all figures of the tables.

    Returns:
        Rows with the keys ``method``, ``title``, ``is_baseline``, ``runs``, ``runs_asked``; for every test
        set ``<name>``, its mean, with ``_low``, ``_high``, and ``_iqm`` with the same; ``share`` of the
        expert's success on the main one, ``improvement`` (probability that a run beats one of the baseline)
        and ``difference`` with ``_p_holm`` (Welch, of the means, in points); ``over_frames``, mean success
        over the training, and ``after_seconds``, success after the ``common_seconds``, which every method
        had; the figures of `tutelage.experiments.reports.distill_speed.speed_figures`; means of `COSTS` and
        `SECONDS`. NaN where a figure cannot be had.
    """
    how: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    baseline = found.scores(found.baseline, found.main)
    seconds = common_seconds(found)
    rows = []
    for method in sorted(found.methods, key=lambda name: name != found.baseline):
        scores = found.scores(method, found.main)
        row: dict[str, Any] = {
            "method": method,
            "title": found.title(method),
            "is_baseline": method == found.baseline,
            "runs": len(scores),
            "runs_asked": len(found.of(method)),
        }
        for name in found.test_sets:
            _put(row, name, estimate([found.scores(method, name)], mean, **how))
            _put(row, f"{name}_iqm", estimate([found.scores(method, name)], iqm, **how))
        _put(row, "share", estimate([found.shares(method, found.main)], mean, **how))
        versus = np.empty(0) if row["is_baseline"] else baseline
        _put(row, "improvement", estimate([scores, versus], probability_of_improvement, **how))
        difference = welch(scores, versus, confidence) if len(scores) and len(versus) else None
        for key in ("value", "low", "high", "p"):
            row[f"difference_{key}"] = getattr(difference, key) if difference else math.nan
        _put(row, "over_frames", estimate([over_frames(found, method)], mean, **how))
        _put(row, "after_seconds", estimate([after_seconds(found, method, seconds)], mean, **how))
        row |= {"common_seconds": seconds, **speed_figures(found, method)}
        for key in (*COSTS, *SECONDS):
            values = [float(run.results[key]) for run in found.finished(method)]
            row[key] = float(np.mean(values)) if values else math.nan
        rows.append(row)
    for row, p in zip(rows, holm([row["difference_p"] for row in rows]), strict=True):
        row["difference_p_holm"] = float(p)
    return rows


def _put(row: dict[str, Any], key: str, found: Estimate) -> None:
    row[key], row[f"{key}_low"], row[f"{key}_high"] = map(float, (found.value, found.low, found.high))


def run_rows(found: Distillation) -> list[dict[str, Any]]:
    """One row for each cell, as plain values."""
    rows = []
    for run in found.runs:
        row: dict[str, Any] = {"method": run.method, "seed": run.seed, "state": run.state}
        for name in found.test_sets:
            row[name] = run.results.get("success", {}).get(name, math.nan)
            row[f"expert, {name}"] = found.experts.get(run.seed, {}).get("success", {}).get(name, math.nan)
        row |= {key: run.results.get(key, math.nan) for key in (*COSTS, *SECONDS)}
        for joint, error in (run.results.get("action_error") or {}).items():
            row[f"action error, {joint}"] = error
        rows.append(row)
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, math.nan) for key in columns} for row in rows]


def number(value: float, digits: int = 1) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if not math.isfinite(value) else f"{value:,.{digits}f}"


def with_interval(row: Mapping[str, Any], key: str, digits: int = 1) -> str:
    """A figure and, where there is one, its interval in brackets."""
    text = number(row[key], digits)
    if math.isfinite(row[f"{key}_low"]):
        text += f" [{number(row[f'{key}_low'], digits)}, {number(row[f'{key}_high'], digits)}]"
    return text


def success_table(found: Distillation, rows: list[dict[str, Any]], statistic: str = "") -> list[list[str]]:
    """Head and rows of the table of successes; the experts' come last.

    Args:
        found: the folder.
        rows: of `summary_rows`.
        statistic: ``_iqm``, or nothing for means.
    """
    head = ["success, %", "runs", *found.test_sets, "% of the expert's", "P(beats baseline)"]
    table = [head]
    for row in rows:
        runs = f"{row['runs']}" + (f" of {row['runs_asked']}" if row["runs"] < row["runs_asked"] else "")
        table.append(
            [
                row["method"] + (" (baseline)" if row["is_baseline"] and len(rows) > 1 else ""),
                runs,
                *(with_interval(row, f"{name}{statistic}") for name in found.test_sets),
                with_interval(row, "share"),
                with_interval(row, "improvement", 2),
            ]
        )
    if found.experts:
        scores = [
            estimate([found.expert_scores(name)], iqm if statistic else mean) for name in found.test_sets
        ]
        shown: dict[str, Any] = {}
        for name, e in zip(found.test_sets, scores, strict=True):
            _put(shown, name, e)
        cells = [with_interval(shown, name) for name in found.test_sets]
        table.append(["expert", str(len(found.experts)), *cells, "100.0", "–"])
    return table


def speed_table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Head and rows of the table of speeds; `rows` are of `summary_rows`."""
    seconds = number(rows[0]["common_seconds"], 0) if rows else ""
    table = [
        [
            "speed",
            "success, mean over frames",
            f"success after {seconds} s",
            f"runs with {100 * ENOUGH:g} % of the expert's",
            "frames to that, median",
            "seconds to that, median",
        ]
    ]
    for row in rows:
        table.append(
            [
                row["method"],
                with_interval(row, "over_frames"),
                with_interval(row, "after_seconds"),
                f"{row['runs_enough']} of {row['runs_timed']}" if row["runs_timed"] else "–",
                number(row["frames_needed"], 0),
                number(row["seconds_needed"], 0),
            ]
        )
    return table


def cost_table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Head and rows of the table of costs: means over the runs."""
    table = [["mean costs of a run", *COSTS.values(), *(f"seconds: {name}" for name in SECONDS.values())]]
    for row in rows:
        counts = [number(row[key], 0) for key in COSTS]
        table.append([row["method"], *counts, *(number(row[key]) for key in SECONDS)])
    return table


def print_tables(found: Distillation, console: Console) -> None:
    """Print means over seeds with their intervals, and costs."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = summary_rows(found)
    if not any(row["runs"] for row in rows):
        return
    config = found.description["runs"][-1]["config"]
    title = f"{found.description['task']}: {config['obs']} of {', '.join(config['cameras'])}; mean over seeds"
    words, *each = cost_table(rows)
    beside = [each[i : i + 3] for i in range(0, len(each), 3)]  # as many methods as fit 80 columns
    costs = [[list(column) for column in zip(words, *block, strict=True)] for block in beside]
    speeds = [speed_table(rows)] if len(rows) > 1 else []
    for head, *body in (success_table(found, rows), *speeds, *costs):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
        for i, name in enumerate(head):
            name = name.replace("P(beats baseline)", "beats baseline")  # fits 80 columns
            table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for entries in body:
            table.add_row(*(entry.replace(" [", "\n[").replace(" (", "\n(") for entry in entries))
        console.print(table)
        title = ""
