"""From a privileged expert to a student that sees a camera: one method a file, and what they share.

::

    from tutelage.students import distillation

    config = distillation.DaggerConfig(budget=distillation.Budget(frames=200_000))
    result = distillation.dagger.distil(task, expert, student, config, seed=0)
    evaluation = distillation.evaluate_student(held_out_task, student, episodes=256, seed=1)

==================  ==========================  ======================================================
file                who acts                    what is learnt from
==================  ==========================  ======================================================
behaviour_cloning   the expert, with noise      the expert's actions, in a ring of frames
dagger              mostly the student          the same
dagger_value        mostly the student          the same, and returns, for a critic
feature_alignment   mostly the student          the same, and what the expert's layers compute
on_policy           the student                 the expert's actions in the last roll-out, through time
kickstarting        the student                 rewards (PPO), and the expert's actions, less and less
distil_then_rl      mostly the student          as dagger_value, then rewards (PPO)
aacd                the student                 rewards (PPO), with the expert's critic
asymmetric_ppo      the student                 rewards (PPO) alone
==================  ==========================  ======================================================

`dataset_recording` and `dataset_cloning` do the first apart: frames on disk, and a student from them.
`checkpoint` saves any of these in mid-run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.students.distillation import (
        aacd,
        asymmetric_ppo,
        behaviour_cloning,
        dagger,
        dagger_value,
        distil_then_rl,
        feature_alignment,
        kickstarting,
        on_policy,
    )
    from tutelage.students.distillation.aacd import AACD, AACDConfig
    from tutelage.students.distillation.asymmetric_ppo import AsymmetricPPO, AsymmetricPPOConfig
    from tutelage.students.distillation.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
    from tutelage.students.distillation.checkpoint import load_checkpoint, save_checkpoint
    from tutelage.students.distillation.dagger import Dagger, DaggerConfig
    from tutelage.students.distillation.dagger_value import DaggerValue, DaggerValueConfig
    from tutelage.students.distillation.dataset import Dataset, DatasetWriter
    from tutelage.students.distillation.dataset_chunks import repair
    from tutelage.students.distillation.dataset_cloning import CloningConfig, clone_from
    from tutelage.students.distillation.dataset_recording import RecordingConfig, record
    from tutelage.students.distillation.distil_then_rl import DistilThenRL, DistilThenRLConfig
    from tutelage.students.distillation.evaluation import Evaluation, evaluate_student
    from tutelage.students.distillation.feature_alignment import FeatureAlignment, FeatureAlignmentConfig
    from tutelage.students.distillation.frames import FrameBuffer
    from tutelage.students.distillation.kickstarting import Kickstarting, KickstartingConfig
    from tutelage.students.distillation.learner import Learner, LearningConfig
    from tutelage.students.distillation.method import DistillationMethod
    from tutelage.students.distillation.on_policy import OnPolicy, OnPolicyConfig
    from tutelage.students.distillation.ppo import PPOConfig
    from tutelage.students.distillation.progress import Budget, DistillationProgress, DistillationResult

_HOMES = {
    "aacd": (
        "AACD",
        "AACDConfig",
    ),
    "asymmetric_ppo": (
        "AsymmetricPPO",
        "AsymmetricPPOConfig",
    ),
    "behaviour_cloning": (
        "BehaviourCloning",
        "BehaviourCloningConfig",
    ),
    "checkpoint": (
        "load_checkpoint",
        "save_checkpoint",
    ),
    "dagger": (
        "Dagger",
        "DaggerConfig",
    ),
    "dagger_value": (
        "DaggerValue",
        "DaggerValueConfig",
    ),
    "dataset": (
        "Dataset",
        "DatasetWriter",
    ),
    "dataset_chunks": ("repair",),
    "dataset_cloning": (
        "CloningConfig",
        "clone_from",
    ),
    "dataset_recording": (
        "RecordingConfig",
        "record",
    ),
    "distil_then_rl": (
        "DistilThenRL",
        "DistilThenRLConfig",
    ),
    "evaluation": (
        "Evaluation",
        "evaluate_student",
    ),
    "feature_alignment": (
        "FeatureAlignment",
        "FeatureAlignmentConfig",
    ),
    "frames": ("FrameBuffer",),
    "kickstarting": (
        "Kickstarting",
        "KickstartingConfig",
    ),
    "learner": (
        "Learner",
        "LearningConfig",
    ),
    "method": ("DistillationMethod",),
    "on_policy": (
        "OnPolicy",
        "OnPolicyConfig",
    ),
    "ppo": ("PPOConfig",),
    "progress": (
        "Budget",
        "DistillationProgress",
        "DistillationResult",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_METHODS = (
    "aacd",
    "asymmetric_ppo",
    "behaviour_cloning",
    "dagger",
    "dagger_value",
    "distil_then_rl",
    "feature_alignment",
    "kickstarting",
    "on_policy",
)

__all__ = [
    "AACD",
    "AACDConfig",
    "AsymmetricPPO",
    "AsymmetricPPOConfig",
    "BehaviourCloning",
    "BehaviourCloningConfig",
    "Budget",
    "CloningConfig",
    "Dagger",
    "DaggerConfig",
    "DaggerValue",
    "DaggerValueConfig",
    "Dataset",
    "DatasetWriter",
    "DistilThenRL",
    "DistilThenRLConfig",
    "DistillationMethod",
    "DistillationProgress",
    "DistillationResult",
    "Evaluation",
    "FeatureAlignment",
    "FeatureAlignmentConfig",
    "FrameBuffer",
    "Kickstarting",
    "KickstartingConfig",
    "Learner",
    "LearningConfig",
    "OnPolicy",
    "OnPolicyConfig",
    "PPOConfig",
    "RecordingConfig",
    "aacd",
    "asymmetric_ppo",
    "behaviour_cloning",
    "clone_from",
    "dagger",
    "dagger_value",
    "distil_then_rl",
    "evaluate_student",
    "feature_alignment",
    "kickstarting",
    "load_checkpoint",
    "on_policy",
    "record",
    "repair",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Import names where they live when they are asked for: torch takes seconds."""
    if name in _METHODS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
