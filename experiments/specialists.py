"""`tutelage specialists`: a generalist, specialists for clusters of tasks, and what is distilled of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

DESCRIPTION = "specialists.json"
"""Makes a folder one of `tutelage specialists`."""

TRAINING = "tutelage.experiments.trainings.specialists"

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
    workers: int = 1
    """Seeds at work at the same time, each in a process of one thread."""
    device: str = "cpu"
    """cpu or cuda."""

    def run(self) -> int:
        """Run all seeds; return the exit status."""
        return specialists(self)

    @property
    def folder(self) -> Path:
        """Where the seeds of this task lie."""
        return self.out or Path("runs") / f"specialists-{self.task.replace(':', '.').replace('/', '-')}"

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> SpecialistsConfig:
        """The inverse of `to_json`."""
        paths = {k: Path(values[k]) for k in ("out", "generalist") if values.get(k) is not None}
        return SpecialistsConfig(**{**values, **paths})

    def filled(self) -> SpecialistsConfig:
        """The config with the preset's numbers where none are given.

        Raises:
            ValueError: for a number out of range.
        """
        preset: dict[str, Any] = dict(PRESETS[self.preset])
        preset |= {name: given for name in preset if (given := getattr(self, name)) is not None}
        config = replace(self, **preset)
        for name in (*preset, "seeds", "workers", "sampled_tasks", "episodes", "learning_rate"):
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
    from rich.markup import escape

    from tutelage.envs.contract.state import write_json
    from tutelage.experiments.report import ReportConfig, report
    from tutelage.experiments.runs.grid import Charts, Member, provenance, run_grid
    from tutelage.experiments.runs.locking import check_kind, locked
    from tutelage.experiments.runs.pool import Job
    from tutelage.experiments.runs.records import read_json
    from tutelage.experiments.trainings.specialists import check_names

    config = config.filled()
    check_names(config)
    console, out = Console(), config.folder
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    check_kind(out, DESCRIPTION)
    with locked(out, patience=2.0):
        described = {"task": config.task, "seeds": list(seeds), "config": config.to_json()}
        write_json(
            out / DESCRIPTION,
            {"command": shlex.join(["tutelage", *sys.argv[1:]]), **provenance(), **described},
        )
        jobs = [
            Job(
                f"seed-{seed}",
                f"{TRAINING}:train_specialists",
                {"config": config.to_json(), "seed": seed},
                1,
                "arms",
                again=True,
            )
            for seed in seeds
        ]
        members = [Member(f"seed-{seed}", "specialists", seed) for seed in seeds]
        charts = Charts(
            metrics={"training": "success of the newest arm on training tasks, %"},
            curves={"training": "training"},
            final={"success_on_training_tasks/distilled": "distilled"},
            cells={
                "Arms": {
                    f"success on {k} tasks": [f"success_on_{k}_tasks/.*"] for k in ("training", "held_out")
                }
            },
        )
        failed = run_grid(out, jobs, members, charts, console, config.workers, preload=[TRAINING])
        results = [
            (seed, found) for seed in seeds if (found := read_json(out / f"seed-{seed}" / "results.json"))
        ]
        if results:
            console.print(results_table(config, results))
            console.print(escape(f"Report: {report(ReportConfig(out))}"), soft_wrap=True)
    console.print(escape(f"Everything is in {out}"), soft_wrap=True)
    return 1 if failed else 0


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
