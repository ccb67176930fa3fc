"""One seed's expert of `tutelage distill`: trained or loaded once, for the students of all methods."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.envs.batched.worlds.catalogue import vec_task_recipe
from tutelage.experiments.distill import OF_EXPERT, DistillConfig, given_expert, make_task
from tutelage.experiments.runs.locking import check_same_config, locked
from tutelage.experiments.runs.records import read_status, write_json
from tutelage.experiments.trainings.distill_presets import ON_THE_WAY, test_sets
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.experts.expert_training import ExpertProgress, load_expert, train_expert
from tutelage.teachers.experts.mlp_expert import MLPExpert

EVALUATION_SEED = 3_000_000  # the same episodes for every expert, student and seed


def expert_name(seed: int) -> str:
    """Its folder, relative to the grid's."""
    return f"experts/seed-{seed}"


def expert_description(config: DistillConfig, seed: int) -> dict[str, Any]:
    """What decides an expert and its results, for its ``config.json``."""
    plain = config.to_json()
    return {**{name: plain[name] for name in OF_EXPERT}, "seed": seed}


def expert_steps(config: DistillConfig) -> int:
    """Environment steps that it trains, at most."""
    return config.expert_steps or vec_task_recipe(config.task).expert_steps


def make_expert(values: Mapping[str, Any], folder: Path) -> None:
    """Make the expert of a seed and find out how good it is, unless that is done; a job of the grid.

    The folder then holds the expert, and in ``results.json`` its success on every test set, and what it cost:
    nothing, where it was given.

    Args:
        values: ``config``, of `DistillConfig.to_json`, and ``seed``.
        folder: of this expert.

    Raises:
        FolderError: when the folder is in use, or was made with another configuration.
    """
    config, seed = DistillConfig.from_json(values["config"]), int(values["seed"])
    with locked(folder):
        check_same_config(folder / "config.json", expert_description(config, seed))
        if read_status(folder).get("state") == "finished":
            return
        began = time.perf_counter()

        def tell(state: str, step: int, scores: list[tuple[int, float]]) -> None:
            status = {"state": state, "step": step, "steps": expert_steps(config), "message": ""}
            write_json(
                folder / "status.json", {**status, "seconds": time.perf_counter() - began, "scores": scores}
            )

        def on_progress(progress: ExpertProgress) -> None:
            tell("running", progress.steps, [])

        tell("running", 0, [])
        expert = given_expert(config) if config.expert is not None else _trained(config, seed, on_progress)
        expert.save(folder)
        write_json(folder / "results.json", _results(config, seed, expert.to(config.device)))
        main = next(iter(test_sets(config.task, config.training_looks)))
        success = 100 * float(_results_of(folder)["success"][main])
        tell("finished", expert.facts.get("steps") or 0, [(expert.facts.get("steps") or 0, success)])


def read_expert(folder: Path, device: str) -> tuple[MLPExpert, dict[str, Any]]:
    """The expert of a finished folder, on a device, and its results."""
    return load_expert(folder).to(device), _results_of(folder)


def _results_of(folder: Path) -> dict[str, Any]:
    import json

    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def _trained(config: DistillConfig, seed: int, on_progress: Any) -> MLPExpert:
    expert = train_expert(
        config.task,
        seed=seed,
        steps=config.expert_steps,
        method=config.expert_method,
        until_success=config.expert_success,
        on_progress=on_progress,
        device=config.device,
    )
    print(f"expert trained: {expert.facts['steps']:,} steps in {expert.facts['seconds']:.1f} s", flush=True)
    return expert


def _results(config: DistillConfig, seed: int, expert: MLPExpert) -> dict[str, Any]:
    """Its success where looks do not matter to it: with the objects of training, and with held-out ones."""
    given, began = config.expert is not None, time.perf_counter()
    assert config.episodes is not None
    found = {}
    for held_out in (False, True) if vec_task_recipe(config.task).held_out else (False,):
        task = make_task(
            config, min(config.episodes, ON_THE_WAY), "none", seed, held_out=held_out, pictures=False
        )
        found[held_out] = evaluate_student(task, expert, config.episodes, EVALUATION_SEED)
        task.close()
    sets = {
        name: found[held_out] for name, (_, held_out) in test_sets(config.task, config.training_looks).items()
    }
    return {
        "task": config.task,
        "seed": seed,
        "given": given,
        "success": {name: evaluation.success for name, evaluation in sets.items()},
        "return": {name: float(evaluation.returns.mean()) for name, evaluation in sets.items()},
        "steps": 0 if given else int(expert.facts["steps"]),
        "seconds": 0.0 if given else float(expert.facts["seconds"]),
        "evaluation_seconds": time.perf_counter() - began,
        "facts": expert.facts,
    }
