"""Grids with settings: ``--set`` changes a task teacher, student or method, or makes a sweep of it.

Where a setting has several values, what it belongs to stands in the grid once for each combination, under a
name with its values: ``alp-gmm:fit-rate=50``. Each is a full member, with cells, curves and rows of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from tutelage.envs.contract.names import base_name, unknown_name
from tutelage.experiments.runs.config import GridConfig, SweptEntry
from tutelage.experiments.runs.literals import split_values, write_literal
from tutelage.experiments.runs.settings import (
    Path,
    Setting,
    SettingError,
    apply_to_dataclass,
    apply_to_fields,
    constructor_fields,
    dashed,
    dataclass_fields,
    parse_settings,
)
from tutelage.students.sb3.config import StudentConfig, algorithm_class, load_object

GIVEN_BY_US = {
    "env": "the comparison gives it: use --env",
    "seed": "each run has its own: use --seeds",
    "verbose": "each run has a log of its own",
    "tensorboard_log": "each run logs into its own folder: use --out",
}
"""Arguments of SB3's constructors that we give, and what to use instead."""


@dataclass(frozen=True)
class Variant:
    """A config with settings.

    Attributes:
        label: its name in the grid.
        config: with the settings.
        entry: its place in the sweep; None where no setting has several values.
    """

    label: str
    config: Any
    entry: SweptEntry | None


def variants(
    name: str, settings: Iterable[Setting], apply: Callable[[Mapping[Path, str]], Any]
) -> list[Variant]:
    """A config with the settings that are for `name`, once for each combination of the values of a sweep.

    Args:
        name: of a task teacher, student or method.
        settings: all; those for others are passed over.
        apply: makes the config with chosen values, each the text that the user typed.

    Raises:
        SettingError: from `apply`, or when a sweep has a value twice.
    """
    mine = [setting for setting in settings if setting.is_for(name)]
    swept = [setting for setting in mine if len(setting.values) > 1]
    found: dict[str, Variant] = {}
    for values in product(*(setting.values for setting in mine)):
        config = apply({setting.path: value for setting, value in zip(mine, values, strict=True)})
        chosen = {setting.path: _at(config, setting.path) for setting in swept}
        label, entry = name, None
        if swept:
            written = [f"{dashed(path)}={write_literal(value)}" for path, value in chosen.items()]
            label = f"{name}:{','.join(written)}"
            entry = SweptEntry(name, {".".join(path): value for path, value in chosen.items()})
        if label in found:
            options = " ".join(f"{setting.option}={','.join(setting.values)}" for setting in swept)
            raise SettingError(f"{options} has the same value twice; leave one out")
        found[label] = Variant(label, config, entry)
    return list(found.values())


def _at(config: Any, path: Path) -> Any:
    """The value of a field, in dataclasses and mappings in one another."""
    for name in path:
        if isinstance(config, StudentConfig) and not hasattr(config, name):
            config = config.kwargs
        config = config[name] if isinstance(config, Mapping) else getattr(config, name)
    return config


def expand(grid: GridConfig, settings: Sequence[Setting]) -> GridConfig:
    """The grid with settings of its task teachers and students; a sweep takes the place of what is swept.

    A baseline that is swept becomes the first of its sweep.

    Raises:
        SettingError: for a setting of something that is not in the grid, an unknown field, or a value of
            another type.
    """
    names = [*grid.task_teachers, *grid.students]
    check_targets(
        settings, names, "task teacher or student of this grid", "add it to --teachers or --students"
    )
    teachers = [
        variant
        for name, overrides in grid.task_teachers.items()
        for variant in variants(name, settings, partial(set_task_teacher, name, overrides))
    ]
    students = [
        variant
        for name, config in grid.students.items()
        for variant in variants(name, settings, partial(set_student, name, config))
    ]
    first = {v.entry.name: v.label for v in reversed(teachers) if v.entry}
    return replace(
        grid,
        task_teachers={variant.label: variant.config for variant in teachers},
        students={variant.label: variant.config for variant in students},
        baseline=first.get(grid.baseline, grid.baseline),
        sweep={variant.label: variant.entry for variant in [*teachers, *students] if variant.entry},
    )


def check_targets(settings: Iterable[Setting], names: Sequence[str], kind: str, cure: str) -> None:
    """Make sure that every setting is for something in the grid.

    Args:
        settings: all.
        names: what is in the grid.
        kind: what these are, e.g. ``"method of this grid"``.
        cure: how something else comes into the grid.

    Raises:
        SettingError: when a setting is for something else; it suggests the nearest name and lists all.
    """
    for setting in settings:
        if not any(map(setting.is_for, names)):
            message = unknown_name(kind, setting.target, names, cure)
            raise SettingError(f"{setting.option}={','.join(setting.values)}: {message}")


def set_task_teacher(name: str, overrides: Mapping[str, Any], choices: Mapping[Path, str]) -> dict[str, Any]:
    """Fields of a task teacher's config, or arguments of a user's class, with the chosen ones.

    Raises:
        SettingError: for an unknown field, or a value of another type.
    """
    from tutelage.teachers import TASK_TEACHERS

    if not choices:
        return dict(overrides)
    if ":" in name:
        known = constructor_fields(load_object(name, "task teacher"), given=2)  # space, rng
    else:
        known = dataclass_fields(TASK_TEACHERS[name][1])
    return apply_to_fields(known, overrides, choices, name)


def set_student(name: str, config: StudentConfig, choices: Mapping[Path, str]) -> StudentConfig:
    """A student with chosen fields of `StudentConfig`, or arguments of its algorithm's constructor.

    Raises:
        SettingError: for an unknown field or argument, one that we give, or a value of another type.
    """
    if not choices:
        return config
    _refuse(name, choices, GIVEN_BY_US)
    own = dataclass_fields(StudentConfig)
    own = {field: hint for field, hint in own.items() if field not in ("algorithm", "kwargs")}
    algorithm = algorithm_class(config.algorithm)
    known = {**constructor_fields(algorithm, given=2, refused=GIVEN_BY_US), **own}  # policy, env
    policy = getattr(algorithm, "policy_aliases", {}).get(config.policy)
    if policy is not None and "policy_kwargs" in known:
        # Observation space, action space and learning rate are SB3's to give.
        known["policy_kwargs"] = constructor_fields(policy, given=3) | {"activation_fn": str}
    current = {**config.kwargs, **{field: getattr(config, field) for field in own}}
    values = apply_to_fields(known, current, choices, name)
    kwargs = {field: _json(value) for field, value in values.items() if field not in own}
    return replace(config, **{field: values[field] for field in own}, kwargs=kwargs)


def expand_methods(
    methods: Iterable[str],
    config_of: Callable[[str], Any],
    settings: Sequence[Setting],
    given: Mapping[str, str],
) -> list[Variant]:
    """Distillation methods with their settings, each once for every combination of the values of a sweep.

    Args:
        methods: the names in the grid.
        config_of: makes the config of a method, as it is without settings: a frozen dataclass.
        settings: of the command line.
        given: fields that other options of the command decide -> which, e.g. ``{"budget": "use --frames"}``;
            fields in fields are written with dots.

    Raises:
        SettingError: as in `expand`.
    """
    methods = list(methods)
    check_targets(settings, methods, "method of this grid", "add it to --method")

    def configure(name: str, choices: Mapping[Path, str]) -> Any:
        _refuse(name, choices, given)
        return apply_to_dataclass(config_of(name), choices, name) if choices else config_of(name)

    return [v for name in methods for v in variants(name, settings, partial(configure, name))]


def settings_of(label: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The settings of one member of a grid: those for it, swept ones with the values of its label."""
    name = base_name(label)
    values = label.removeprefix(name).removeprefix(":")
    swept = dict(part.split("=", 1) for part in split_values(values) if part)
    chosen = []
    for text in texts:
        [setting] = parse_settings([text])
        if setting.is_for(name):
            value = swept.get(dashed(setting.path))
            chosen.append(text if value is None else f"{setting.option}={value}")
    return tuple(chosen)


def _refuse(name: str, choices: Mapping[Path, str], given: Mapping[str, str]) -> None:
    """Refuse settings of fields that something else decides, or that lie in such fields."""
    for path, text in choices.items():
        for end in range(1, len(path) + 1):
            if cure := given.get(".".join(path[:end])):
                raise SettingError(f"{name}.{dashed(path)}={text}: {cure}")


def _json(value: Any) -> Any:
    """Lists for tuples, as ``config.json`` gives them back."""
    if isinstance(value, Mapping):
        return {key: _json(inner) for key, inner in value.items()}
    return [_json(inner) for inner in value] if isinstance(value, list | tuple) else value
