"""The methods of distillation that can be named: one line each here, the rest is in the method's own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tutelage.envs.contract.names import base_name, load_object, unknown_name
from tutelage.students.distillation.machinery.card import MethodCard

if TYPE_CHECKING:
    from tutelage.students.distillation.machinery.method import DistillationMethod

_HOME = "tutelage.students.distillation"
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dagger": (f"{_HOME}.dagger:Dagger", {}),
    "bc": (f"{_HOME}.behaviour_cloning:BehaviourCloning", {}),
    "on-policy": (f"{_HOME}.on_policy:OnPolicy", {}),
    "dagger-value": (f"{_HOME}.dagger_value:DaggerValue", {}),
    "feature-alignment": (f"{_HOME}.feature_alignment:FeatureAlignment", {}),
    "kickstarting": (f"{_HOME}.kickstarting:Kickstarting", {}),
    "distil-then-rl": (f"{_HOME}.distil_then_rl:DistilThenRL", {}),
    "pixels-ppo": (
        f"{_HOME}.asymmetric_ppo:AsymmetricPPO",
        {"title": "PPO from pixels", "critic": "student"},
    ),
    "asymmetric-ppo": (f"{_HOME}.asymmetric_ppo:AsymmetricPPO", {}),
    "aacd": (f"{_HOME}.aacd:AACD", {}),
    "aacd-frozen": (
        f"{_HOME}.aacd:AACD",
        {"title": "AACD, critic frozen", "settings": {"freeze_critic": True}},
    ),
}
"""Name -> ``module:Class``, and fields of the class's card that differ in this variant."""


def check_method_name(name: str, what: str = "method") -> None:
    """Make sure that a name is of `METHODS`, or of the form ``module:Class``.

    Raises:
        ValueError: when it is not; suggests the nearest.
    """
    name = base_name(name)
    if ":" not in name and name not in METHODS:
        raise ValueError(unknown_name(what, name, METHODS, "module:Class of your own"))


def method_class(name: str) -> type[DistillationMethod]:
    """The class of a method by its name (without values of a sweep), or of a user's by ``module:Class``.

    Raises:
        ValueError: when there is none, it is no `DistillationMethod`, or lacks its ``card`` or
            ``config_class``.
    """
    from tutelage.students.distillation.machinery.method import DistillationMethod

    check_method_name(name)
    name = base_name(name)
    path, _ = METHODS.get(name, (name, {}))
    found = load_object(path, "method")
    if not (isinstance(found, type) and issubclass(found, DistillationMethod)):
        raise ValueError(f"method {name!r} is not a subclass of DistillationMethod")
    if not isinstance(getattr(found, "card", None), MethodCard):
        raise ValueError(f'method {name!r} has no card: give its class `card = MethodCard("its title", ...)`')
    if not hasattr(found, "config_class"):
        raise ValueError(f"method {name!r} has no config_class: give its class the class of its settings")
    return found


def method_card(name: str) -> MethodCard:
    """The card of a method by its name, or of a user's by ``module:Class``.

    Raises:
        ValueError: see `method_class`.
    """
    _, changes = METHODS.get(base_name(name), (name, {}))
    return replace(method_class(name).card, **changes)
