"""Methods that distil a privileged expert into a student that sees a camera, one file each.

::

    from tutelage.students import distillation

    config = distillation.DaggerConfig(budget=distillation.Budget(frames=200_000))
    result = distillation.dagger.distil(task, expert, student, config, seed=0)
    evaluation = distillation.evaluate_student(held_out_task, student, episodes=256, seed=1)

==================  ==========================  ======================================================
file                who acts                    the student learns from
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

`tutelage.students.datasets` does the first apart: frames on disk, and a student from them.
`checkpoint` saves any of these in mid-run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.envs.contract.names import lazy_names

if TYPE_CHECKING:
    from tutelage.students.distillation import aacd as aacd
    from tutelage.students.distillation import asymmetric_ppo as asymmetric_ppo
    from tutelage.students.distillation import behaviour_cloning as behaviour_cloning
    from tutelage.students.distillation import dagger as dagger
    from tutelage.students.distillation import dagger_value as dagger_value
    from tutelage.students.distillation import distil_then_rl as distil_then_rl
    from tutelage.students.distillation import feature_alignment as feature_alignment
    from tutelage.students.distillation import kickstarting as kickstarting
    from tutelage.students.distillation import on_policy as on_policy
    from tutelage.students.distillation.aacd import AACD as AACD
    from tutelage.students.distillation.aacd import AACDConfig as AACDConfig
    from tutelage.students.distillation.asymmetric_ppo import AsymmetricPPO as AsymmetricPPO
    from tutelage.students.distillation.asymmetric_ppo import AsymmetricPPOConfig as AsymmetricPPOConfig
    from tutelage.students.distillation.behaviour_cloning import BehaviourCloning as BehaviourCloning
    from tutelage.students.distillation.behaviour_cloning import (
        BehaviourCloningConfig as BehaviourCloningConfig,
    )
    from tutelage.students.distillation.dagger import Dagger as Dagger
    from tutelage.students.distillation.dagger import DaggerConfig as DaggerConfig
    from tutelage.students.distillation.dagger_value import DaggerValue as DaggerValue
    from tutelage.students.distillation.dagger_value import DaggerValueConfig as DaggerValueConfig
    from tutelage.students.distillation.distil_then_rl import DistilThenRL as DistilThenRL
    from tutelage.students.distillation.distil_then_rl import DistilThenRLConfig as DistilThenRLConfig
    from tutelage.students.distillation.feature_alignment import FeatureAlignment as FeatureAlignment
    from tutelage.students.distillation.feature_alignment import (
        FeatureAlignmentConfig as FeatureAlignmentConfig,
    )
    from tutelage.students.distillation.kickstarting import Kickstarting as Kickstarting
    from tutelage.students.distillation.kickstarting import KickstartingConfig as KickstartingConfig
    from tutelage.students.distillation.machinery.card import MethodCard as MethodCard
    from tutelage.students.distillation.machinery.checkpoint import load_checkpoint as load_checkpoint
    from tutelage.students.distillation.machinery.checkpoint import save_checkpoint as save_checkpoint
    from tutelage.students.distillation.machinery.evaluation import evaluate_student as evaluate_student
    from tutelage.students.distillation.machinery.frames import FrameBuffer as FrameBuffer
    from tutelage.students.distillation.machinery.learner import Learner as Learner
    from tutelage.students.distillation.machinery.learner import LearningConfig as LearningConfig
    from tutelage.students.distillation.machinery.method import DistillationMethod as DistillationMethod
    from tutelage.students.distillation.machinery.progress import Budget as Budget
    from tutelage.students.distillation.machinery.progress import DistillationProgress as DistillationProgress
    from tutelage.students.distillation.machinery.progress import DistillationResult as DistillationResult
    from tutelage.students.distillation.machinery.registry import METHODS as METHODS
    from tutelage.students.distillation.machinery.registry import method_card as method_card
    from tutelage.students.distillation.machinery.registry import method_class as method_class
    from tutelage.students.distillation.on_policy import OnPolicy as OnPolicy
    from tutelage.students.distillation.on_policy import OnPolicyConfig as OnPolicyConfig
    from tutelage.students.ppo.formulas import PPOConfig as PPOConfig

__getattr__, __all__ = lazy_names(__name__, __file__)
