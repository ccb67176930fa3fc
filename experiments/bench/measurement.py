"""Measurements of a benchmark, and their table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Measurement:
    """One line of `tutelage bench`.

    Attributes:
        case: name of the measured case, e.g. ``alp-gmm``.
        metric: which quantity, e.g. ``us_per_episode``.
        value: the number.
        unit: its unit, e.g. ``us``.
        ratio: value relative to the baseline named in `note`, where there is one.
        note: baseline, spread, number of repetitions.
    """

    case: str
    metric: str
    value: float
    unit: str
    ratio: float | None = None
    note: str = ""

    def to_json(self) -> str:
        """One JSON object on one line, without a ratio or note where there is none."""
        values = asdict(self)
        if self.ratio is None:
            del values["ratio"]
        if not self.note:
            del values["note"]
        return json.dumps(values)


def print_measurements(measurements: Iterable[Measurement], as_json: bool) -> None:
    """Print a table, or with `as_json` one object a line, each as soon as it is measured."""
    if as_json:
        for measurement in measurements:
            print(measurement.to_json(), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("case", "metric", "value", "unit", "ratio", "note")
    for m in measurements:
        table.add_row(
            m.case, m.metric, f"{m.value:,.4g}", m.unit, "" if m.ratio is None else f"{m.ratio:.3g}", m.note
        )
    Console().print(table)
