"""The report's page and its Markdown: tables, sentences and pictures put into text.

Knows nothing of how figures are computed or drawn. The page loads nothing from elsewhere, so that it can be
mailed, archived and printed.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.envs.contract.state import atomic_file
from tutelage.experiments.reports.plots import colours
from tutelage.experiments.reports.summary import readable
from tutelage.experiments.runs.reading import Cell, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One figure of the report: file name without ending, title, what it shows, PNG bytes."""

    name: str
    title: str
    caption: str
    png: bytes


_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { color: #1a1a1a; background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif;
  max-width: 1180px; margin: 0 auto; padding: 28px 32px 56px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 38px 0 8px; padding-top: 12px; border-top: 2px solid #1a1a1a; }
h3 { font-size: 15px; margin: 0 0 2px; }
p { margin: 6px 0; max-width: 80ch; }
.lead { color: #444; margin-bottom: 14px; }
.findings { background: #f4f6f8; border-left: 4px solid #0072b2; padding: 10px 16px; margin: 14px 0; }
.findings p { margin: 4px 0; max-width: none; }
.warning { background: #fdf3e7; border-left: 4px solid #d55e00; padding: 10px 16px; margin: 14px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; margin: 10px 0;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 8px; vertical-align: top; border-bottom: 1px solid #dcdcdc; }
th { vertical-align: bottom; border-bottom: 1.5px solid #1a1a1a; font-weight: 600; line-height: 1.25; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
td + td { white-space: nowrap; }
.words td + td { white-space: normal; overflow-wrap: anywhere; }
td .interval { display: block; color: #5c5c5c; font-size: 12px; }
td .swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px; }
tr.baseline td { background: #f7f7f7; }
.note { color: #555; font-size: 13px; }
.figures { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 26px 30px;
  margin-top: 18px; }
figure { margin: 0; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #555; font-size: 13px; margin-top: 2px; max-width: 90ch; }
pre, code { font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
pre { background: #f4f6f8; padding: 10px 14px; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { body { font-size: 10.5pt; padding: 0; max-width: none; } h2 { break-after: avoid; }
  table { font-size: 8.5pt; } tr { break-inside: avoid; } .scroll { overflow: visible; } }
@page { size: A4 landscape; margin: 14mm; }
"""


def _cell_text(text: str) -> str:
    """A table entry; its interval, if it has one, goes to a line of its own."""
    value, bracket, rest = html.escape(text).partition(" [")
    return f'{value}<span class="interval">[{rest}</span>' if bracket else value


def numbers_table(head: list[str], rows: list[list[str]], swatches: list[str], baseline: int | None) -> str:
    """A table of figures, intervals in brackets, as HTML.

    Args:
        head: of the columns.
        rows: texts.
        swatches: a colour for each row.
        baseline: the row that others are compared with, if any.
    """
    top = "".join(f"<th>{html.escape(key)}</th>" for key in head)
    body = []
    for i, (texts, colour) in enumerate(zip(rows, swatches, strict=True)):
        entries = "".join(f"<td>{_cell_text(text)}</td>" for text in texts)
        swatch = f'<td><span class="swatch" style="background:{colour}"></span>'
        kind = ' class="baseline"' if i == baseline else ""
        body.append(f"<tr{kind}>{entries.replace('<td>', swatch, 1)}</tr>")
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _headline(rows: list[dict[str, Any]], palette: dict[str, str]) -> str:
    shown = [{key: text for key, text in readable(row).items() if key != "student"} for row in rows]
    baselines = [i for i, row in enumerate(rows) if row["is_baseline"]]
    swatches = [palette[row["task_teacher"]] for row in rows]
    texts = [list(row.values()) for row in shown]
    return numbers_table(list(shown[0]), texts, swatches, baselines[0] if baselines else None)


def figure(picture: Picture, wide: bool = True) -> str:
    """A picture with its title and caption, as HTML."""
    data = base64.b64encode(picture.png).decode("ascii")
    title = html.escape(picture.title)
    return (
        f"<figure{' class=wide' if wide else ''}><h3>{title}</h3>"
        f'<img alt="{title}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
    )


def document(title: str, body: list[str]) -> str:
    """The whole page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_CSS}</style></head><body>'
        + "\n".join(body)
        + "</body></html>\n"
    )


def words_table(head: list[str], rows: list[list[str]]) -> str:
    """A table of plain text."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    top = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    return f'<table class="words"><thead><tr>{top}</tr></thead><tbody>{cells}</tbody></table>'


def unfinished(grid: Grid) -> list[Cell]:
    """The cells that are not finished, or whose files are damaged."""
    return [cell for cell in grid.cells if cell.state != "finished"]


def _cell_row(cell: Cell) -> list[str]:
    return [cell.name, cell.state, f"{cell.step:,} of {cell.steps:,}", cell.message, cell.last_log_line]


def flat(value: Any) -> str:
    """A value of a config in words."""
    return value if isinstance(value, str) else json.dumps(value)


def explanation(confidence: float, resamples: int) -> str:
    """Explain the columns of the table in one paragraph."""
    return (
        f"IQM: mean of the middle half of the runs. Brackets: {100 * confidence:g} % bootstrap intervals "
        f"over whole runs ({resamples:,} resamples, percentiles expanded for few runs). P(beats baseline): "
        "chance that a run scores above a run of the baseline, ties counted half. p: Welch's t-test of the "
        "means against the baseline, corrected by Holm over the task teachers of this table. Area under "
        "curve: mean height of the learning curve up to the comparison. Task teacher's share: time spent "
        "proposing and observing, of the whole run."
    )


def render_html(
    grid: Grid,
    rows: list[dict[str, Any]],
    said: dict[str, list[str]],
    drawn: dict[str, list[Picture]],
    note: str,
) -> str:
    """The page, with every picture inside it.

    Args:
        grid: as read.
        rows: of `summary_table`.
        said, drawn: student -> sentences, pictures.
        note: what the columns mean.
    """
    palette, env = colours(grid.task_teachers, grid.baseline), grid.env
    title = f"{env['name']}: {len(grid.task_teachers)} task teachers compared"
    done = sum(cell.state == "finished" for cell in grid.cells)
    lead = (
        f"{done} of {len(grid.cells)} runs finished: student{'s' * (len(grid.students) > 1)} "
        f"{', '.join(grid.students)}, "
        f"{len(grid.task_teachers)} task teachers, {len(grid.seeds)} seeds, {grid.steps:,} steps each. "
        f"Mastered: {env.get('mastered', 'as the environment defines success')}. Test sets: "
        + ", ".join(f"{name} ({len(tasks)} tasks)" for name, tasks in grid.test_sets.items())
        + "."
    )
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="lead">{html.escape(lead)}</p>']
    if bad := unfinished(grid):
        text = (
            f"{len(bad)} of {len(grid.cells)} runs are not finished or cannot be used; they are listed below."
        )
        body.append(f'<div class="warning">{text} Their evaluations so far are in the curves.</div>')
    for student in grid.students:
        mine = [row for row in rows if row["student"] == student]
        body.append(f"<h2>Student {html.escape(student)}, at step {mine[0]['step']:,}</h2>")
        sentences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in said[student])
        body.append(f'<div class="findings">{sentences}</div>')
        body.append(_headline(mine, palette))
        body.append(f'<p class="note">{html.escape(note)}</p><div class="figures">')
        for picture in drawn[student]:
            body.append(figure(picture, wide=not picture.name.startswith(("improvement-", "time-"))))
        body.append("</div>")
    if bad:
        body.append("<h2>Runs that are missing, unfinished or failed</h2>")
        head = ["run", "state", "steps", "message", "last line of its log"]
        body.append(words_table(head, [_cell_row(cell) for cell in bad]))
    body.append("<h2>How to repeat it</h2>")
    body.append(f"<pre>{html.escape(str(grid.description.get('command', '')))}</pre>")
    about = {"created": grid.description.get("created", ""), "environment": env.get("id", env["name"])}
    about |= {"environment's arguments": env.get("kwargs", {}), "task space": env["task_space"]}
    about |= {f"task teacher {k}": v for k, v in grid.description["task_teachers"].items()}
    about |= {f"student {k}": v for k, v in grid.description["students"].items()}
    about |= {"seeds": list(grid.seeds), "evaluated every": f"{grid.evaluate_every:,} steps"}
    about |= {
        "versions": pairs(grid.description.get("versions")),
        "machine": pairs(grid.description.get("machine")),
    }
    body.append(words_table(["what", "value"], [[key, flat(value)] for key, value in about.items()]))
    return document(title, body)


def pairs(mapping: Any) -> str:
    """A flat mapping in words: versions, a machine."""
    return ", ".join(f"{key} {value}" for key, value in mapping.items()) if isinstance(mapping, dict) else ""


def render_markdown(grid: Grid, rows: list[dict[str, Any]], said: dict[str, list[str]], note: str) -> str:
    """Table, findings, missing runs and command, for a README or an issue."""
    out = [f"# {grid.env['name']}", "", f"`{grid.description.get('command', '')}`", ""]
    for student in grid.students:
        mine = [readable(row) for row in rows if row["student"] == student]
        heads = [head for head in mine[0] if head != "student"]
        out += [f"## Student {student}", ""]
        out += ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
        out += ["| " + " | ".join(row[head] for head in heads) + " |" for row in mine]
        out += ["", *(f"- {sentence}" for sentence in said[student]), ""]
    out += [note, ""]
    if bad := unfinished(grid):
        out += ["## Runs that are missing, unfinished or failed", ""]
        out += [f"- `{c.name}`: {c.state}, {c.message or c.last_log_line or 'no message'}" for c in bad]
        out.append("")
    out += [f"Versions: {pairs(grid.description.get('versions'))}.", ""]
    out += [f"Machine: {pairs(grid.description.get('machine'))}.", ""]
    return "\n".join(out)


def png_of(figure: Figure) -> bytes:
    """A figure as a PNG file's contents."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Write all or nothing: a full disk leaves the report of before."""
    with atomic_file(path) as part:
        part.write_bytes(data)


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    """Rows of the same keys as CSV; NaN as nothing."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows
    )
    return table.getvalue().encode()
