"""The report on a folder of `tutelage specialists`: how good each arm is, over the seeds."""

from __future__ import annotations

import html
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.experiments.reports import plots
from tutelage.experiments.reports.distill_summary import estimate, number
from tutelage.experiments.reports.page import (
    Picture,
    csv_of,
    document,
    figure,
    numbers_table,
    pairs,
    png_of,
    write_file,
)
from tutelage.experiments.runs.reading import GridError
from tutelage.experiments.runs.records import read_json
from tutelage.experiments.runs.statistics import Resampling

KINDS = {"training": "training tasks", "held_out": "tasks that no training shows"}
KEYS = {"success": "success, %", "worst_cluster": "worst cluster, %"}


def report_specialists(folder: Path, out: Path | None, resampling: Resampling) -> Path:
    """Write the report and return the path of its page.

    Args:
        folder: of the seeds.
        out: where to write; None: `report` inside of `folder`.
        resampling: how intervals are computed.

    Raises:
        GridError: when the folder's description is damaged, or no seed has finished.
    """
    described = read_json(folder / "specialists.json")
    seeds = described.get("seeds", [])
    results = {seed: read_json(folder / f"seed-{seed}" / "results.json") for seed in seeds}
    results = {seed: found for seed, found in results.items() if found}
    if not results:
        raise GridError(f"no seed in {folder} has finished; the same command goes on")
    arms = list(dict.fromkeys(arm for found in results.values() for arm in found["arms"]))
    rows = [
        _row(arm, [found["arms"][arm] for found in results.values() if arm in found["arms"]]) for arm in arms
    ]
    palette = plots.colours(arms, arms[0])
    how = asdict(resampling)
    panels = []
    for kind, title in KINDS.items():
        scores = {arm: _scores(results, arm, kind) for arm in arms}
        if any(len(values) for values in scores.values()):
            panels.append(
                (title, {arm: (values, estimate([values], **how)) for arm, values in scores.items()})
            )
    drawn = Picture(
        "final",
        "Success of each arm",
        "Each dot is a seed; diamonds are interquartile means with their intervals.",
        png_of(plots.final_scores(panels, palette, label="success, %", percent=True)),
    )
    out = out or folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "final.png", drawn.png)
    write_file(out / "summary.csv", csv_of(rows))
    figures = {f"{kind}_{key}": f"{KINDS[kind]}: {KEYS[key]}" for kind in KINDS for key in KEYS}
    head = ["arm", "seeds", "steps", *figures.values()]
    texts = [
        [row["arm"], str(row["seeds"]), number(row["steps"], 0), *(number(row[key]) for key in figures)]
        for row in rows
    ]
    title = f"{described.get('task')}: generalist and specialists, {len(results)} of {len(seeds)} seeds"
    note = (
        "Means over seeds, of fixed episodes. Steps are environment steps after the generalist; `continued` "
        "is PPO that went on for as many. The worst cluster: the lowest of those with enough episodes."
    )
    body = [f"<h1>{html.escape(title)}</h1>", numbers_table(head, texts, [palette[arm] for arm in arms], 0)]
    body += [f'<p class="note">{html.escape(note)}</p>', figure(drawn, wide=True)]
    body += ["<h2>How to repeat it</h2>", f"<pre>{html.escape(str(described.get('command')))}</pre>"]
    body.append(f"<p>{html.escape(pairs(described.get('versions', {})))}</p>")
    write_file(out / "report.html", document(title, body).encode())
    lines = [f"# {title}", "", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines += ["| " + " | ".join(cells) + " |" for cells in texts]
    write_file(out / "summary.md", "\n".join([*lines, "", note, ""]).encode())
    return out / "report.html"


def _scores(results: dict[int, dict[str, Any]], arm: str, kind: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = [one["arms"][arm][kind] for one in results.values() if arm in one["arms"]]
    return np.array([100 * part["success"] for part in found if part])


def _row(arm: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of an arm over its seeds; NaN where a figure cannot be had."""
    row: dict[str, Any] = {
        "arm": arm,
        "seeds": len(found),
        "steps": float(np.mean([one["steps"] for one in found])),
    }
    for kind in KINDS:
        for key in KEYS:
            values = [100 * one[kind][key] for one in found if one[kind].get(key) is not None]
            row[f"{kind}_{key}"] = float(np.mean(values)) if values else float("nan")
    return row
