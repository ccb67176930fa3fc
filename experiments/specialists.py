"""`tutelage specialists`: a generalist, specialists for clusters of tasks, and what is distilled of them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

PRESETS: dict[str, dict[str, int]] = {
    "quick": {
        "clusters": 4,
        "iterations": 1,
        "generalist_steps": 400_000,
        "specialist_steps": 100_000,
        "distil_frames": 150_000,
    },
    "standard": {
        "clusters": 8,
        "iterations": 2,
        "generalist_steps": 1_000_000,
        "specialist_steps": 250_000,
        "distil_frames": 400_000,
    },
}
"""Sizes by preset; UniDexGrasp++ has 20 clusters and iterates until a cycle brings less than 0.5 %."""

ARMS = {
    "generalist": "generalist",
    "specialists": "specialists",
    "distilled": "distilled of them",
    "continued": "PPO for as long",
    "vision": "vision student",
}
"""Rows of the table, by names in ``results.json``."""


@dataclass(frozen=True)
class SpecialistsConfig:
    """Generalist-specialist learning (GiGSL of UniDexGrasp++), compared with training the generalist on.

    Trains a generalist by PPO; clusters tasks by their features (k-means); trains a copy of the generalist
    further on each cluster; distils these specialists into one generalist by DAgger, with its critic; perhaps
    again. Beside it the generalist is trained on by PPO for as many environment steps. Everything, with
    TensorBoard events, lies in runs/specialists-TASK/seed-K; a stage that is finished is not run again.
    """

    task: str = "lift-object"
    """Name of a batched task, or module:Class of your own."""
    preset: Literal["quick", "standard"] = "quick"
    """quick: minutes on two CPU cores; standard: more of everything, and two iterations."""
    seeds: int = 1
    """How many, each with a generalist of its own."""
    first_seed: int = 0
    """The first of them."""
    out: Path | None = None
    """Folder of all seeds; default: runs/specialists-TASK."""
    generalist: Path | None = None
    """An expert to begin with rather than train: a folder of ours, or the folder of a cell of compare."""
    task_teacher: str = "random"
    """Whose tasks the generalist is trained on, e.g. geo-curriculum."""
    clusters: int | None = None
    """Clusters of tasks, each with a specialist; default: the preset's."""
    iterations: int | None = None
    """Cycles of specialists and distillation; default: the preset's."""
    generalist_steps: int | None = None
    """Environment steps of the generalist's training; default: the preset's."""
    specialist_steps: int | None = None
    """Environment steps of each specialist's training; default: the preset's."""
    distil_frames: int | None = None
    """Environment steps of a distillation; default: the preset's."""
    learning_rate: float = 5e-4
    """PPO's, of specialists, and of the generalist that is trained on."""
    sampled_tasks: int = 20_000
    """Tasks that are drawn to find the clusters."""
    vision_frames: int = 0
    """Distil the last specialists also into a student that sees a camera, with so many frames; 0: do not."""
    episodes: int = 512
    """Episodes of an evaluation, on training and on held-out tasks each."""
    device: str = "cpu"
    """cpu or cuda."""

    def run(self) -> int:
        """Run all seeds; return the exit status."""
        return specialists(self)

    @property
    def folder(self) -> Path:
        """Where the seeds of this task lie."""
        return self.out or Path("runs") / f"specialists-{self.task.replace(':', '.').replace('/', '-')}"

    def filled(self) -> SpecialistsConfig:
        """The config with the preset's numbers where none are given.

        Raises:
            ValueError: for a number out of range.
        """
        preset: dict[str, Any] = dict(PRESETS[self.preset])
        preset |= {name: given for name in preset if (given := getattr(self, name)) is not None}
        config = replace(self, **preset)
        for name in (*preset, "seeds", "sampled_tasks", "episodes", "learning_rate"):
            if not getattr(config, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(config, name)}")
        if config.vision_frames < 0 or config.first_seed < 0:
            raise ValueError("vision_frames and first_seed must not be negative")
        if preset["clusters"] > config.sampled_tasks:
            raise ValueError(f"{config.sampled_tasks} sampled_tasks make no {preset['clusters']} clusters")
        return config


def specialists(config: SpecialistsConfig) -> int:
    """Run all stages of all seeds that are not finished, print the table; return the exit status.

    Raises:
        ValueError: for an unknown task or task teacher, or a number out of range: before anything is trained.
        FolderError: when a folder is in use, or was made with another configuration.
    """
    from rich.console import Console

    from tutelage.experiments.trainings.specialists_run import check_names, run_seed

    config = config.filled()
    check_names(config)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    results = [(seed, run_seed(config, seed, config.folder / f"seed-{seed}")) for seed in seeds]
    console = Console()
    console.print(results_table(config, results))
    console.print(f"Everything is in {config.folder}", soft_wrap=True)
    return 0


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a finished stage, or an empty dict."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return values


def results_table(config: SpecialistsConfig, results: list[tuple[int, dict[str, Any]]]) -> Table:
    """A row for each arm: means and ranges over the seeds; steps are those after the generalist."""
    from rich.table import Table

    count = f"{len(results)} seeds" if len(results) > 1 else f"seed {results[0][0]}"
    table = Table(title=f"{config.task}: success in %, {count}", title_justify="left")
    for name in ("", "training", "worst cluster", "held out", "worst cluster", "steps"):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for arm, words in ARMS.items():
        found = [result["arms"][arm] for _, result in results if arm in result["arms"]]
        if not found:
            continue
        cells = []
        for tasks in ("training", "held_out"):
            for key in ("success", "worst_cluster"):
                values = [100 * part[tasks][key] for part in found if part[tasks].get(key) is not None]
                cells.append(_mean_and_range(values) if values else "-")
        steps = sum(part["steps"] for part in found) / len(found)
        table.add_row(words, *cells, f"{steps:,.0f}")
    return table


def _mean_and_range(values: list[float]) -> str:
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    from tutelage.experiments.command import run_as_module

    sys.exit(run_as_module(SpecialistsConfig))
