"""`tutelage compare`: a grid of task teachers, students and seeds, trained side by side and compared.

Each cell runs in a process of its own with one thread. A finished cell is never run twice: after a kill, the
same command skips what is finished and continues the rest. At the end come a table and a report.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tutelage.experiments.runs.config import GridConfig


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
    protocol, 20 M steps and 16 seeds. Default: standard for stump-tracks, hexagon-tracks and your own; quick
    for the others."""
    env: str | None = None
    """Environment: point-mass-gate, stump-walker, stump-tracks, reach, ... or module:factory of your own."""
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
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Cells trained at once, one thread each. 0: one for each core."""
    out: Path | None = None
    """Folder of the results. Default: runs/<preset or environment>."""
    clips: bool = True
    """Record short clips of the first seed's students."""
    report: bool = True
    """Write the report at the end."""

    def run(self) -> int:
        """Run the comparison; return the exit status."""
        return 1 if compare(self) else 0


class ComparisonError(ValueError):
    """A comparison that cannot be run as asked; the message says what to change."""


# Steps of the quick preset in batched tasks other than StumpWalker: what their PPO presets need.
_QUICK_STEPS = {
    "reach": 150_000,
    "ball-balance": 400_000,
    "push-cube": 1_250_000,
    "lift-object": 1_250_000,
    "quadruped-terrain": 6_000_000,
}


def preset(name: str, env: str | None = None) -> GridConfig:
    """The grid of a preset; ``quick`` has one for every batched environment."""
    from tutelage.students.sb3.presets import student_preset
    from tutelage.teachers import ALPGMMConfig, CovarGMMConfig, RIACConfig

    if name == "quick" and env == "stump-walker":
        return GridConfig(
            env=env,
            task_teachers={"random": {}, "riac": {}, "alp-gmm": {}},
            students={"ppo": student_preset(env, "ppo")},
            seeds=tuple(range(5)),
            steps=1_000_000,
            evaluate_every=125_000,
            baseline="random",
        )
    if name == "quick" and env in _QUICK_STEPS:
        return GridConfig(
            env=env,
            task_teachers={"random": {}, "alp-gmm": {}},
            students={"ppo": student_preset(env, "ppo")},
            seeds=tuple(range(5)),
            steps=_QUICK_STEPS[env],
            evaluate_every=_QUICK_STEPS[env] // 10,
            baseline="random",
        )
    if name == "quick":
        return GridConfig(
            env="point-mass-gate",
            # ALP-GMM as tuned for PPO on the point mass by the self-paced papers (Klink et al.).
            task_teachers={
                **{name: {} for name in ("target", "random", "riac", "covar-gmm")},
                "alp-gmm": {"fit_rate": 100, "random_ratio": 0.3, "max_history": 500},
            },
            students={"ppo": student_preset("point-mass-gate", "ppo")},
            seeds=tuple(range(8)),  # target training is lucky in about one run of ten
            steps=450_000,
            evaluate_every=45_000,
            baseline="target",
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
        grid = _override(config)
        _check(grid, config.workers, config.seeds)
    except (ValueError, TypeError) as error:
        raise ComparisonError(str(error)) from None
    return grid


def _override(config: CompareConfig) -> GridConfig:
    from tutelage.envs.contract.tasks import BoxTasks
    from tutelage.experiments.worlds.catalogue import task_env_card
    from tutelage.students.sb3.presets import student_preset
    from tutelage.teachers import needs_knowledge

    long = config.env is not None and (
        ":" in config.env or config.env.startswith(("stump-tracks", "hexagon"))
    )
    grid = preset(config.preset or ("standard" if long else "quick"), config.env)
    if config.env is not None and config.env != grid.env:
        card = task_env_card(config.env)
        usable = dict(grid.task_teachers)
        if card.knowledge is None:
            usable = {name: fields for name, fields in usable.items() if not needs_knowledge(name)}
        if not isinstance(card.task_space(), BoxTasks):
            usable = {"random": {}}
        students = dict(grid.students)
        if config.env.partition("/")[0] != grid.env.partition("/")[0]:  # another body keeps the preset's
            students = {name: student_preset(config.env, name) for name in students}
        grid = replace(grid, env=config.env, task_teachers=usable, students=students)
    if config.students is not None:
        grid = replace(grid, students={name: student_preset(grid.env, name) for name in config.students})
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
    return replace(grid, clips=config.clips)


def _check(grid: GridConfig, workers: int, seeds: int | None = None) -> None:
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
    card = task_env_card(grid.env)
    space = card.task_space()
    for name, overrides in grid.task_teachers.items():
        build_task_teacher(name, card, space, np.random.default_rng(0), overrides)
    some = build_task_teacher("random", card, space, np.random.default_rng(0))
    for student in grid.students.values():
        venv = TaughtVecEnv(make_venv(card, student.n_envs, student.workers), some)
        make_student(student, venv, seed=0, total_steps=grid.steps)
        venv.close()


def compare(config: CompareConfig) -> int:
    """Run the comparison; return the number of failed cells.

    Raises:
        ComparisonError: when the comparison cannot be run as asked.
        FolderError: when the folder is in use or of another comparison.
    """
    from rich.console import Console
    from rich.markup import escape

    from tutelage.experiments.runs.locking import locked
    from tutelage.experiments.trainings.comparison import Comparison, print_summary

    console = Console()
    grid = resolve(config)
    program = "tutelage" if shutil.which("tutelage") else sys.argv[0]  # as it can be typed here
    out = config.out or Path("runs") / (
        config.preset or (config.env or "quick").replace(":", ".").replace("/", "-")
    )
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
