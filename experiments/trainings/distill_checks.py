"""Filling in what preset and task decide of a `tutelage distill`, and refusing what cannot be run."""

from __future__ import annotations

import math
from dataclasses import fields, replace

from tutelage.envs.batched.worlds.catalogue import vec_task_class, vec_task_recipe
from tutelage.envs.contract.names import check_folder_names, unknown_name
from tutelage.experiments.distill import DistillConfig, given_expert, make_task
from tutelage.experiments.trainings.distill_presets import MODALITIES, PRESETS
from tutelage.experiments.trainings.distilled_student import make_student, members, method_settings
from tutelage.students.distillation.machinery.actor_critic import ActorCritic, check_augmentation
from tutelage.students.distillation.machinery.registry import (
    METHODS,
    check_method_name,
    method_card,
    method_class,
)
from tutelage.teachers.experts.mlp_expert import check_expert


def checked(config: DistillConfig) -> DistillConfig:
    """The config with all that its preset and task decide filled in; makes sure that all of it exists.

    Raises:
        ValueError: see `distill`.
    """
    if not config.method:
        raise ValueError(f"name at least one method (known: {', '.join(METHODS)})")
    for name in config.method:
        check_method_name(name)
    if len(set(config.method)) < len(config.method):
        raise ValueError(f"--method names one twice: {' '.join(config.method)}")
    if config.baseline is not None:
        check_method_name(config.baseline, "baseline")
    if config.obs not in MODALITIES:
        raise ValueError(unknown_name("obs", config.obs, list(MODALITIES)))
    preset, values = (
        PRESETS[config.preset],
        {field.name: getattr(config, field.name) for field in fields(config)},
    )
    for name in ("seeds", "episodes", "evaluations"):
        values[name] = getattr(preset, name) if values[name] is None else values[name]
    for name in ("seeds", "workers", "size", "num_envs", "episodes"):
        if values[name] < 1:
            raise ValueError(f"{name} must be at least 1, not {values[name]}")
    for name in ("stack", "expert_steps"):
        if values[name] is not None and values[name] < 1:
            raise ValueError(
                f"{name} must be at least 1, not {values[name]}; without it, the task's is taken"
            )
    for name in ("evaluations", "first_seed", "threads", "memory", "checkpoint_every"):
        if not values[name] >= 0:
            raise ValueError(f"{name} must not be negative, but is {values[name]}")
    if not 0 < config.expert_success <= 1:
        raise ValueError(f"expert_success is a share, above 0 and up to 1, not {config.expert_success}")
    if config.seconds is not None and not math.isfinite(config.seconds):
        raise ValueError(f"seconds must be a finite number, not {config.seconds}")
    recipe = vec_task_recipe(config.task)
    values["cameras"] = config.cameras or recipe.cameras or (vec_task_class(config.task).default_camera,)
    values["looks"] = config.training_looks
    values["encoder"] = config.chosen_encoder
    values["stack"] = config.stack or (1 if config.memory else recipe.stack)
    values["frames"] = config.budget["frames"]
    config = DistillConfig(**values)
    config = replace(config, method=tuple(member.label for member in members(config)))
    check_folder_names("methods", config.method)
    for name in config.method:
        card = method_card(name)
        if card.gaussian and config.head == "deterministic":
            raise ValueError(f"{name} draws actions: it needs --head gaussian, or no --head at all")
        method_settings(config, name)  # refuses an unknown loss and bad numbers
    expert = None if config.expert is None else given_expert(config)
    probe = make_task(config, 1, "none", 0)
    try:
        if expert is not None:
            check_expert(expert, probe)
        for name in config.method:
            student = make_student(config, name, probe, expert, 0)
            settings, method = method_settings(config, name), method_class(name)
            if issubclass(method, ActorCritic):
                check_augmentation(student, settings.learning)
            if expert is not None:  # does it have what the method needs of it?
                method(probe, expert, student, settings, 0)
    finally:
        probe.close()
    return config
