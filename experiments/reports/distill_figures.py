"""The pictures of the report on a folder of `tutelage distill`, drawn with `plots`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from tutelage.experiments.reports import plots
from tutelage.experiments.reports.distill_results import Distillation
from tutelage.experiments.reports.distill_summary import SECONDS, estimate
from tutelage.experiments.reports.page import Picture, png_of
from tutelage.experiments.runs.reading import FloatArray
from tutelage.experiments.runs.statistics import (
    Estimate,
    Resampling,
    iqm,
    mean,
    probability_of_improvement,
    sample_efficiency_curve,
    seconds_curve,
)

EXPERT = "expert"
PARTS = {
    "expert's training": "#e69f00",
    "roll-out": "#56b4e9",
    "learning": "#0072b2",
    "evaluation": "#bdbdbd",
}
"""What the seconds of a run go to, with the colour of each part."""

SEEN = {
    "training": "Looks of the training",
    "held-out looks": "Held-out looks",
    "held-out objects": "Held-out objects",
    "looks beyond": "Looks beyond those of the training in every respect",
    "beside what the expert knows": "What the student sees, beside what the expert knows",
}
"""Pictures in the folders of the cells, and their titles."""


def palette_of(found: Distillation) -> dict[str, str]:
    """A colour for each method and the expert."""
    return {**plots.colours(found.methods, found.baseline), EXPERT: plots.INK}


def figures(found: Distillation, resampling: Resampling) -> Iterator[Picture]:
    """Draw all that there is."""
    how = asdict(resampling)
    if any(run.curves for run in found.runs):
        yield from _curves(found, resampling)
    done = [method for method in found.methods if found.finished(method)]
    if done:
        palette = palette_of(found)
        panels = []
        for name in found.test_sets:
            runs = {method: found.scores(method, name) for method in done}
            if found.experts:
                runs[EXPERT] = found.expert_scores(name)
            panels.append((name, {m: (s, estimate([s], iqm, **how)) for m, s in runs.items()}))
        yield Picture(
            "final",
            "Success at the end",
            "Each dot is a run; diamonds are interquartile means with their intervals.",
            png_of(plots.final_scores(panels, palette, label="success, %", percent=True)),
        )
        yield from _improvement(found, done, how)
        yield from _errors(found, done, how)
        seconds = {
            method: {
                part: float(np.mean([run.results[key] for run in found.finished(method)]))
                for key, part in SECONDS.items()
                if key != "total_seconds"
            }
            for method in done
        }
        yield Picture(
            "time",
            "Where the time goes",
            "Mean seconds of a run. An expert that serves several methods is charged to each of them.",
            png_of(plots.time_shares(seconds, PARTS)),
        )
    yield from _seen(found)


def _curves(found: Distillation, resampling: Resampling) -> Iterator[Picture]:
    """Success against frames and against seconds, on the test sets that were evaluated on the way."""
    rng, palette = np.random.default_rng(resampling.seed), palette_of(found)
    sets = [
        name for name in found.test_sets if any(len(run.curves.get(name, ((),))[0]) > 1 for run in found.runs)
    ] or [found.main]
    how: dict[str, Any] = {"confidence": resampling.confidence, "resamples": resampling.resamples}
    by_frame, by_second = [], []
    for name in sets:
        lines: dict[str, tuple[FloatArray, Estimate]] = {}
        timed: dict[str, tuple[FloatArray, Estimate]] = {}
        for method in found.methods:
            curves = [run.curves[name] for run in found.of(method) if name in run.curves]
            if not curves:
                continue
            frames, seconds, scores = (_stack([curve[i] for curve in curves]) for i in range(3))
            e = sample_efficiency_curve(scores, rng, **how)
            lines[method] = (np.nanmean(frames, axis=0), e)
            timed[method] = seconds_curve(seconds, scores, rng, **how)
        for several in (lines, timed):
            if found.experts and several:
                ends = np.array([0.0, max(float(np.max(x)) for x, _ in several.values() if len(x))])
                level = np.full(2, float(iqm(found.expert_scores(name))))
                several[EXPERT] = (ends, Estimate(level, level, level))
        by_frame.append((name, lines))
        by_second.append((name, timed))
    band = f"IQM over runs, with pointwise {100 * resampling.confidence:g} % intervals"
    options: dict[str, Any] = {"y_label": "success, %, IQM over runs", "percent": True}
    yield Picture(
        "curves",
        "Success against frames",
        f"{band}. Frames are environment steps of the student's training; the expert's come on top, and are "
        "in the table of costs.",
        png_of(plots.curves(by_frame, palette, x_label="frames", **options)),
    )
    charged = [e["seconds"] for e in found.experts.values() if e["seconds"]]
    mark = float(np.mean(charged)) if charged else None
    text = f" The dotted line marks its mean length, {mark:.1f} s." if mark is not None else ""
    yield Picture(
        "curves-seconds",
        "Success against seconds",
        f"{band}. Seconds of roll-outs and learning and, of methods that have anything of the expert, of "
        f"its training.{text} Runs that share a machine slow each other down: read these curves side by side "
        "only.",
        png_of(plots.curves(by_second, palette, x_label="seconds of training", mark=mark, **options)),
    )


def _stack(rows: list[FloatArray]) -> FloatArray:
    """Rows of different lengths as one array; NaN behind the ends of the shorter."""
    stacked = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        stacked[i, : len(row)] = row
    return stacked


def _improvement(found: Distillation, done: list[str], how: dict[str, Any]) -> Iterator[Picture]:
    others = [method for method in done if method != found.baseline]
    if found.baseline not in done or not others:
        return
    baseline = found.scores(found.baseline, found.main)
    chances = {
        method: estimate([found.scores(method, found.main), baseline], probability_of_improvement, **how)
        for method in others
    }
    yield Picture(
        "improvement",
        f"Probability of improvement on {found.main}",
        "Ties count half.",
        png_of(plots.improvement(chances, palette_of(found), found.baseline)),
    )


def _errors(found: Distillation, done: list[str], how: dict[str, Any]) -> Iterator[Picture]:
    """Action errors, of the methods that an expert was there for."""
    values = {}
    for method in done:
        errors = [
            run.results["action_error"] for run in found.finished(method) if run.results["action_error"]
        ]
        if errors:
            values[method] = {
                joint: estimate([np.array([error[joint] for error in errors])], mean, **how)
                for joint in errors[0]
            }
    if values:
        measured = found.description["test_sets"][0]  # whichever one the report compares on
        yield Picture(
            "action-error",
            "How far actions are from the expert's",
            f"Mean absolute difference in the states that the student meets on {measured}, action by "
            "action; actions are from -1 to 1.",
            png_of(plots.bars(values, palette_of(found), label="action error")),
        )


def _seen(found: Distillation) -> Iterator[Picture]:
    """Pictures that the cells kept, one of each kind, and of each method what its actions depend on."""
    kept = [run.folder / "pictures" for run in found.runs if (run.folder / "pictures").is_dir()]
    for name, title in SEEN.items():
        paths = [folder / f"{name}.png" for folder in kept if (folder / f"{name}.png").exists()]
        if paths:
            where = paths[0].parent.parent.relative_to(found.folder)
            text = (
                f"As the student of {where} sees them: a row for each image, a column for each environment."
            )
            if name.startswith("beside"):
                text = (
                    f"{where}: the expert's view in standard deviations of its training, by index, and the "
                    "actions of both."
                )
            yield Picture(f"sees-{name.replace(' ', '-')}", title, text, paths[0].read_bytes())
    for method in found.methods:
        paths = [p for run in found.of(method) if (p := run.folder / "pictures" / "saliency.png").exists()]
        if paths:
            yield Picture(
                f"saliency-{method}",
                f"What the actions of {method} depend on",
                "Red: where blurring the picture moves the actions most (Greydanus et al. 2018), each "
                "picture by its own maximum.",
                paths[0].read_bytes(),
            )
