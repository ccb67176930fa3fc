"""How fast the methods of a folder of `tutelage distill` learn: at equal frames, and at equal seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tutelage.experiments.reports.distill_results import Distillation, Run
from tutelage.experiments.runs.reading import FloatArray
from tutelage.experiments.runs.statistics import area_under_curve

ENOUGH = 0.95
"""The share of its expert's success at which a student counts as good as its expert."""


def timed(found: Distillation, method: str) -> list[Run]:
    """The finished runs that tell of speed: those evaluated on the main test set on the way too."""
    return [run for run in found.finished(method) if len(run.curves.get(found.main, ((),))[0]) > 1]


def over_frames(found: Distillation, method: str) -> FloatArray:
    """Mean success in percent over the frames of training, of each run in `timed`."""
    curves = [run.curves[found.main] for run in timed(found, method)]
    return np.array([float(area_under_curve(frames, scores)) for frames, _, scores in curves])


def after_seconds(found: Distillation, method: str, seconds: float) -> FloatArray:
    """Success in percent after so many seconds, of each run in `timed`; 0 before its first evaluation."""
    curves = [run.curves[found.main] for run in timed(found, method)]
    return np.array([float(np.interp(seconds, times, scores, left=0.0)) for _, times, scores in curves])


def common_seconds(found: Distillation) -> float:
    """Mean seconds, with the expert's where charged, of the method that needed the fewest; NaN for none."""
    ends = [
        np.mean([run.curves[found.main][1][-1] for run in runs])
        for method in found.methods
        if (runs := timed(found, method))
    ]
    return float(min(ends, default=math.nan))


def needed(found: Distillation, method: str) -> list[tuple[float, float]]:
    """Frames and seconds until a run in `timed` has `ENOUGH` of its expert's success; infinite if never.

    What counts is the first evaluation that is as high, of as many episodes as evaluations on the way have.
    A run whose seed has no expert needs `ENOUGH` of all episodes; no success at all is never enough, whatever
    the expert's.
    """
    return [_needed(found, run) for run in timed(found, method)]


def _needed(found: Distillation, run: Run) -> tuple[float, float]:
    expert = found.experts.get(run.seed)
    aim = 100 * ENOUGH * (expert["success"][found.main] if expert else 1.0)
    frames, seconds, scores = run.curves[found.main]
    there = np.flatnonzero((scores >= aim - 1e-9) & (scores > 0))
    return (float(frames[there[0]]), float(seconds[there[0]])) if len(there) else (math.inf, math.inf)


def speed_figures(found: Distillation, method: str) -> Mapping[str, float]:
    """``runs_timed``, of them ``runs_enough``, and medians of ``frames_needed`` and ``seconds_needed``."""
    pairs = needed(found, method)
    frames, seconds = np.median(pairs, axis=0) if pairs else (math.nan, math.nan)
    return {
        "runs_timed": len(pairs),
        "runs_enough": sum(math.isfinite(frames) for frames, _ in pairs),
        "frames_needed": float(frames),
        "seconds_needed": float(seconds),
    }
