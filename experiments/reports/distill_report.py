"""The report on a folder of `tutelage distill`: one page, pictures and tables, of as much as there is.

`tutelage report` comes here for such folders. It reads and computes with `distill_summary`, draws with
`distill_figures` and writes with `page` and `report`, as the report of `tutelage compare` does.
"""

from __future__ import annotations

import html
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.experiments.reports.distill_figures import EXPERT, figures, palette_of
from tutelage.experiments.reports.distill_results import Distillation, read_distillation
from tutelage.experiments.reports.distill_summary import (
    cost_table,
    number,
    run_rows,
    speed_table,
    success_table,
    summary_rows,
)
from tutelage.experiments.reports.page import (
    Picture,
    csv_of,
    document,
    figure,
    flat,
    numbers_table,
    pairs,
    words_table,
    write_file,
)
from tutelage.experiments.reports.summary import p_text
from tutelage.experiments.runs.reading import check_name
from tutelage.experiments.runs.statistics import Resampling

if TYPE_CHECKING:
    from pathlib import Path


SPEED_NOTE = (
    "Speed is on the main test set, where that was evaluated on the way. Seconds are of roll-outs and "
    "learning and, where a method has anything of the expert, of its training; all methods had the seconds "
    "of the second column. Runs that share a machine slow each other down. Frames and seconds to the "
    "expert's level: to the first evaluation that was as good, medians over all runs, a dash where half of "
    "them never got there."
)


def report_distillation(folder: Path, out: Path | None, test_set: str | None, resampling: Resampling) -> Path:
    """Write the report of a folder of `tutelage distill` and return the path of its page.

    Args:
        folder: of the runs.
        out: where to write; None: `report` inside of `folder`.
        test_set: to compare on; None: the main one.
        resampling: how intervals are computed.

    Raises:
        GridError: when the folder is none, or has no such test set.
    """
    found = read_distillation(folder)
    if test_set is not None:
        check_name("test set", test_set, found.test_sets)
        others = [name for name in found.test_sets if name != test_set]
        found = replace(found, test_sets=(test_set, *others))
    rows = summary_rows(found, **asdict(resampling))
    drawn = list(figures(found, resampling))
    out = out or folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    for picture in drawn:
        write_file(out / f"{picture.name}.png", picture.png)
    note = _explanation(resampling)
    said = _findings(found, rows, resampling.confidence)
    write_file(out / "summary.csv", csv_of(rows))
    write_file(out / "runs.csv", csv_of(run_rows(found)))
    write_file(out / "summary.md", _markdown(found, rows, said, note).encode())
    write_file(out / "report.html", _html(found, rows, said, drawn, note).encode())
    return out / "report.html"


def _explanation(resampling: Resampling) -> str:
    return (
        f"Success in percent of fixed episodes, the same for all. IQM: mean of the middle half of the runs. "
        f"Brackets: {100 * resampling.confidence:g} % bootstrap intervals over whole runs "
        f"({resampling.resamples:,} resamples, percentiles expanded for few runs). % of the expert's: mean "
        "of each run's share of its own expert's success. P(beats baseline): chance that a run scores above "
        "a run of the baseline, ties counted half. Held-out looks: colours, textures and lights of no "
        "training, cameras as in training; looks beyond: cameras too deviate more."
    )


def _findings(found: Distillation, rows: list[dict[str, Any]], confidence: float) -> list[str]:
    """Sentences on what is clearly different from the baseline, and what is not."""
    ended = [row for row in rows if row["runs"]]
    if not ended:
        return ["No run has finished yet."]
    best = max(ended, key=lambda row: float(row[found.main]))
    runs = f"{best['runs']} run{'s' * (best['runs'] != 1)}"
    which = "the highest mean" if len(ended) > 1 else "a mean"
    said = [f"{best['method']} has {which} success on {found.main}: {number(best[found.main])} % ({runs})."]
    if np.isfinite(best["share"]):
        said[0] = said[0][:-1] + f", {number(best['share'])} % of the expert's."
    tested = [row for row in ended if np.isfinite(row["difference_p_holm"])]
    for clear in (True, False):
        named = [
            f"{row['method']} ({row['difference_value']:+.1f} points, p {_p(row['difference_p_holm'])})"
            for row in tested
            if (row["difference_p_holm"] < 1 - confidence) is clear
        ]
        if named:
            text = "Clearly different" if clear else "Not clearly different"
            said.append(f"{text} from the baseline, {found.baseline}: {', '.join(named)}.")
    if len(ended) > 1 and not tested:
        said.append("No method and the baseline have two runs each: no difference can be tested.")
    few = min(row["runs"] for row in ended)
    if few < 5:
        said.append(
            f"With as few as {few} run{'s' * (few != 1)} for a method, intervals are rough, and only large "
            "differences can be told."
        )
    if different := _different(found):
        said.append(
            "Methods were not given the same settings: "
            + "; ".join(f"{key}: {', '.join(values)}" for key, values in different.items())
            + "."
        )
    return said


def _p(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _different(found: Distillation) -> dict[str, list[str]]:
    """Settings that differ between methods, beside the method: setting -> method and value."""
    configs = {run.method: run.config for run in found.runs if run.config}
    keys = dict.fromkeys(
        key for config in configs.values() for key in config if key not in ("method", "seed")
    )
    return {
        key: [f"{method} {flat(config.get(key))}" for method, config in configs.items()]
        for key in keys
        if len({flat(config.get(key)) for config in configs.values()}) > 1
    }


def _unfinished(found: Distillation) -> list[list[str]]:
    return [[run.name, run.state, run.message] for run in found.runs if not run.results]


def _html(
    found: Distillation, rows: list[dict[str, Any]], said: list[str], drawn: list[Picture], note: str
) -> str:
    last, palette = found.description["runs"][-1], palette_of(found)
    names = ", ".join(found.title(method) for method in found.methods)
    title = f"{found.description['task']}: {len(found.methods)} methods of distillation"
    if len(found.methods) == 1:
        title = f"{found.description['task']}: {names}"
    done, config = sum(bool(run.results) for run in found.runs), last["config"]
    seeds = len({run.seed for run in found.runs})
    lead = (
        f"{done} of {len(found.runs)} runs finished: {names}; {seeds} seed{'s' * (seeds != 1)}; the student "
        f"sees {config['obs']} of {', '.join(config['cameras'])} at {config['size']} x {config['size']} "
        f"pixels, looks {config['looks']} in training."
    )
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="lead">{html.escape(lead)}</p>']
    if bad := _unfinished(found):
        text = f"{len(bad)} of {len(found.runs)} runs are not finished; they are listed below."
        body.append(f'<div class="warning">{text} What they have evaluated so far is in the curves.</div>')
    body.append(f'<div class="findings">{"".join(f"<p>{html.escape(s)}</p>" for s in said)}</div>')
    colours = [palette[row["method"]] for row in rows]
    baseline = 0 if len(rows) > 1 else None
    for heading, statistic in (("Interquartile means", "_iqm"), ("Means", "")):
        head, *texts = success_table(found, rows, statistic)
        body.append(f"<h2>Success at the end: {heading.lower()}</h2>")
        body.append(numbers_table(head, texts, [*colours, palette[EXPERT]][: len(texts)], baseline))
    body.append(f'<p class="note">{html.escape(note)}</p>')
    head, *texts = speed_table(rows)
    body += ["<h2>Speed</h2>", numbers_table(head, texts, colours, baseline)]
    body.append(f'<p class="note">{html.escape(SPEED_NOTE)}</p>')
    head, *texts = cost_table(rows)
    body += ["<h2>Costs</h2>", numbers_table(head, texts, colours, baseline)]
    body.append(
        "<p class=\"note\">Environment steps are the student's frames and the steps of the expert's "
        "training, which is charged to every method that has anything of the expert. Expert queries are "
        "labels asked for.</p>"
    )
    body += ['<h2>Pictures</h2><div class="figures">']
    body += [figure(picture, wide=picture.name not in ("improvement", "time")) for picture in drawn]
    body.append("</div>")
    if bad:
        body.append("<h2>Runs that are missing, unfinished or failed</h2>")
        body.append(words_table(["run", "state", "message"], bad))
    body.append("<h2>How to repeat it</h2>")
    body += [f"<pre>{html.escape(run['command'])}</pre>" for run in found.description["runs"]]
    about = {"created": last["created"], **config, "test sets": ", ".join(found.test_sets)}
    about |= {"versions": pairs(last["versions"]), "machine": pairs(last["machine"])}
    about |= {
        f"expert of seed {seed}": ", ".join(f"{k} {flat(v)}" for k, v in expert["facts"].items())
        for seed, expert in found.experts.items()
    }
    body.append(words_table(["what", "value"], [[key, flat(value)] for key, value in about.items()]))
    return document(title, body)


def _markdown(found: Distillation, rows: list[dict[str, Any]], said: list[str], note: str) -> str:
    """Tables, findings, missing runs and commands, for a README or an issue."""
    out = [f"# {found.description['task']}", ""]
    out += [f"`{run['command']}`" for run in found.description["runs"]]
    tables = (success_table(found, rows, "_iqm"), success_table(found, rows), speed_table(rows))
    for head, *body in (*tables, cost_table(rows)):
        out += ["", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
        out += ["| " + " | ".join(texts) + " |" for texts in body]
    out += ["", f"The first table has interquartile means, the second means. {SPEED_NOTE}", ""]
    out += [*(f"- {sentence}" for sentence in said), "", note, ""]
    if bad := _unfinished(found):
        out += ["## Runs that are missing, unfinished or failed", ""]
        out += [f"- `{name}`: {state}, {message or 'no message'}" for name, state, message in bad] + [""]
    last = found.description["runs"][-1]
    out += [f"Versions: {pairs(last['versions'])}.", "", f"Machine: {pairs(last['machine'])}.", ""]
    return "\n".join(out)
