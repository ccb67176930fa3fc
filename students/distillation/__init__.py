"""From a privileged expert to a student that sees a camera: one method a file, and what they share.

::

    from tutelage.students import distillation

    config = distillation.DaggerConfig(budget=distillation.Budget(frames=200_000))
    result = distillation.dagger.distil(task, expert, student, config, seed=0)
    evaluation = distillation.evaluate_student(held_out_task, student, episodes=256, seed=1)

==================  ==========================  ======================================================
file                who acts                    what is learnt from
==================  ==========================  ======================================================
behaviour_cloning   the expert, with noise      a ring of frames
dagger              mostly the student          a ring of frames
on_policy           the student                 the last roll-out, once or twice, through time
==================  ==========================  ======================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.students.distillation import behaviour_cloning, dagger, on_policy
    from tutelage.students.distillation.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
    from tutelage.students.distillation.dagger import Dagger, DaggerConfig
    from tutelage.students.distillation.evaluation import Evaluation, evaluate_student
    from tutelage.students.distillation.frames import FrameBuffer
    from tutelage.students.distillation.learner import Learner, LearningConfig
    from tutelage.students.distillation.method import DistillationMethod
    from tutelage.students.distillation.on_policy import OnPolicy, OnPolicyConfig
    from tutelage.students.distillation.progress import Budget, DistillationProgress, DistillationResult

_HOMES = {
    "behaviour_cloning": ("BehaviourCloning", "BehaviourCloningConfig"),
    "dagger": ("Dagger", "DaggerConfig"),
    "evaluation": ("Evaluation", "evaluate_student"),
    "frames": ("FrameBuffer",),
    "learner": ("Learner", "LearningConfig"),
    "method": ("DistillationMethod",),
    "on_policy": ("OnPolicy", "OnPolicyConfig"),
    "progress": ("Budget", "DistillationProgress", "DistillationResult"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_METHODS = ("behaviour_cloning", "dagger", "on_policy")

__all__ = [
    "BehaviourCloning",
    "BehaviourCloningConfig",
    "Budget",
    "Dagger",
    "DaggerConfig",
    "DistillationMethod",
    "DistillationProgress",
    "DistillationResult",
    "Evaluation",
    "FrameBuffer",
    "Learner",
    "LearningConfig",
    "OnPolicy",
    "OnPolicyConfig",
    "behaviour_cloning",
    "dagger",
    "evaluate_student",
    "on_policy",
]


def __getattr__(name: str) -> Any:
    """Import names where they live when they are asked for: torch takes seconds."""
    if name in _METHODS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
