"""Hyperparameters on the command line: ``--set alp-gmm.fit-rate=100 ppo.policy-kwargs.net-arch=[64,64]``.

A setting names a task teacher, student or distillation method, one of its fields (or a field in a field), and
one value, or several for a sweep. Names are checked against the dataclass or the constructor that takes them,
and values are converted to what its annotations say. A mistake raises `SettingError`: one line that names the
option, the value and the cure. `tutelage.experiments.runs.sweeps` applies settings to grids.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from types import SimpleNamespace, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from tutelage.envs.contract.names import unknown_name
from tutelage.experiments.runs.literals import (
    ConversionError,
    Tree,
    convert,
    expected,
    read_literal,
    split_values,
    write_literal,
)

Path = tuple[str, ...]
Config = TypeVar("Config")

_FORM = "write NAME.FIELD=VALUE, as in alp-gmm.fit-rate=100"


class SettingError(ValueError):
    """A setting that cannot be made; the message names the option, its value, and what to write instead."""


@dataclass(frozen=True)
class Setting:
    """One word after ``--set``.

    Attributes:
        target: whose field it is, as the user wrote it: ``alp-gmm``, ``ppo``, ``module:Class``.
        path: the field, and the fields in it, with underscores: ``("policy_kwargs", "net_arch")``.
        values: as typed; more than one for a sweep.
    """

    target: str
    path: Path
    values: tuple[str, ...]

    @property
    def option(self) -> str:
        """How it is called in messages: ``ppo.policy-kwargs.net-arch``."""
        return f"{self.target}.{dashed(self.path)}"

    def is_for(self, name: str) -> bool:
        """Whether it sets a field of this task teacher, student or method."""
        return self.target.replace("_", "-") == name.replace("_", "-")


def dashed(path: Path) -> str:
    """A path as it is typed: ``policy-kwargs.net-arch``."""
    return ".".join(name.replace("_", "-") for name in path)


def parse_settings(texts: Sequence[str]) -> list[Setting]:
    """Read the words after ``--set``.

    Raises:
        SettingError: when one is not of the form ``NAME.FIELD=VALUE``, lacks a value, or is given twice.

    Example:
        >>> parse_settings(["alp_gmm.fit_rate=50,100"])
        [Setting(target='alp_gmm', path=('fit_rate',), values=('50', '100'))]
    """
    settings: dict[str, Setting] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        module, colon, rest = name.strip().rpartition(":")  # a module's name has dots too
        own, dot, path = rest.partition(".")
        names = tuple(part.strip().replace("-", "_") for part in path.split("."))
        if not (equals and dot and own and all(names)):
            raise SettingError(f"--set {text}: {_FORM}")
        setting = Setting(module + colon + own, names, ())
        try:
            values = split_values(value)
            for one in values:
                read_literal(one)
        except ValueError as error:
            raise SettingError(f"{setting.option}={value}: {error}") from None
        key = setting.option.replace("_", "-")
        if key in settings:
            raise SettingError(f"{setting.option} is set twice; for a sweep write {setting.option}=A,B")
        settings[key] = replace(setting, values=tuple(values))
    return list(settings.values())


def apply_to_dataclass(config: Config, choices: Mapping[Path, str], name: str) -> Config:
    """Change fields of a frozen dataclass, all at once, so that they need to be valid only together.

    Args:
        config: an instance.
        choices: path of field names -> what the user typed, one value.
        name: whose config it is, for messages.

    Raises:
        SettingError: for an unknown field, a value of another type, or one that the dataclass refuses.
    """
    return _replaced(config, {path: read_literal(text) for path, text in choices.items()}, name)


def apply_to_fields(
    known: Mapping[str, Any], current: Mapping[str, Any], choices: Mapping[Path, str], name: str
) -> dict[str, Any]:
    """As `apply_to_dataclass`, for what is kept as a mapping: the current values with the chosen ones.

    Args:
        known: name of each field that there is -> its annotation, or a dict of the fields in it.
        current: values of some of them. Mappings among them are merged with what is set in them.
        choices, name: as there.
    """
    return {**current, **_changes(known, current, {p: read_literal(t) for p, t in choices.items()}, name)}


def _replaced(config: Config, trees: Mapping[Path, Tree], option: str) -> Config:
    assert is_dataclass(config)
    assert not isinstance(config, type)
    known = dataclass_fields(type(config))
    changes = _changes(known, {name: getattr(config, name) for name in known}, trees, option)
    try:
        return replace(config, **changes)
    except (ValueError, TypeError) as error:
        chosen = " ".join(f"{option}.{dashed(p)}={write_literal(tree)}" for p, tree in trees.items())
        raise SettingError(f"{chosen}: {error}") from None


def _changes(
    known: Mapping[str, Any], current: Mapping[str, Any], trees: Mapping[Path, Tree], option: str
) -> dict[str, Any]:
    """The new values of the fields that are set, or have something set in them."""
    inner: dict[str, dict[Path, Tree]] = {}
    for (name, *rest), tree in trees.items():
        if name not in known:
            names = [field.replace("_", "-") for field in known]
            message = unknown_name("field", name.replace("_", "-"), names) if names else "it has no fields"
            raise SettingError(f"{option}.{dashed((name, *rest))}={write_literal(tree)}: {message}")
        inner.setdefault(name, {})[tuple(rest)] = tree
    return {
        name: _value(known[name], current.get(name), parts, f"{option}.{name.replace('_', '-')}")
        for name, parts in inner.items()
    }


def _value(hint: Any, current: Any, parts: Mapping[Path, Tree], option: str) -> Any:
    """The new value of one field: given whole (its path is empty), or by what is set in it."""
    if () not in parts:
        return _set_inside(hint, current, parts, option)
    if len(parts) > 1:
        raise SettingError(f"{option} is set as a whole and in part; keep one of them")
    tree = parts[()]
    if isinstance(hint, Mapping) and isinstance(tree, dict):
        return _changes(hint, {}, {(name.replace("-", "_"),): inner for name, inner in tree.items()}, option)
    try:
        return convert(tree, hint)
    except ConversionError:
        value, words = repr(str(tree)) if isinstance(tree, str) else write_literal(tree), expected(hint)
    for kind in filter(is_dataclass, _members(hint)):
        names = ", ".join(f"{option}.{name.replace('_', '-')}" for name in dataclass_fields(kind))
        raise SettingError(f"{option} is a group of fields, not {value}; set one of them: {names}")
    if not words:
        raise SettingError(f"{option}={value}: no command line can say what it takes; leave it out")
    listed = "" if isinstance(tree, list) or "[" not in words else " (commas outside make a sweep)"
    raise SettingError(f"{option} is {words}{listed}; {value} is not")


def _set_inside(hint: Any, current: Any, parts: Mapping[Path, Tree], option: str) -> Any:
    """The new value of a field that is a dataclass or a mapping, with fields of its own."""
    kinds: list[Any] = [member for member in _members(hint) if is_dataclass(member)]
    if current is None and kinds:
        try:
            current = kinds[0]()
        except TypeError as error:
            raise SettingError(f"{option} cannot be made of its defaults: {error}") from None
    if is_dataclass(current):
        return _replaced(current, parts, option)
    old = current if isinstance(current, Mapping) else {}
    if isinstance(hint, Mapping):
        return {**old, **_changes(hint, old, parts, option)}
    mappings = [member for member in _members(hint) if (get_origin(member) or member) in (dict, Mapping)]
    if mappings or isinstance(current, Mapping):
        _, inner = get_args(mappings[0]) if mappings and get_args(mappings[0]) else (str, Any)
        return {**old, **_changes(dict.fromkeys((path[0] for path in parts), inner), old, parts, option)}
    (path, tree), *_ = parts.items()
    itself = f"; {option} itself is {expected(hint)}" if expected(hint) else ""
    raise SettingError(f"{option}.{dashed(path)}={write_literal(tree)}: {option} has no fields{itself}")


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def dataclass_fields(kind: Any) -> dict[str, Any]:
    """Name -> annotation of the fields that a dataclass takes."""
    homes = {name: base for base in reversed(kind.__mro__) for name in inspect.get_annotations(base)}
    return {
        field.name: _resolved(field.type, vars(sys.modules[homes[field.name].__module__]), field.default)
        for field in fields(kind)
        if field.init
    }


def constructor_fields(made_by: Any, given: int = 0, refused: Collection[str] = ()) -> dict[str, Any]:
    """Name -> annotation of the arguments of a class or function, and of its bases where it passes them on.

    Args:
        made_by: the class, or a function that makes one.
        given: how many come first and are given by us; they cannot be set.
        refused: names of others that we give.
    """
    known: dict[str, Any] = {}
    away = set(refused)
    inits = [vars(base)["__init__"] for base in getattr(made_by, "__mro__", ()) if "__init__" in vars(base)]
    for function in inits or [made_by]:
        parameters = list(inspect.signature(function).parameters.values())[1 if inits else 0 :]
        for parameter in parameters:
            named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if named and given and parameter.kind is not parameter.KEYWORD_ONLY:
                given -= 1
                away.add(parameter.name)
            elif named and not parameter.name.startswith("_") and parameter.name not in known:
                namespace = getattr(function, "__globals__", {})
                known[parameter.name] = _resolved(parameter.annotation, namespace, parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return {name: hint for name, hint in known.items() if name not in away}


def _resolved(annotation: Any, namespace: Mapping[str, Any], default: Any) -> Any:
    """An annotation as a type; where there is none, the default's; object where it cannot be known."""
    if isinstance(annotation, str):
        try:
            holder = SimpleNamespace(__annotations__={"field": annotation})
            return typing.get_type_hints(holder, dict(namespace), include_extras=True)["field"]
        except (NameError, AttributeError, TypeError):  # imported for type checkers alone
            return object
    if annotation is not inspect.Parameter.empty:
        return annotation
    if isinstance(default, bool | float | str):
        return type(default)
    return int | float if isinstance(default, int) and default is not MISSING else Any
