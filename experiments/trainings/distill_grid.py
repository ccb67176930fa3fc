"""The grid of `tutelage distill`: experts first, then students of all methods and seeds, in processes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tutelage.envs.batched.worlds.catalogue import vec_task_recipe
from tutelage.envs.contract.names import folder_name
from tutelage.envs.contract.state import write_json
from tutelage.experiments.distill import DistillConfig, only
from tutelage.experiments.reports.distill_results import DESCRIPTION, cells_of, described_card
from tutelage.experiments.runs.grid import Charts, Member, provenance, run_grid
from tutelage.experiments.runs.locking import FolderError, check_same_config
from tutelage.experiments.runs.pool import Job
from tutelage.experiments.trainings.distill_presets import on_the_way, test_sets
from tutelage.experiments.trainings.distilled_student import BY_SECOND, cell_description, hyperparameters
from tutelage.experiments.trainings.expert import expert_description, expert_name
from tutelage.students.distillation.machinery.registry import method_card

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.experiments.tensorboard.event_log import Layout

PRELOAD = (
    "tutelage.experiments.trainings.distilled_student",
    "tutelage.envs.batched.cameras.cpu_cameras",
    "tutelage.envs.contract.taught",
    "pandas",
    "pyarrow.parquet",
    "tensorboard.compat.proto.event_pb2",
)
"""What all cells import."""

CELL_LAYOUT: Layout = {
    "Student": {
        "success, student and expert": ["success_on_.*/(student|expert)"],
        "success while rolling out": ["success/roll_out"],
        "action error": ["action_error/.*"],
    },
    "Learning": {
        "loss": ["distillation/loss"],
        "who acts: the expert's share": ["distillation/expert_share"],
        "learning rate": ["distillation/learning_rate"],
        "of methods that learn from rewards": ["diagnostics/.*"],
    },
    "Cost": {
        "expert queries": ["cost/expert_queries"],
        "environment steps, the expert's included": ["cost/environment_steps"],
        "seconds, the expert's included": ["cost/seconds"],
        "frames per second": ["rates/.*"],
    },
}
"""The charts of one student."""


class DistillGrid:
    """The cells that one command asks for, in the folder of the task.

    Other methods and seeds may lie there, of earlier commands; the report shows all.

    Args:
        config: with all that preset and task decide filled in.
        command: what the user typed, for the report.

    Raises:
        FolderError: when the folder is of another task or other test sets, or a cell was made with another
            configuration.
    """

    def __init__(self, config: DistillConfig, command: str) -> None:
        self.config, self.out = config, config.folder
        self.cells = {
            f"{folder_name(method)}/seed-{seed}": (method, seed)
            for seed in config.seed_numbers
            for method in config.method
        }
        self.curves = {
            name: name.replace(" ", "_") for name in on_the_way(config.task, config.training_looks)
        }
        self._check()
        self._describe(command)

    def run(self, console: Console) -> list[Job]:
        """Run all cells that are not finished, `workers` at once; return those that failed."""
        config = self.config
        members = [
            Member(
                f"{folder_name(method)}/seed-{seed}",
                folder_name(method),
                seed,
                hyperparameters(config, method, seed),
            )
            for method, seed in cells_of(self.description)  # of earlier commands too
        ]
        main, tag = next(iter(self.curves.items()))
        charts = Charts(
            metrics={tag: f"success on {name}, %" for name, tag in self.curves.items()},
            curves=self.curves,
            final={f"success_on_{tag}/student": f"success on {main}"},
            cells=CELL_LAYOUT,
            logs=[BY_SECOND],
        )
        return run_grid(self.out, self.jobs(), members, charts, console, config.workers, preload=PRELOAD)

    def jobs(self) -> list[Job]:
        """Seed by seed: the expert, where a method has anything of it, then the students."""
        config, jobs = self.config, []
        asks = {method for method in config.method if method_card(method).expert != "nothing"}
        for seed in config.seed_numbers:
            if asks:
                values = {"config": config.to_json(), "seed": seed}
                target = "tutelage.experiments.trainings.expert:make_expert"
                jobs.append(
                    Job(
                        expert_name(seed),
                        target,
                        values,
                        config.expert_steps or vec_task_recipe(config.task).expert_steps,
                    )
                )
            for method in config.method:
                name = f"{folder_name(method)}/seed-{seed}"
                shown = (self.out / name / "pictures" / "saliency.png").exists()
                cell = replace(only(config, method), clips=config.clips and seed == config.first_seed)
                jobs.append(
                    Job(
                        name,
                        "tutelage.experiments.trainings.distilled_student:distil_student",
                        {"config": cell.to_json(), "seed": seed},
                        int(config.budget["frames"] if config.seconds is None else config.seconds),
                        "frames" if config.seconds is None else "seconds",
                        after=(expert_name(seed),) if method in asks else (),
                        again=config.saliency and not shown,
                    )
                )
        return jobs

    def _check(self) -> None:
        """Make sure that what is there, and what is asked for, can stand in one folder."""
        config = self.config
        for method, seed in self.cells.values():
            if method_card(method).expert != "nothing":
                path = self.out / expert_name(seed) / "config.json"
                if path.exists():  # and perhaps finished, so that nothing else would compare them
                    check_same_config(path, expert_description(config, seed))
            description = cell_description(config, method, seed)
            for path in self.out.glob(f"{folder_name(method)}/seed-*/config.json"):
                # Seeds of a method are averaged, so they differ in nothing else.
                own = path.parent.name == f"seed-{seed}"
                check_same_config(path, description, ignore=() if own else ("seed",))

    def _describe(self, command: str) -> None:
        """Add this command to the folder's description."""
        config, path = self.config, self.out / DESCRIPTION
        found: dict[str, Any] = {"runs": []}
        if path.exists():
            try:
                found = json.loads(path.read_text())
            except ValueError:
                raise FolderError(f"{path} is damaged; delete it, and no cell is lost") from None
            if found.get("task") != config.task:
                raise FolderError(f"{self.out} holds runs of {found.get('task')}; choose another --out")
        sets = list(test_sets(config.task, config.training_looks))
        if (others := found.get("test_sets", sets)) != sets:
            raise FolderError(
                f"what is in {self.out} is tested on {', '.join(others)}, and with --looks "
                f"{config.training_looks} that would be {', '.join(sets)}; choose another --out"
            )
        if (looks := found.get("looks", config.training_looks)) != config.training_looks:
            raise FolderError(
                f"what is in {self.out} learns from and is tested on looks that are called {looks}, not "
                f"{config.training_looks}; add --looks {looks}, or choose another --out"
            )
        entry = {"command": command, **provenance(), "methods": list(config.method)}
        entry |= {"seeds": list(config.seed_numbers), "config": config.decisive()}
        methods = {method for run in [*found["runs"], entry] for method in run["methods"]}
        if config.baseline is not None and config.baseline not in methods:
            known = ", ".join(sorted(methods))
            raise FolderError(f"no run of the baseline {config.baseline} is in {self.out}, only of: {known}")
        same = [run for run in found["runs"] if _of(run) == _of(entry)]  # the command that continues
        runs = [run for run in found["runs"] if run not in same]
        self.description = {
            "task": config.task,
            "baseline": config.baseline or found.get("baseline") or config.method[0],
            "test_sets": sets,
            "looks": config.training_looks,
            "runs": [*runs, entry],
        }
        own = {name: described_card(name) for name in config.method if ":" in name}
        if own or found.get("cards"):  # reports do not import a user's module
            self.description["cards"] = {**found.get("cards", {}), **own}
        write_json(path, self.description)


def _of(run: dict[str, Any]) -> dict[str, Any]:
    """What a command was, whenever it was given."""
    return {key: value for key, value in run.items() if key != "created"}
