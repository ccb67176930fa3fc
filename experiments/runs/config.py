"""What a comparison and its cells are, as plain data; `config.json` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.envs.contract.names import folder_name
from tutelage.students.sb3.config import StudentConfig


@dataclass(frozen=True)
class SweptEntry:
    """A task teacher or student of a sweep, which stands in its grid once for each combination of values.

    Attributes:
        name: without the values, as it is built: ``alp-gmm``.
        values: path of a swept field -> value: ``{"fit_rate": 50}``.
    """

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class CellConfig:
    """One student, one task teacher, one seed; JSON values only, so that ``config.json`` says everything.

    Attributes:
        env: name in the catalogue, or ``module:factory`` of a user's task environment.
        task_teacher: name, or ``module:Class`` of a user's own; in a sweep with the values that distinguish
            it, ``alp-gmm:fit-rate=50``.
        student: the student's name, for display; in a sweep, with values too.
        student_config: the student.
        seed: of everything random.
        steps: environment steps to train, at least.
        evaluate_every: steps from one evaluation, and checkpoint, to the next.
        task_teacher_config: fields that differ from the task teacher's defaults for this environment.
        clips: record short clips of the student; costs rendering.
        sweep: ``task_teacher`` or ``student`` -> its place in the sweep; empty without one, and then left out
            of ``config.json``.
    """

    env: str
    task_teacher: str
    student: str
    student_config: StudentConfig
    seed: int
    steps: int
    evaluate_every: int
    task_teacher_config: Mapping[str, Any] = field(default_factory=dict)
    clips: bool = False
    sweep: Mapping[str, SweptEntry] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values of all fields."""
        return {name: value for name, value in asdict(self).items() if name != "sweep" or value}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> CellConfig:
        """The inverse of `to_json`."""
        sweep = {part: SweptEntry(**entry) for part, entry in values.get("sweep", {}).items()}
        student = StudentConfig(**values["student_config"])
        return CellConfig(**{**values, "student_config": student, "sweep": sweep})

    @property
    def task_teacher_name(self) -> str:
        """The name that the task teacher is built by."""
        return self.sweep["task_teacher"].name if "task_teacher" in self.sweep else self.task_teacher

    @property
    def folder(self) -> str:
        """Where the cell lies in the folder of its grid, and its name in TensorBoard."""
        return f"{folder_name(self.student)}/{folder_name(self.task_teacher)}/seed-{self.seed}"


def hyperparameters(cell: CellConfig) -> dict[str, bool | int | float | str]:
    """What distinguishes the cell, as flat values for TensorBoard's HParams tab."""
    flat: dict[str, bool | int | float | str] = {
        "env": cell.env,
        "task_teacher": cell.task_teacher,
        "student": cell.student,
        "seed": cell.seed,
        "n_envs": cell.student_config.n_envs,
    }
    for prefix, values in (
        ("task_teacher", cell.task_teacher_config),
        ("student", cell.student_config.kwargs),
        *((part, entry.values) for part, entry in cell.sweep.items()),
    ):
        for name, value in values.items():
            flat[f"{prefix}.{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


@dataclass(frozen=True)
class GridConfig:
    """A comparison: every student with every task teacher and every seed, in one environment.

    Attributes:
        env: as in `CellConfig`.
        task_teachers: name -> fields that differ from the defaults.
        students: name -> config.
        seeds: one cell each.
        steps, evaluate_every: as in `CellConfig`.
        baseline: the task teacher that others are compared with.
        clips: record clips, in the first seed's cells.
        sweep: name of a task teacher or student -> its place in the sweep; empty without one.
    """

    env: str
    task_teachers: Mapping[str, Mapping[str, Any]]
    students: Mapping[str, StudentConfig]
    seeds: tuple[int, ...]
    steps: int
    evaluate_every: int
    baseline: str
    clips: bool = True
    sweep: Mapping[str, SweptEntry] = field(default_factory=dict)

    def built_name(self, name: str) -> str:
        """The name without the values of a sweep."""
        return self.sweep[name].name if name in self.sweep else name

    def cells(self) -> list[CellConfig]:
        """All cells, seed by seed, so that an interrupted grid has compared all task teachers equally."""
        return [
            CellConfig(
                env=self.env,
                task_teacher=task_teacher,
                student=student,
                student_config=config,
                seed=seed,
                steps=self.steps,
                evaluate_every=self.evaluate_every,
                task_teacher_config=overrides,
                clips=self.clips and seed == self.seeds[0],
                sweep={
                    part: self.sweep[name]
                    for part, name in (("task_teacher", task_teacher), ("student", student))
                    if name in self.sweep
                },
            )
            for seed in self.seeds
            for student, config in self.students.items()
            for task_teacher, overrides in self.task_teachers.items()
        ]
