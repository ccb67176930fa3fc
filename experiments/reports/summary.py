"""The figures of a comparison: one table, and sentences on clear and unclear differences.

Stands between `runs` (arrays as read) and `report` (pages and pictures); `tutelage compare` prints the same
table when it ends. A run's score is its percentage of mastered test tasks, or its mean return over them
where the environment defines no success. Every interval resamples whole runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tutelage.experiments.runs.reading import FloatArray, Grid, Over, check_name
from tutelage.experiments.runs.statistics import (
    area_under_curve,
    bootstrap,
    holm,
    iqm,
    probability_of_improvement,
    welch,
)


@dataclass(frozen=True)
class Results:
    """Scores of one student, by test set and task teacher.

    Attributes:
        student: its name.
        percent: whether scores are percentages of mastered tasks; else mean returns.
        steps: evaluation steps, ``(evaluations,)``.
        at: index of the evaluation at which task teachers are compared: the last one that at least half of
            the runs with any evaluation have reached. Runs short of it are left out there.
        curves: test set -> task teacher -> ``(seeds, evaluations)``; NaN where a run has none.
        seconds, charged: task teacher -> ``(seeds, evaluations)``.
        final: test set -> task teacher -> ``(runs,)``, scores at the comparison.
        mastery: test set -> task teacher -> ``(runs, tasks)`` at the comparison: 0 or 100, or returns.
        returns: test set -> task teacher -> ``(runs, tasks)`` at the comparison.
    """

    student: str
    percent: bool
    steps: FloatArray
    at: int
    curves: dict[str, dict[str, FloatArray]]
    seconds: dict[str, FloatArray]
    charged: dict[str, FloatArray]
    final: dict[str, dict[str, FloatArray]]
    mastery: dict[str, dict[str, FloatArray]]
    returns: dict[str, dict[str, FloatArray]]

    @property
    def step(self) -> int:
        """Training step of the comparison; 0 where nothing has been evaluated."""
        return int(self.steps[self.at]) if len(self.steps) else 0

    @property
    def unit(self) -> str:
        """Unit of a score, for axes and table heads."""
        return "% mastered" if self.percent else "mean return"


def _mean_over_tasks(values: FloatArray) -> FloatArray:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=-1)
    total = np.nansum(values, axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def gather(grid: Grid, student: str, over: Over = "steps") -> Results:
    """Collect one student's scores on all test sets, and choose the step of the comparison."""
    percent = grid.has_success()
    sets = list(grid.test_sets)
    returned = {name: grid.scores(student, name, "return", over) for name in sets}
    counted = {name: grid.scores(student, name, "success", over) for name in sets} if percent else returned
    scale = 100.0 if percent else 1.0
    curves = {
        name: {task_teacher: scale * _mean_over_tasks(v) for task_teacher, v in counted[name].values.items()}
        for name in sets
    }
    primary = returned[grid.primary]
    there = np.concatenate([np.isfinite(v).all(axis=-1) for v in primary.values.values()])
    there = there[there.any(axis=1)]
    at = int(np.flatnonzero(there.sum(axis=0) * 2 >= len(there))[-1]) if there.any() else 0

    def at_comparison(table: dict[str, FloatArray], like: dict[str, FloatArray]) -> dict[str, FloatArray]:
        if not len(primary.steps):
            return {task_teacher: values[:0, ...] for task_teacher, values in table.items()}
        rows = {task_teacher: np.isfinite(v[:, at]).all(axis=-1) for task_teacher, v in like.items()}
        return {task_teacher: values[rows[task_teacher], at] for task_teacher, values in table.items()}

    return Results(
        student,
        percent,
        primary.steps,
        at,
        curves,
        primary.seconds,
        primary.charged,
        {name: at_comparison(curves[name], returned[name].values) for name in sets},
        {
            name: at_comparison(
                {t: scale * v for t, v in counted[name].values.items()}, returned[name].values
            )
            for name in sets
        },
        {name: at_comparison(returned[name].values, returned[name].values) for name in sets},
    )


def defined(scores: FloatArray) -> FloatArray:
    """The runs' scores that are numbers: success can be undefined on all of a test set's tasks."""
    return scores[np.isfinite(scores)]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def summary_table(
    grid: Grid,
    *,
    test_set: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    over: Over = "steps",
) -> list[dict[str, Any]]:
    """One row for each student and task teacher, the baseline's first.

    Args:
        grid: as read, complete or not.
        test_set: the test set to compare on; the grid's primary one by default.
        confidence, resamples: of the intervals.
        seed: of the resampling.
        over: compare after equal training steps, charged steps or seconds.

    Returns:
        Rows with the keys ``student``, ``task_teacher``, ``is_baseline``, ``runs`` (that count),
        ``runs_asked``, ``step`` (of the comparison) and ``unit``; for every test set ``<name>_iqm`` with
        ``_low`` and ``_high``, and ``<name>_mean``. On the test set compared on: ``mean_return``; ``area``
        with ``_low`` and ``_high`` (under the curve up to the comparison, in the score's unit);
        ``improvement`` with ``_low`` and ``_high`` (probability that a run beats one of the baseline);
        ``difference`` with ``_low``, ``_high``, ``_p`` (Welch, of the means) and ``_p_holm`` (over the
        student's task teachers). ``seconds`` of a run, and ``task_teacher_share`` of them. NaN where a
        figure cannot be had.

    Raises:
        GridError: when the grid has no such test set.
    """
    chosen = test_set or grid.primary
    check_name("test set", chosen, grid.test_sets)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for student in grid.students:
        results = gather(grid, student, over)
        ordered = sorted(grid.task_teachers, key=lambda name: name != grid.baseline)
        mine = [
            _row(grid, results, task_teacher, chosen, rng, confidence, resamples) for task_teacher in ordered
        ]
        for row, p in zip(mine, holm([row["difference_p"] for row in mine]), strict=True):
            row["difference_p_holm"] = float(p)
        rows += mine
    return rows


def _row(
    grid: Grid,
    results: Results,
    task_teacher: str,
    chosen: str,
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
) -> dict[str, Any]:
    cells = grid.cells_of(results.student, task_teacher)
    scores = defined(results.final[chosen][task_teacher])
    row: dict[str, Any] = {
        "student": results.student,
        "task_teacher": task_teacher,
        "is_baseline": task_teacher == grid.baseline,
        "runs": len(scores),
        "runs_asked": len(cells),
        "step": results.step,
        "unit": results.unit,
    }

    def put(key: str, samples: list[FloatArray], statistic: Any = iqm) -> None:
        value = low = high = math.nan
        if all(len(sample) for sample in samples):
            e = bootstrap(samples, statistic, rng, confidence=confidence, resamples=resamples)
            value, low, high = float(e.value), float(e.low), float(e.high)
        row[key], row[f"{key}_low"], row[f"{key}_high"] = value, low, high

    for name in [chosen, *(other for other in grid.test_sets if other != chosen)]:
        on_set = defined(results.final[name][task_teacher])
        put(f"{name}_iqm", [on_set])
        row[f"{name}_mean"] = _mean(list(on_set))
    row["mean_return"] = _mean(list(results.returns[chosen][task_teacher].reshape(-1)))
    upto = results.curves[chosen][task_teacher][:, : results.at + 1]
    whole = upto[np.isfinite(upto).all(axis=1)] if upto.shape[1] else upto[:0]
    put("area", [area_under_curve(results.steps[: results.at + 1], whole) if len(whole) else np.empty(0)])
    baseline = defined(results.final[chosen][grid.baseline])
    versus = [] if task_teacher == grid.baseline else [baseline]
    put("improvement", [scores, *(versus or [np.empty(0)])], probability_of_improvement)
    difference = welch(scores, baseline, confidence) if versus and len(scores) and len(baseline) else None
    for key in ("", "_low", "_high", "_p"):
        attribute = key.removeprefix("_") or "value"
        row[f"difference{key}"] = getattr(difference, attribute) if difference else math.nan
    row["difference_p_holm"] = math.nan
    finished = [cell.timings for cell in cells if cell.timings.get("total", 0) > 0]
    row["seconds"] = _mean([t["total"] for t in finished])
    row["task_teacher_share"] = _mean([t.get("task_teacher", math.nan) / t["total"] for t in finished])
    return row


def _number(value: float, digits: int = 0) -> str:
    return "–" if not math.isfinite(value) else f"{value:,.{digits}f}"


def _with_interval(row: dict[str, Any], key: str, digits: int) -> str:
    text = _number(row[key], digits)
    if math.isfinite(row[f"{key}_low"]):
        text += f" [{_number(row[f'{key}_low'], digits)}, {_number(row[f'{key}_high'], digits)}]"
    return text


def p_text(p: float) -> str:
    """A p-value as one writes it: three digits, or ``< 0.001``."""
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def readable(row: dict[str, Any]) -> dict[str, str]:
    """A row of `summary_table` as column head -> text, for terminals and pages."""
    sets = [key.removesuffix("_iqm") for key in row if key.endswith("_iqm")]
    digits = 0 if row["unit"].startswith("%") else 1
    out = {
        "student": row["student"],
        "task teacher": row["task_teacher"] + (" (baseline)" if row["is_baseline"] else ""),
        "runs": f"{row['runs']}" + (f" of {row['runs_asked']}" if row["runs"] < row["runs_asked"] else ""),
    }
    for index, name in enumerate(sets):
        out[f"{name}: {row['unit']}, IQM"] = _with_interval(row, f"{name}_iqm", digits)
        if index == 0:
            out[f"{name}: mean"] = _number(row[f"{name}_mean"], digits)
            out[f"{name}: return"] = _number(row["mean_return"], 1)
    out["P(beats baseline)"] = _with_interval(row, "improvement", 2)
    out["p (Holm)"] = p_text(row["difference_p_holm"])
    out["area under curve"] = _with_interval(row, "area", digits)
    out["seconds a run"] = _number(row["seconds"])
    share = 100 * row["task_teacher_share"]
    out["task teacher's share"] = "–" if not math.isfinite(share) else f"{share:.1f} %"
    return out


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


UNITS = {"steps": "steps", "charged": "charged steps", "seconds": "seconds"}


def findings(
    grid: Grid,
    rows: list[dict[str, Any]],
    student: str,
    *,
    test_set: str | None = None,
    confidence: float = 0.95,
    over: Over = "steps",
) -> list[str]:
    """Sentences on clear and unclear differences for one student.

    "Clearly" means: Welch's t-test on the runs' scores, p below ``1 - confidence`` after Holm's correction.

    Args:
        grid: as read.
        rows: of `summary_table`, for all students.
        student: which one.
        test_set, confidence: as given to `summary_table`.
    """
    chosen = test_set or grid.primary
    mine = {row["task_teacher"]: row for row in rows if row["student"] == student and row["runs"]}
    if not mine:
        return [f"No run of {student} has been evaluated yet."]
    digits = 0 if next(iter(mine.values()))["unit"].startswith("%") else 1
    unit = "points" if digits == 0 else "of return"
    step, alpha = next(iter(mine.values()))["step"], 1 - confidence
    ranked = sorted(mine, key=lambda name: -mine[name][f"{chosen}_mean"])
    best = mine[ranked[0]]
    level = len(mine) > 1 and best[f"{chosen}_mean"] == mine[ranked[-1]][f"{chosen}_mean"]
    score = f"on the test set “{chosen}”: {_number(best[f'{chosen}_mean'], digits)} {best['unit']}"
    if level:
        said = [f"After {step:,} {UNITS[over]}, all {len(mine)} task teachers have the same mean {score}."]
    else:
        which = "the highest" if len(mine) > 1 else "this"
        runs = f"{best['runs']} run{'s' * (best['runs'] != 1)}"
        within = f"(IQM {_with_interval(best, f'{chosen}_iqm', digits)}, {runs})"
        said = [f"After {step:,} {UNITS[over]}, {ranked[0]} has {which} mean {score} {within}."]
    tested = {name: row for name, row in mine.items() if math.isfinite(row["difference_p_holm"])}
    if tested:
        verdicts: dict[str, list[str]] = {"above": [], "below": [], "not": []}
        for name, row in sorted(tested.items(), key=lambda item: -item[1]["difference"]):
            amount = f"{name} ({row['difference']:+,.{digits}f} "
            if math.isfinite(row["difference_low"]):
                amount += f"[{row['difference_low']:+,.{digits}f}, {row['difference_high']:+,.{digits}f}] "
            amount += f"{unit}, p {_equals(row['difference_p_holm'])})"
            clear = row["difference_p_holm"] < alpha
            verdicts["not" if not clear else "above" if row["difference"] > 0 else "below"].append(amount)
        for side in ("above", "below"):
            if verdicts[side]:
                said.append(f"Clearly {side} the baseline, {grid.baseline}: {_listed(verdicts[side])}.")
        if verdicts["not"]:
            said.append(
                f"Not clearly different from the baseline, {grid.baseline}: {_listed(verdicts['not'])}."
            )
    elif len(mine) > 1:
        said.append("No task teacher and its baseline have two runs each: no difference can be tested.")
    said += [] if level else _best_against_rest(grid, student, ranked, chosen, alpha, over)
    few = min(row["runs"] for row in mine.values())
    if few < 5:
        said.append(
            f"With as few as {few} run{'s' * (few != 1)} for a task teacher, intervals are rough and only "
            "large differences can be detected: unclear ones may still be real."
        )
    short = sum(row["runs_asked"] - row["runs"] for row in rows if row["student"] == student)
    if short:
        were = "run has" if short == 1 else "runs have"
        said.append(
            f"{short} {were} no evaluation at step {step:,} and {'is' if short == 1 else 'are'} left out."
        )
    return said


def _equals(p: float) -> str:
    return p_text(p) if p < 0.001 else f"= {p:.3f}"


def _best_against_rest(
    grid: Grid, student: str, ranked: list[str], chosen: str, alpha: float, over: Over
) -> list[str]:
    """Whether the leader is clearly ahead, corrected for all pairs since it was chosen by its result."""
    final = {name: defined(scores) for name, scores in gather(grid, student, over).final[chosen].items()}
    pairs = list(combinations(ranked, 2))
    corrected = holm([welch(final[a], final[b]).p for a, b in pairs]) if pairs else np.empty(0)
    p = {b: float(value) for (a, b), value in zip(pairs, corrected, strict=True) if a == ranked[0]}
    ahead = [name for name in ranked[1:] if p[name] < alpha]
    open_ = [name for name in ranked[1:] if math.isfinite(p[name]) and name not in ahead]
    if not ahead and not open_:
        return []
    text = f"Over all {len(pairs)} pairs, {ranked[0]} is "
    parts = ([f"clearly ahead of {_listed(ahead)}"] if ahead else []) + (
        [f"not clearly ahead of {_listed(open_)}"] if open_ else []
    )
    return [text + ", but ".join(parts) + "."]
