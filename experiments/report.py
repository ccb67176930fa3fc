"""`tutelage report`: one page, pictures and tables of a grid folder, finished or not.

Reads with `runs`, computes with `summary`, draws with `plots`, and writes into `<run>/report/`: a
self-contained `report.html`, the figures as PNG, `summary.csv` (every number) and `summary.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from tutelage.envs.contract.names import folder_name
from tutelage.experiments.reports import plots
from tutelage.experiments.reports.distill_results import is_distillation
from tutelage.experiments.reports.page import (
    Picture,
    csv_of,
    explanation,
    png_of,
    render_html,
    render_markdown,
    write_file,
)
from tutelage.experiments.reports.summary import Results, defined, findings, gather, summary_table
from tutelage.experiments.runs.reading import FloatArray, Grid, check_name, read_grid
from tutelage.experiments.runs.statistics import (
    Estimate,
    Resampling,
    bootstrap,
    iqm,
    performance_profile,
    probability_of_improvement,
    sample_efficiency_curve,
    seconds_curve,
)

PERIODS = ("early", "middle", "late")
SPECIALISTS = "specialists.json"


@dataclass(frozen=True)
class ReportConfig:
    """Write a report on a folder of `tutelage compare` or `tutelage distill`.

    Attributes:
        folder: of the runs, e.g. runs/quick or runs/distill-reach.
        out: where to write; `report` inside the grid folder by default.
        test_set: test set to compare on; the grid's primary one by default.
        confidence: of all intervals and tests.
        resamples: of every bootstrap.
        seed: of the resampling.
    """

    folder: tyro.conf.Positional[Path]
    out: Path | None = None
    test_set: str | None = None
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def run(self) -> int:
        """Write the report and print where it is; return the exit status."""
        print(report(self))
        return 0


def _nothing(size: int | None = None) -> Estimate:
    value = np.asarray(np.nan) if size is None else np.full(size, np.nan)
    return Estimate(value, value, value)


def _curve_pictures(grid: Grid, results: Results, config: ReportConfig, sets: list[str]) -> Iterator[Picture]:
    rng, palette = np.random.default_rng(config.seed), plots.colours(grid.task_teachers, grid.baseline)
    options: dict[str, Any] = {"y_label": f"{results.unit}, IQM over runs", "percent": results.percent}
    how: dict[str, Any] = {"confidence": config.confidence, "resamples": config.resamples}
    by_step, by_second = [], []
    for name in sets:
        curves = results.curves[name]
        with_steps = {t: sample_efficiency_curve(scores, rng, **how) for t, scores in curves.items()}
        by_step.append((name, {task_teacher: (results.steps, e) for task_teacher, e in with_steps.items()}))
        timed = {t: seconds_curve(results.seconds[t], scores, rng, **how) for t, scores in curves.items()}
        by_second.append((name, timed))
    band = f"Bands are pointwise {100 * config.confidence:g} % intervals over runs"
    figure = plots.curves(by_step, palette, x_label="training steps", mark=results.step, **options)
    yield Picture(
        f"curves-{results.student}",
        "Sample efficiency",
        f"{band}; the dotted line marks the step of the comparison.",
        png_of(figure),
    )
    figure = plots.curves(by_second, palette, x_label="seconds since the run's start", **options)
    yield Picture(
        f"curves-seconds-{results.student}",
        "Against wall clock",
        f"{band}. Runs that share a machine slow each other down: read these curves side by side only.",
        png_of(figure),
    )


def _score_pictures(grid: Grid, results: Results, config: ReportConfig, sets: list[str]) -> Iterator[Picture]:
    rng, palette = np.random.default_rng(config.seed), plots.colours(grid.task_teachers, grid.baseline)
    how: dict[str, Any] = {"confidence": config.confidence, "resamples": config.resamples}
    panels = []
    for name in sets:
        runs = {task_teacher: defined(scores) for task_teacher, scores in results.final[name].items()}
        dots = {t: (s, bootstrap([s], iqm, rng, **how) if len(s) else _nothing()) for t, s in runs.items()}
        panels.append((name, dots))
    yield Picture(
        f"final-{results.student}",
        f"Scores at step {results.step:,}",
        "Each dot is a run; diamonds are interquartile means with their intervals.",
        png_of(plots.final_scores(panels, palette, label=results.unit, percent=results.percent)),
    )
    first = {task_teacher: runs for task_teacher, (runs, _) in panels[0][1].items() if len(runs)}
    if grid.baseline in first and len(first) > 1:
        chances = {
            t: bootstrap([s, first[grid.baseline]], probability_of_improvement, rng, **how)
            for t, s in first.items()
            if t != grid.baseline
        }
        yield Picture(
            f"improvement-{results.student}",
            f"Probability of improvement on {sets[0]}",
            "Ties count half. An interval without width at 1 (or 0) means that every run lies above (or "
            "below) every run of the baseline; resampling cannot tell how much further that would hold.",
            png_of(plots.improvement(chances, palette, grid.baseline)),
        )


def _profile_picture(grid: Grid, results: Results, config: ReportConfig, chosen: str) -> Iterator[Picture]:
    rng, palette = np.random.default_rng(config.seed), plots.colours(grid.task_teachers, grid.baseline)
    how: dict[str, Any] = {"confidence": config.confidence, "resamples": config.resamples}
    panels = []
    for label, table in (
        (f"{results.unit} ({chosen})", {t: defined(s) for t, s in results.final[chosen].items()}),
        (f"return on a task ({chosen})", results.returns[chosen]),
    ):
        scores = {task_teacher: values for task_teacher, values in table.items() if len(values)}
        if not scores:
            return
        every = np.concatenate([values.reshape(-1) for values in scores.values()])
        edges = (0.0, 100.0) if label.startswith("%") else (float(every.min()), float(every.max()))
        levels = np.linspace(*edges, 101)
        panels.append(
            (label, levels, {t: performance_profile(v, levels, rng, **how) for t, v in scores.items()})
        )
    yield Picture(
        f"profiles-{results.student}",
        "Performance profiles",
        "Left: share of runs whose score exceeds a threshold. Right: share of all runs and test tasks "
        "whose return does. A curve above another everywhere is better at every threshold.",
        png_of(plots.profiles(panels, palette)),
    )


def _map_pictures(grid: Grid, results: Results, sets: list[str]) -> Iterator[Picture]:
    if not grid.parameters:  # levels
        return
    rows: dict[str, dict[str, FloatArray]] = {}
    for name in sets:
        rows[name] = {}
        for task_teacher, table in results.mastery[name].items():
            known = np.isfinite(table)
            mean = np.where(known, table, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
            rows[name][task_teacher] = (
                np.where(known.any(axis=0), mean, np.nan) if len(table) else np.empty(0)
            )
    counts = {task_teacher: len(table) for task_teacher, table in results.mastery[sets[0]].items()}
    more = len(grid.parameters) - 2
    note = f" Of {more + 2} task parameters the first two are shown." if more > 0 else ""
    yield Picture(
        f"mastery-{results.student}",
        "What was learned, over the test tasks",
        f"Mean over runs at step {results.step:,}. Axes differ where a test set fills little of the task "
        f"space.{note}",
        png_of(plots.mastery_maps(grid, rows, percent=results.percent, counts=counts)),
    )
    proposals: dict[str, list[FloatArray]] = {}
    for task_teacher in grid.task_teachers:
        parts: list[list[FloatArray]] = [[], [], []]
        for cell in grid.cells_of(results.student, task_teacher):
            episodes = cell.training_episodes()
            if episodes is None or episodes.tasks.shape[1] != len(grid.parameters):
                continue
            third = np.minimum(3 * episodes.steps / max(cell.steps, 1), 2).astype(int)
            for period in range(3):
                parts[period].append(episodes.tasks[third == period])
        empty = np.empty((0, len(grid.parameters)))
        proposals[task_teacher] = [np.concatenate([empty, *arrays]) for arrays in parts]
    if any(len(tasks) for periods in proposals.values() for tasks in periods):
        yield Picture(
            f"proposals-{results.student}",
            "What was proposed, over task space",
            "Training tasks of all runs in each third of training; darker is more often (square root of the "
            f"count, each panel by its own maximum). Crosses: test tasks of {grid.primary}, where they do "
            f"not fill the space.{note}",
            png_of(plots.proposal_maps(grid, proposals, PERIODS)),
        )


def _time_picture(grid: Grid, results: Results) -> Iterator[Picture]:
    seconds: dict[str, dict[str, float]] = {}
    for task_teacher in grid.task_teachers:
        timings = [
            c.timings for c in grid.cells_of(results.student, task_teacher) if c.timings.get("total", 0) > 0
        ]
        if timings:
            seconds[task_teacher] = {p: float(np.mean([t.get(p, 0.0) for t in timings])) for p in plots.PARTS}
    if seconds:
        shares = {t: 100 * s["task_teacher"] / max(sum(s.values()), 1e-9) for t, s in seconds.items()}
        listed = ", ".join(f"{name} {share:.2g} %" for name, share in shares.items())
        yield Picture(
            f"time-{results.student}",
            "Where the time goes",
            f"Share of the task teacher (proposing and observing): {listed}.",
            png_of(plots.time_shares(seconds)),
        )


def pictures(grid: Grid, student: str, config: ReportConfig) -> list[Picture]:
    """Draw all figures of one student; none before its first evaluation."""
    results = gather(grid, student)
    if not len(results.steps):
        return []
    chosen = config.test_set or grid.primary
    sets = [chosen, *(name for name in grid.test_sets if name != chosen)]
    return [
        *_curve_pictures(grid, results, config, sets),
        *_score_pictures(grid, results, config, sets),
        *_time_picture(grid, results),
        *_profile_picture(grid, results, config, sets[0]),
        *_map_pictures(grid, results, sets),
    ]


def report(config: ReportConfig) -> Path:
    """Write the report of a folder of `tutelage compare` or `distill` and return the path of its page.

    Raises:
        GridError: when the folder is neither, or has no such test set.
    """
    resampling = Resampling(config.confidence, config.resamples, config.seed)
    if is_distillation(config.folder):
        from tutelage.experiments.reports.distill_report import report_distillation

        return report_distillation(config.folder, config.out, config.test_set, resampling)
    if (config.folder / SPECIALISTS).exists():
        from tutelage.experiments.reports.specialists_report import report_specialists

        return report_specialists(config.folder, config.out, resampling)
    grid = read_grid(config.folder)
    check_name("test set", config.test_set or grid.primary, grid.test_sets)
    how = asdict(resampling)
    rows = summary_table(grid, test_set=config.test_set, **how)
    drawn = {student: pictures(grid, student, config) for student in grid.students}
    said = {
        student: findings(grid, rows, student, test_set=config.test_set, confidence=config.confidence)
        for student in grid.students
    }
    out = config.out or config.folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    for picture in (picture for several in drawn.values() for picture in several):
        write_file(out / f"{folder_name(picture.name)}.png", picture.png)
    note = explanation(config.confidence, config.resamples)
    write_file(out / "summary.csv", csv_of(rows))
    write_file(out / "summary.md", render_markdown(grid, rows, said, note).encode())
    write_file(out / "report.html", render_html(grid, rows, said, drawn, note).encode())
    return out / "report.html"


if __name__ == "__main__":
    from tutelage.experiments.command import run_as_module

    sys.exit(run_as_module(ReportConfig))
