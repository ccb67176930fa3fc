"""The methods of `tutelage distill` by name: what each is called, where it lives, what it needs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tutelage.students.distillation.machinery.method import DistillationMethod


@dataclass(frozen=True)
class MethodCard:
    """A method.

    Attributes:
        title: what it is called.
        module: of `tutelage.students.distillation`.
        name: of its class there; its settings are ``<name>Config``.
        expert: what it has of the expert: ``labels``, its ``critic``, or ``nothing``. The expert's training
            is charged to whoever has anything of it.
        gaussian: whether it draws actions, so that the student's head must be Gaussian.
        critic: what the student's critic sees: all that the task knows (``privileged``), what its actor sees
            (``student``), or what the expert's critic sees (``expert``); None for no critic.
        aligned: whether the student ends in the expert's own layers (`AlignedStudent`).
        predicts: whether the student also learns to predict what the expert knows, unless the user says
            otherwise.
        augments: whether images are augmented unless the user says otherwise.
        sharded: whether its gradient steps are cut into shards that threads work at, so that no result
            depends on how many; others learn with one thread.
        settings: fields of its config that differ from the defaults.
    """

    title: str
    module: str
    name: str
    expert: Literal["labels", "critic", "nothing"] = "labels"
    gaussian: bool = False
    critic: Literal["privileged", "student", "expert"] | None = None
    aligned: bool = False
    predicts: bool = False
    augments: bool = True
    sharded: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> tuple[type[DistillationMethod], Any]:
        """Import the method's class and that of its settings."""
        home = importlib.import_module(f"tutelage.students.distillation.{self.module}")
        return getattr(home, self.name), getattr(home, f"{self.name}Config")


METHODS = {
    "dagger": MethodCard("DAgger", "dagger", "Dagger", predicts=True),
    "bc": MethodCard("behaviour cloning", "behaviour_cloning", "BehaviourCloning", predicts=True),
    "on-policy": MethodCard("on-policy distillation", "on_policy", "OnPolicy", predicts=True, sharded=False),
    "dagger-value": MethodCard(
        "DAgger that trains a critic too", "dagger_value", "DaggerValue", critic="privileged", predicts=True
    ),
    "feature-alignment": MethodCard(
        "feature alignment", "feature_alignment", "FeatureAlignment", aligned=True
    ),
    "kickstarting": MethodCard(
        "kickstarting", "kickstarting", "Kickstarting", gaussian=True, critic="privileged", augments=False
    ),
    "distil-then-rl": MethodCard(
        "distillation, then PPO",
        "distil_then_rl",
        "DistilThenRL",
        gaussian=True,
        critic="privileged",
        predicts=True,
    ),
    "pixels-ppo": MethodCard(
        "PPO from pixels",
        "asymmetric_ppo",
        "AsymmetricPPO",
        expert="nothing",
        gaussian=True,
        critic="student",
        augments=False,
    ),
    "asymmetric-ppo": MethodCard(
        "asymmetric PPO",
        "asymmetric_ppo",
        "AsymmetricPPO",
        expert="nothing",
        gaussian=True,
        critic="privileged",
        augments=False,
    ),
    "aacd": MethodCard(
        "AACD",
        "aacd",
        "AACD",
        expert="critic",
        gaussian=True,
        critic="expert",
        augments=False,
        settings={"freeze_critic": False},
    ),
    "aacd-frozen": MethodCard(
        "AACD, critic frozen",
        "aacd",
        "AACD",
        expert="critic",
        gaussian=True,
        critic="expert",
        augments=False,
        settings={"freeze_critic": True},
    ),
}
"""Name -> card."""
