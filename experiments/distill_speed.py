"""How fast the methods of a folder of `tutelage distill` learn: at equal frames, and at equal seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tutelage.experiments.distill_results import Distillation, Run
from tutelage.experiments.runs import FloatArray
from tutelage.experiments.statistics import area_under_curve

ENOUGH = 0.95
"""The share of its expert's success at which a student counts as good as its expert."""


def over_frames(found: Distillation, method: str) -> FloatArray:
    """Mean success in percent over the frames of training, on the main test set, of each finished run."""
    curves = [run.curves[found.main] for run in found.finished(method) if found.main in run.curves]
    return np.array([float(area_under_curve(frames, scores)) for frames, _, scores in curves])


def after_seconds(found: Distillation, method: str, seconds: float) -> FloatArray:
    """Success in percent after so many seconds, of each finished run, by its curve; 0 before that begins."""
    curves = [run.curves[found.main] for run in found.finished(method) if found.main in run.curves]
    return np.array([float(np.interp(seconds, times, scores, left=0.0)) for _, times, scores in curves])


def common_seconds(found: Distillation) -> float:
    """Mean seconds, with the expert's where charged, of the method that needed the fewest; NaN for none."""
    ends = [
        np.mean([run.curves[found.main][1][-1] for run in runs])
        for method in found.methods
        if (runs := [run for run in found.finished(method) if found.main in run.curves])
    ]
    return float(min(ends, default=math.nan))


def needed(found: Distillation, method: str) -> list[tuple[float, float]]:
    """Frames and seconds until a run has `ENOUGH` of its expert's success; infinite where it never has.

    What counts is the first evaluation that is as high, of as many episodes as evaluations on the way have.
    """
    return [_needed(found, run) for run in found.finished(method) if found.main in run.curves]


def _needed(found: Distillation, run: Run) -> tuple[float, float]:
    expert = found.experts.get(run.seed)
    aim = 100 * ENOUGH * (expert["success"][found.main] if expert else 1.0)
    frames, seconds, scores = run.curves[found.main]
    there = np.flatnonzero(scores >= aim - 1e-9)
    return (float(frames[there[0]]), float(seconds[there[0]])) if len(there) else (math.inf, math.inf)


def speed_figures(found: Distillation, method: str) -> Mapping[str, float]:
    """``runs_enough``, and medians over all runs of ``frames_needed`` and ``seconds_needed``."""
    pairs = needed(found, method)
    frames, seconds = np.median(pairs, axis=0) if pairs else (math.nan, math.nan)
    enough = sum(math.isfinite(frames) for frames, _ in pairs)
    return {"runs_enough": enough, "frames_needed": float(frames), "seconds_needed": float(seconds)}
