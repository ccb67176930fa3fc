"""Task teachers, which decide which task a student meets next; and experts, which show it what to do.

Each method is one file, from its paper, and has the same interface (`TaskTeacher`):
built from a task space, a `numpy.random.Generator` and a frozen config, it proposes tasks in batches and
observes the episodes that came of them.

================  =============================================  =========================  =================
name              proposes                                       expert knowledge           source
================  =============================================  =========================  =================
`random`          uniform tasks                                  none                       baseline
`target`          the target distribution                        target                     baseline
`oracle`          a window that slides from easy to hard         direction, threshold       Portelas 2019
`riac`            boxes of a growing tree, by learning progress  none                       Baranes 2009
`covar-gmm`       Gaussians where returns rise with time         none                       Moulin-Frier 2014
`alp-gmm`         Gaussians of high absolute learning progress   none                       Portelas 2019
`adr`             a box that grows from one easy task            easy task, two thresholds  OpenAI 2019
`geo-curriculum`  one task, then ever more, spread by features   none                       Wan 2023
================  =============================================  =========================  =================

Example:
    >>> import numpy as np
    >>> from tutelage.envs.contract.episodes import Episodes
    >>> from tutelage.envs.contract.tasks import BoxTasks
    >>> task_teacher = ALPGMM(BoxTasks({"height": (0, 3), "spacing": (0, 6)}), np.random.default_rng(0))
    >>> tasks = task_teacher.propose(16)
    >>> task_teacher.observe(Episodes.of(tasks, returns=-tasks[:, 0]))

Experts, or privileged teachers, see what the student cannot, and say what they would do:
`tutelage.teachers.experts.mlp_expert` and `tutelage.teachers.experts.expert_router`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.names import lazy_names, unknown_name
from tutelage.envs.contract.recipe import TaskKnowledge
from tutelage.envs.contract.tasks import TaskSpace
from tutelage.teachers.continuous.adr import ADR, ADRConfig
from tutelage.teachers.continuous.alp_gmm import ALPGMM, ALPGMMConfig
from tutelage.teachers.continuous.covar_gmm import CovarGMM, CovarGMMConfig
from tutelage.teachers.continuous.geo_curriculum import GeoCurriculum, GeoCurriculumConfig
from tutelage.teachers.continuous.oracle import Oracle, OracleConfig
from tutelage.teachers.continuous.riac import RIAC, RIACConfig
from tutelage.teachers.continuous.target import TargetOnly, TargetOnlyConfig
from tutelage.teachers.continuous.uniform import Random, RandomConfig

if TYPE_CHECKING:
    from tutelage.teachers.experts.expert_router import ExpertRouter as ExpertRouter
    from tutelage.teachers.experts.expert_router import box_rule as box_rule
    from tutelage.teachers.experts.mlp_expert import Advice as Advice
    from tutelage.teachers.experts.mlp_expert import Expert as Expert
    from tutelage.teachers.experts.mlp_expert import ExpertConfig as ExpertConfig
    from tutelage.teachers.experts.mlp_expert import MLPExpert as MLPExpert
    from tutelage.teachers.experts.mlp_expert import check_expert as check_expert

__getattr__, _EXPERTS = lazy_names(__name__, __file__)  # torch takes seconds

__all__ = [
    "ADR",
    "ALPGMM",
    "RIAC",
    "TASK_TEACHERS",
    "ADRConfig",
    "ALPGMMConfig",
    "CovarGMM",
    "CovarGMMConfig",
    "GeoCurriculum",
    "GeoCurriculumConfig",
    "Oracle",
    "OracleConfig",
    "RIACConfig",
    "Random",
    "RandomConfig",
    "TargetOnly",
    "TargetOnlyConfig",
    "TaskKnowledge",
    "accepts",
    "make_task_teacher",
    "needs_knowledge",
    *_EXPERTS,
]

TASK_TEACHERS: Mapping[str, tuple[Callable[..., TaskTeacher], type[Any]]] = MappingProxyType(
    {
        "random": (Random, RandomConfig),
        "target": (TargetOnly, TargetOnlyConfig),
        "oracle": (Oracle, OracleConfig),
        "riac": (RIAC, RIACConfig),
        "covar-gmm": (CovarGMM, CovarGMMConfig),
        "alp-gmm": (ALPGMM, ALPGMMConfig),
        "adr": (ADR, ADRConfig),
        "geo-curriculum": (GeoCurriculum, GeoCurriculumConfig),
    }
)
"""Class and config class of every task teacher, by the name that the command line uses."""


def _entry(name: str) -> tuple[Callable[..., TaskTeacher], type[Any]]:
    if name not in TASK_TEACHERS:
        raise ValueError(unknown_name("task teacher", name, TASK_TEACHERS))
    return TASK_TEACHERS[name]


def needs_knowledge(name: str) -> bool:
    """Tell whether the method has settings that only an expert on the environment can give.

    Raises:
        ValueError: when there is no such task teacher; the nearest name is suggested.
    """
    return any(f.default is MISSING and f.default_factory is MISSING for f in fields(_entry(name)[1]))


def accepts(name: str, space: TaskSpace) -> bool:
    """Tell whether a task teacher can propose from a task space.

    Asks the class attribute ``task_spaces``: the protocol that the space must keep. A class without one
    takes every task space.

    Raises:
        ValueError: when there is no such task teacher; the nearest name is suggested.

    Example:
        >>> from tutelage.envs.contract.tasks import DiscreteTasks
        >>> [name for name in TASK_TEACHERS if accepts(name, DiscreteTasks(3))]
        ['random']
    """
    return isinstance(space, getattr(_entry(name)[0], "task_spaces", object))


def make_task_teacher(
    name: str,
    space: TaskSpace,
    rng: np.random.Generator,
    config: Any = None,
    knowledge: TaskKnowledge | None = None,
) -> TaskTeacher:
    """Build a task teacher by name.

    Args:
        name: one of `TASK_TEACHERS`.
        space: the task space.
        rng: decides everything random in it.
        config: an instance of the method's config; without one, the default, for the methods that need
            expert knowledge the one made of `knowledge`.
        knowledge: expert knowledge of the environment's tasks.

    Raises:
        ValueError: when there is no such task teacher, or it needs a config or knowledge and has neither.
        TypeError: when `config` belongs to another method, or the space is not one that the method takes.

    Example:
        >>> from tutelage.envs.contract.tasks import BoxTasks
        >>> make_task_teacher("alp-gm", BoxTasks({"height": (0, 3)}), np.random.default_rng(0))
        Traceback (most recent call last):
        ...
        ValueError: unknown task teacher 'alp-gm'; did you mean 'alp-gmm'? Known: random, target, oracle, \
riac, covar-gmm, alp-gmm, adr, geo-curriculum
    """
    build, config_class = _entry(name)
    if config is None and needs_knowledge(name):
        if knowledge is None:
            raise ValueError(
                f"the task teacher {name!r} needs to know the environment: pass a {config_class.__name__}, "
                "or the environment's TaskKnowledge"
            )
        config = config_class.for_environment(knowledge)
    elif config is None:
        config = config_class()
    if not isinstance(config, config_class):
        raise TypeError(f"the task teacher {name!r} takes a {config_class.__name__}, not {config!r}")
    return build(space, rng, config)
