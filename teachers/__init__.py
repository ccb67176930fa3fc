"""What decides which task a student meets next: task teachers, one file each.

`TASK_TEACHERS` is the whole list. Every one is built from a task space, a generator and a frozen config, and
has `propose`, `observe`, `metrics`, `state_dict`, `load_state_dict` and `picture`
(`tutelage.envs.interface.TaskTeacher`). Modules are imported on first use.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tutelage.envs.interface import TaskTeacher
from tutelage.envs.tasks import TaskSpace
from tutelage.teachers.knowledge import TaskKnowledge

TASK_TEACHERS: dict[str, tuple[str, str]] = {
    "random": ("tutelage.teachers.random", "Random"),
    "target": ("tutelage.teachers.target", "TargetOnly"),
    "oracle": ("tutelage.teachers.oracle", "Oracle"),
    "adr": ("tutelage.teachers.adr", "ADR"),
    "riac": ("tutelage.teachers.riac", "RIAC"),
    "covar-gmm": ("tutelage.teachers.covar_gmm", "CovarGMM"),
    "alp-gmm": ("tutelage.teachers.alp_gmm", "ALPGMM"),
}
"""Name on the command line -> module and class; the config class is the class's name with ``Config``."""


def make_task_teacher(
    name: str,
    space: TaskSpace,
    rng: np.random.Generator,
    knowledge: TaskKnowledge | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TaskTeacher:
    """Build a task teacher by name, or by ``module:Class`` a user's own, which takes ``(space, rng)``.

    Args:
        name: a key of `TASK_TEACHERS`, or ``module:Class``.
        space: the tasks it may propose.
        rng: all its randomness.
        knowledge: expert knowledge of the environment, for methods that need some.
        overrides: config fields that differ from the method's defaults.

    Raises:
        ValueError: when there is no such task teacher, or it needs knowledge that there is not.
        TypeError: when it cannot propose from this kind of task space.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"task teacher {name!r} cannot be imported: {error}") from None
        made: TaskTeacher = cls(space, rng, **(overrides or {}))
        return made
    if name not in TASK_TEACHERS:
        near = difflib.get_close_matches(name, TASK_TEACHERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown task teacher {name!r}{hint} (known: {', '.join(TASK_TEACHERS)}; or module:Class of your own)"
        )
    home, class_name = TASK_TEACHERS[name]
    module_ = importlib.import_module(home)
    cls, config_class = getattr(module_, class_name), getattr(module_, f"{class_name}Config")
    fields = dict(overrides or {})
    if hasattr(config_class, "for_environment"):
        config = config_class.for_environment(knowledge or TaskKnowledge(), **fields)
    else:
        config = config_class(**fields)
    teacher: TaskTeacher = cls(space, rng, config)
    return teacher
