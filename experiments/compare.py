"""`tutelage compare`: a grid of task teachers, students and seeds, trained side by side and compared.

Each cell runs in a process of its own with one thread. A finished cell is never run twice: after a kill, the
same command skips what is finished and continues the rest. At the end come a table and a report.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tutelage.envs.contract.names import check_folder_names, folder_name
from tutelage.experiments.runs.config import GridConfig
from tutelage.experiments.runs.settings import Setting, parse_settings

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class CompareConfig:
    """Compare task teachers over seeds, in one environment. Options given here override the preset's.

    Examples: `tutelage compare --preset quick`, or
    `tutelage compare --env stump-tracks --teachers random alp-gmm riac --students ppo sac --seeds 10
    --steps 2_000_000 --workers 2 --out runs/x`.
    """

    preset: Literal["quick", "standard", "paper"] | None = None
    """quick: PointMassGate, or with --env a batched MuJoCo task (stump-walker, reach, ...): minutes on 2
    cores, quadruped-terrain over an hour. standard: StumpTracks, a workstation night. paper: the published
    protocol, 20 M steps and 16 seeds. Default: quick, where the environment's recipe has steps for it; else
    standard, as for stump-tracks and hexagon-tracks."""
    env: str | None = None
    """Environment: point-mass-gate, stump-walker, stump-tracks, reach, ... or of your own: module:Class of a
    Gymnasium environment or a batched task, or module:factory of the former."""
    teachers: tuple[str, ...] | None = None
    """Task teachers: random, target, oracle, adr, riac, covar-gmm, alp-gmm, or module:Class of your own."""
    students: tuple[str, ...] | None = None
    """Students: ppo, sac, td3, recurrent-ppo, ... or module:Class of any algorithm with SB3's interface."""
    seeds: int | None = None
    """How many seeds: 0, 1, ... each."""
    steps: int | None = None
    """Environment steps that each student trains."""
    evaluate_every: int | None = None
    """Steps from one evaluation and checkpoint to the next. Default: a twentieth of the steps."""
    baseline: str | None = None
    """Task teacher that the others are compared with. Default: the first of --teachers."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME.FIELD=VALUE")] = ()
    """Hyperparameters of task teachers and students: alp-gmm.fit-rate=100 ppo.learning-rate=1e-4
    ppo.policy-kwargs.net-arch=[64,64]. Several values make a sweep: alp-gmm.fit-rate=50,100,250."""
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Cells trained at once, one thread each. 0: one for each core."""
    out: Path | None = None
    """Folder of the results. Default: runs/<preset or environment>."""
    clips: bool = True
    """Record short clips of the first seed's students."""
    report: bool = True
    """Write the report at the end."""
    check: bool = False
    """First play some episodes with each task teacher, and name what is silently not taught: tasks that are
    not realised, results that do not arrive, proposals that never change; faults end the command."""

    def run(self) -> int:
        """Run the comparison; return the exit status."""
        return 1 if compare(self) else 0


class ComparisonError(ValueError):
    """A comparison that cannot be run as asked; the message says what to change."""


def preset(name: str, env: str | None = None, steps: int | None = None) -> GridConfig:
    """The grid of a preset. That of ``quick`` stands in the environment's recipe.

    Args:
        name: ``quick``, ``standard`` or ``paper``.
        env: the environment of ``quick``; default: point-mass-gate. The others have their own.
        steps: those of ``quick``, for an environment whose recipe has none.

    Raises:
        ValueError: when there is no such environment, or its recipe has no steps and there are none here.
    """
    from tutelage.experiments.worlds.catalogue import task_env_card
    from tutelage.students.sb3.presets import student_preset
    from tutelage.teachers import ALPGMMConfig, CovarGMMConfig, RIACConfig

    if name == "quick":
        env = env or "point-mass-gate"
        recipe = task_env_card(env).recipe
        steps = recipe.quick_steps or steps
        steps = steps or recipe.needed("quick_steps", env, "give --steps, or another --preset")
        task_teachers = recipe.quick_task_teachers or {"random": {}, "alp-gmm": {}}
        return GridConfig(
            env=env,
            task_teachers=task_teachers,
            students={"ppo": student_preset(recipe, "ppo")},
            seeds=tuple(range(recipe.quick_seeds)),
            steps=steps,
            evaluate_every=max(1, steps // recipe.quick_evaluations),
            baseline=next(iter(task_teachers)),
        )
    teachers = ("random", "adr", "riac", "covar-gmm", "alp-gmm")
    if name == "standard":
        return GridConfig(
            env="stump-tracks",
            task_teachers={t: {} for t in teachers},
            students={"ppo": student_preset("stump-tracks", "ppo")},
            seeds=tuple(range(5)),
            steps=5_000_000,
            evaluate_every=250_000,
            baseline="random",
        )
    published = {
        "riac": asdict(RIACConfig.teachmyagent()),
        "covar-gmm": asdict(CovarGMMConfig.teachmyagent()),
        "alp-gmm": asdict(ALPGMMConfig.teachmyagent()),
    }
    return GridConfig(
        env="stump-tracks/old-classic-bipedal",  # the body of the published benchmark
        task_teachers={name: published.get(name, {}) for name in teachers},
        students={"sac": student_preset("stump-tracks", "sac-paper")},
        seeds=tuple(range(16)),
        steps=20_000_000,
        evaluate_every=500_000,
        baseline="random",
    )


def resolve(config: CompareConfig) -> GridConfig:
    """The grid that the command asks for: the preset, and what was given besides.

    Raises:
        ComparisonError: when a name is unknown, a number makes no sense, or things do not go together.
    """
    try:
        settings = parse_settings(config.set)
        grid = _override(config, settings)
        _check(grid, config.workers, config.seeds, settings)
    except (ValueError, TypeError) as error:
        raise ComparisonError(str(error)) from None
    return grid


def _override(config: CompareConfig, settings: list[Setting]) -> GridConfig:
    from tutelage.experiments.runs.sweeps import expand
    from tutelage.experiments.worlds.catalogue import task_env_card
    from tutelage.students.sb3.presets import student_preset
    from tutelage.teachers import accepts, needs_knowledge

    recipe = task_env_card(config.env or "point-mass-gate").recipe
    usual = "quick" if config.env is None or recipe.quick_steps is not None else "standard"
    grid = preset(config.preset or usual, config.env, config.steps)
    if config.env is not None and (config.env != grid.env or not recipe.quick_task_teachers):
        card = task_env_card(config.env)
        space = card.task_space()
        usable = {
            name: fields
            for name, fields in grid.task_teachers.items()
            if accepts(name, space) and (card.knowledge is not None or not needs_knowledge(name))
        }
        students = dict(grid.students)
        if config.env.partition("/")[0] != grid.env.partition("/")[0]:  # another body keeps the preset's
            students = {name: student_preset(recipe, name) for name in students}
        grid = replace(grid, env=config.env, task_teachers=usable, students=students)
    if config.students is not None:
        own = recipe if config.env is not None else task_env_card(grid.env).recipe
        grid = replace(grid, students={name: student_preset(own, name) for name in config.students})
    if config.teachers is not None:
        tuned = grid.task_teachers
        grid = replace(grid, task_teachers={name: tuned.get(name, {}) for name in config.teachers})
    if config.seeds is not None:
        grid = replace(grid, seeds=tuple(range(config.seeds)))
    if config.steps is not None:
        grid = replace(grid, steps=config.steps, evaluate_every=max(1, config.steps // 20))
    if config.evaluate_every is not None:
        grid = replace(grid, evaluate_every=config.evaluate_every)
    if config.baseline is not None or grid.baseline not in grid.task_teachers:
        grid = replace(grid, baseline=config.baseline or next(iter(grid.task_teachers), ""))
    return expand(replace(grid, clips=config.clips), settings)


def _check(grid: GridConfig, workers: int, seeds: int | None, settings: list[Setting]) -> None:
    """Refuse what cannot work, before anything starts: every task teacher and student is built once."""
    import numpy as np

    from tutelage.envs.contract.taught import TaughtVecEnv
    from tutelage.experiments.worlds.catalogue import build_task_teacher, make_venv, task_env_card
    from tutelage.students.sb3.student import make_student

    for name, value in {
        "--seeds": seeds if seeds is not None else len(grid.seeds),
        "--steps": grid.steps,
        "--evaluate-every": grid.evaluate_every,
    }.items():
        if value < 1:
            raise ComparisonError(f"{name} is {value}; it must be at least 1")
    if workers < 0:
        raise ComparisonError(f"--workers is {workers}; it must be at least 1, or 0 for one for each core")
    if not grid.task_teachers or not grid.students:
        raise ComparisonError("name at least one of --teachers and one of --students")
    if grid.baseline not in grid.task_teachers:
        raise ComparisonError(
            f"--baseline {grid.baseline!r} is not among --teachers ({', '.join(grid.task_teachers)})"
        )
    check_folder_names("task teachers", grid.task_teachers)
    check_folder_names("students", grid.students)
    card = task_env_card(grid.env)
    space = card.task_space()
    for name, overrides in grid.task_teachers.items():
        with _naming_settings(settings, grid, name):
            build_task_teacher(grid.built_name(name), card, space, np.random.default_rng(0), overrides)
    some = build_task_teacher("random", card, space, np.random.default_rng(0))
    for name, student in grid.students.items():
        with _naming_settings(settings, grid, name):
            venv = TaughtVecEnv(make_venv(card, student.n_envs, student.workers), some)
            make_student(student, venv, seed=0, total_steps=grid.steps)
            venv.close()
    folders: dict[str, str] = {}
    for cell in grid.cells():
        other = folders.setdefault(cell.folder.lower(), name := f"{cell.student} with {cell.task_teacher}")
        if other != name:
            raise ComparisonError(f"{name} and {other} would share the folder {cell.folder}; leave one out")


@contextmanager
def _naming_settings(settings: list[Setting], grid: GridConfig, name: str) -> Iterator[None]:
    """Say which settings there are of what is refused, since they may be why."""
    mine = [setting for setting in settings if setting.is_for(grid.built_name(name))]
    try:
        yield
    except Exception as error:
        if not mine:
            raise
        values = " ".join(f"{setting.option}={','.join(setting.values)}" for setting in mine)
        raise ComparisonError(f"{values}: {error}") from None


def check_grid(grid: GridConfig, console: Console) -> bool:
    """Look with each task teacher for what is silently not taught; print it, and tell whether all is well."""
    import numpy as np
    from rich.markup import escape

    from tutelage.envs.contract.curriculum_check import check_curriculum
    from tutelage.experiments.worlds.catalogue import build_task_teacher, make_venv, task_env_card

    card, well = task_env_card(grid.env), True
    space = card.task_space()
    for label, fields in grid.task_teachers.items():
        name = grid.built_name(label)
        task_teacher = build_task_teacher(name, card, space, np.random.default_rng(0), fields)
        findings = check_curriculum(
            make_venv(card, 8),
            task_teacher,
            make_venv=lambda n: make_venv(card, n),
            adapts=name not in ("random", "target"),
        )
        console.print(escape(f"{label}: " + ("nothing to say" if not findings else "")))
        for finding in findings:
            well &= finding.severity != "error"
            console.print(escape(f"  {finding.severity}: {finding.message}"), soft_wrap=True)
    return well


def compare(config: CompareConfig) -> int:
    """Run the comparison; return the number of failed cells.

    Raises:
        ComparisonError: when the comparison cannot be run as asked.
        FolderError: when the folder is in use or of another comparison.
    """
    from rich.console import Console
    from rich.markup import escape

    from tutelage.experiments.runs.locking import check_kind, locked
    from tutelage.experiments.trainings.comparison import Comparison, print_summary

    console = Console()
    grid = resolve(config)
    program = "tutelage" if shutil.which("tutelage") else sys.argv[0]  # as it can be typed here
    if config.check and not check_grid(grid, console):
        return 1
    out = config.out or Path("runs") / (config.preset or folder_name(config.env or "quick"))
    check_kind(out, "grid.json")
    with locked(out, patience=2.0):
        comparison = Comparison(grid, out, command=shlex.join(["tutelage", *sys.argv[1:]]))
        watch = escape(f"TensorBoard, now or later: {program} watch {out}")
        console.print(escape(f"Results: {out}\n") + watch, soft_wrap=True)
        failed = comparison.run(config.workers or os.cpu_count() or 1, console)
        print_summary(out, console)
        if config.report:
            from tutelage.experiments.report import ReportConfig, report

            try:
                console.print(escape(f"Report: {report(ReportConfig(out))}"), soft_wrap=True)
            except Exception as error:  # the results are there, whatever a report makes of them
                console.print(escape(f"No report could be made ({error}); see: {program} report {out}"))
        console.print(watch, soft_wrap=True)
    return failed


if __name__ == "__main__":
    from tutelage.experiments.command import run_as_module

    sys.exit(run_as_module(CompareConfig))
