"""Count the code, and what must be read of it to understand `tutelage compare` and `tutelage distill`.

::

    python tests/reading_size.py          # of the working tree
    python tests/reading_size.py FOLDER   # of another checkout

A walk begins at a command's module, and at those that it finds by name (a method, a training), and follows
all imports of product code: those within functions and under ``if TYPE_CHECKING:`` too, names that a package
offers lazily to where they live. It does not enter what a reader can take as given, `GIVEN` and what each
walk adds to it. Files are counted by their lines, docstrings and comments included.

Before the folders had rooms (commit 399bad1), this gave 6,308 lines in 35 files and 3,540 in 21, of 34,172.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

FOLDERS = ("envs", "teachers", "students", "experiments")


def product_modules(root: Path) -> dict[str, Path]:
    """Modules of the four folders: their names, ``tutelage.`` in front, and their files."""
    modules = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(["tutelage", *(part for part in parts if part != "__init__")])] = path
    return modules


def import_graph(modules: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """Which module imports which, and in which line first; wherever the import stands.

    Names that a package offers from its modules (``from module import name as name`` in its ``__init__``) are
    no imports of the package's own: who takes such a name from the package imports the module.
    """
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules.items()}
    offered: dict[str, dict[str, str]] = {}
    for name, tree in trees.items():
        if modules[name].name == "__init__.py":
            offered[name] = {
                alias.name: _home(node.module, alias.name, modules)
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module
                for alias in node.names
                if alias.asname == alias.name
            }
    graph: dict[str, dict[str, int]] = {}
    for name, tree in trees.items():
        found: dict[str, int] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets = [
                    offered.get(node.module, {}).get(alias.name) or _home(node.module, alias.name, modules)
                    for alias in node.names
                    if not (name in offered and alias.asname == alias.name)
                ]
            else:
                continue
            for target in targets:
                if target in modules and target != name:
                    found.setdefault(target, node.lineno)
        graph[name] = found
    return graph


def _home(module: str, name: str, modules: Mapping[str, Path]) -> str:
    """The module that ``from module import name`` means: a module of the package, or the package."""
    return f"{module}.{name}" if f"{module}.{name}" in modules else module


def reachable(graph: Mapping[str, Iterable[str]], starts: Iterable[str], given: Iterable[str]) -> list[str]:
    """Modules that a walk from some reaches without entering those that match a pattern of `given`."""
    waiting, seen = [name for name in starts if name in graph], set()
    while waiting:
        name = waiting.pop()
        if name not in seen and not any(fnmatchcase(name, f"tutelage.{pattern}") for pattern in given):
            seen.add(name)
            waiting += graph[name]
    return sorted(seen)


GIVEN = (
    # How results are drawn, written and read back.
    *("experiments.reports.*", "experiments.tensorboard.*", "experiments.tensorboard", "experiments.report"),
    *("experiments.*_report", "experiments.*_figures", "experiments.*_pictures", "experiments.*_results"),
    *("experiments.*_summary", "experiments.*_speed", "experiments.event_log", "experiments.clips"),
    *("experiments.statistics", "experiments.summary", "experiments.page", "experiments.plots"),
    *("experiments.pictures", "experiments.saliency", "experiments.runs", "experiments.runs.reading"),
    *("experiments.runs.statistics", "experiments.trainings.*_pictures"),
    # Environments, and how they are simulated.
    *("envs.batched.*", "envs.point_mass.*", "envs.stumps.*", "envs.toy.*", "envs.bipedal_tracks"),
    *("envs.gate_physics", "envs.point_mass_gate", "envs.stump_*", "envs.cube_toy", "envs.noise"),
    *("envs.contract.noise", "envs.contract.names", "envs.state", "envs.contract.state"),
    # Task teachers; their registry is read.
    *("teachers.continuous.*", "teachers.adr", "teachers.*gmm", "teachers.geo_curriculum", "teachers.riac"),
    *("teachers.knowledge", "teachers.mixture*", "teachers.oracle", "teachers.primitives"),
    *("teachers.target", "teachers.uniform", "teachers.expert_router", "teachers.experts.expert_router"),
)
"""Patterns of modules, in the rooms of today and as they were called before, that no walk enters."""


@dataclass(frozen=True)
class Walk:
    """One thing to understand.

    Attributes:
        title: what it is.
        starts: modules, without ``tutelage.``; those that do not exist are passed over.
        given: patterns of modules that it does not enter, beside `GIVEN`.
    """

    title: str
    starts: tuple[str, ...]
    given: tuple[str, ...]


WALKS = (
    Walk(
        "DAgger, as `tutelage distill` runs it",
        ("experiments.distill", "students.distillation.dagger"),
        (
            # The world is known by the contract of `VecTask`, its cards by their names.
            *("envs", "envs.*", "teachers", "experiments.worlds.*", "experiments.catalogue"),
            "experiments.cards",
            # How an expert learns is another subject: SB3, rsl_rl, and going on from given weights.
            *("students.sb3.*", "students.rsl_rl.*", "students.rsl_rl_*", "students.experts.*warm_start"),
            *("students.expert_warm_start", "students.checkpoint", "students.config", "students.presets"),
            *("students.student", "students.evaluation", "experiments.cell", "experiments.config"),
            *("experiments.compare", "experiments.runs.config"),
            *("experiments.worker", "experiments.runs.worker", "experiments.command"),
            # Other methods and other students.
            *("students.distillation.actor_critic", "students.distillation.machinery.actor_critic"),
            *("students.distillation.ppo", "students.ppo.*", "students.*aligned_student"),
            *("students.*onnx_export", "students.*warm_up"),
        ),
    ),
    Walk(
        "The compare loop, from the command line",
        ("experiments.compare", "experiments.trainings.taught_student"),
        (
            *("students.vision.*", "students.distillation.*", "students.experts.*", "students.torch_tools.*"),
            *("students.critics", "students.encoders", "students.onnx_export", "students.opponent_kernel"),
            *("students.pixels", "students.predictor", "students.running_moments", "students.threads"),
            *("students.sharded_gradients", "students.student_state", "students.vision_*"),
            *("teachers.experts", "teachers.experts.*", "experiments.distill_methods", "experiments.command"),
            "experiments.trainings.distill_*",
        ),
    ),
)


def main(root: Path, verbose: bool) -> None:
    """Print the numbers of a checkout; with `verbose`, the files too."""
    modules = product_modules(root)
    graph = import_graph(modules)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules.items()}
    print(f"{sum(lines.values()):6,} lines in {len(lines):3} files: all")
    for walk in WALKS:
        found = reachable(graph, [f"tutelage.{start}" for start in walk.starts], (*GIVEN, *walk.given))
        print(f"{sum(lines[name] for name in found):6,} lines in {len(found):3} files: {walk.title}")
        for name in found if verbose else ():
            print(f"       {lines[name]:5} {modules[name].relative_to(root)}")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--files"]
    main(Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1], "--files" in sys.argv)
