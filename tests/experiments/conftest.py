"""A grid folder made up in seconds: what `tutelage compare` writes, from a model of students that learn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tutelage.envs.contract.names import folder_name
from tutelage.envs.contract.tasks import BoxTasks, DiscreteTasks

SPACE = BoxTasks({"gate_position": (-4, 4), "gate_width": (0.5, 8)})
SPEED = {"target": 0.02, "random": 0.55, "alp-gmm": 1.0, "riac": 0.8, "covar-gmm": 0.95, "adr": 0.7}


def cell_tables(
    rng: np.random.Generator,
    teacher: str,
    seed: int,
    space: BoxTasks | DiscreteTasks,
    sets: dict[str, np.ndarray],
    steps: int,
    every: int,
    defined: bool,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluations and training episodes of a student that widens what it masters from easy tasks to hard."""
    line = space if isinstance(space, BoxTasks) else BoxTasks({"index": (0, space.n)})
    speed = SPEED.get(teacher, 0.5) * rng.uniform(0.75, 1.1)
    pace = rng.uniform(0.0004, 0.0005)
    rows = []
    for step in range(0, steps + 1, every):
        reach = 1.5 * speed * (1 - np.exp(-3 * step / steps))
        for name, tasks in sets.items():
            unit = line.to_unit(tasks.reshape(len(tasks), line.dim))
            hard = np.abs(unit[:, 0] - 0.5) + 0.8 * (1 - unit[:, -1])
            margin = reach - hard + rng.normal(0, 0.06, len(tasks))
            for index, value in enumerate(margin):
                success = float(value > 0) if defined else np.nan
                rows.append((step, step * pace, name, index, 10 * np.tanh(2 * value), 100, success))
    names = ["step", "seconds", "test_set", "task_index", "return", "length", "success"]
    count = steps // 100
    at = np.sort(rng.integers(0, steps, count))
    progress = at / steps
    unit = rng.random((count, line.dim))
    if teacher == "target":
        unit = np.clip(
            np.r_[0.85, 0.05, [0.5] * (line.dim - 2)][: line.dim] + rng.normal(0, 0.02, unit.shape), 0, 1
        )
    elif teacher != "random":
        centre = np.full((count, line.dim), 0.5)
        centre[:, 0] += 0.35 * progress
        if line.dim > 1:
            centre[:, 1] = 0.8 - 0.7 * progress
        focused = rng.random(count) > 0.2
        unit[focused] = np.clip(centre + rng.normal(0, 0.1, unit.shape), 0, 1)[focused]
    tasks = line.from_unit(unit)
    episodes = pd.DataFrame({"step": at, "seconds": at * pace, "return": rng.normal(0, 3, count)})
    episodes["length"] = 100
    episodes["success"] = (rng.random(count) < 0.5).astype(float) if defined else np.nan
    for column, name in enumerate(line.names):
        episodes[f"task/{name}"] = tasks[:, column]
    if isinstance(space, DiscreteTasks):
        episodes["task/index"] = np.minimum(episodes["task/index"].astype(int), space.n - 1)
    return pd.DataFrame(rows, columns=names), episodes


def write_grid(
    folder: Path,
    *,
    teachers: tuple[str, ...] = ("target", "random", "alp-gmm"),
    students: tuple[str, ...] = ("ppo",),
    seeds: int = 5,
    steps: int = 20_000,
    every: int = 2_000,
    space: BoxTasks | DiscreteTasks = SPACE,
    target_tasks: int = 30,
    per_dimension: int = 8,
    defined: bool = True,
    return_range: tuple[float, float] | None = (-10, 10),
) -> Path:
    """Write a finished grid and return its folder."""
    rng = np.random.default_rng(7)
    if isinstance(space, DiscreteTasks):
        sets = {"uniform": np.arange(space.n), "target": np.array([space.n - 1])}
    else:
        aim = np.r_[0.85, 0.05, [0.5] * space.dim][: space.dim]
        spread = rng.normal(0, 0.03, (target_tasks, space.dim))
        sets = {"uniform": space.grid(per_dimension)}
        sets["target"] = space.from_unit(np.clip(aim + spread, 0, 1))
    folder.mkdir(parents=True)
    env = {"name": "point-mass-gate", "id": "tutelage.envs:tutelage/PointMassGate-v0", "kwargs": {}}
    env |= {"task_space": space.to_json(), "primary_test_set": "target", "return_range": return_range}
    env["mastered"] = "the point mass passed the gate and stopped at the goal"
    description: dict[str, Any] = {"command": "tutelage compare --preset quick --out runs/quick"}
    description |= {
        "created": "2026-11-21T04:00:00+00:00",
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
    }
    description |= {"machine": {"processor": "x86_64", "cores": 2, "memory_gib": 8.0}, "env": env}
    description |= {"task_teachers": {name: {"fit_rate": 250} for name in teachers}, "baseline": teachers[0]}
    description |= {"students": {name: {"n_steps": 256, "learning_rate": 3e-4} for name in students}}
    description |= {"seeds": list(range(seeds)), "steps": steps, "evaluate_every": every}
    (folder / "grid.json").write_text(json.dumps(description))
    (folder / "test_sets.json").write_text(json.dumps({name: rows.tolist() for name, rows in sets.items()}))
    for student in students:
        for teacher in teachers:
            for seed in range(seeds):
                cell = folder / folder_name(student) / folder_name(teacher) / f"seed-{seed}"
                cell.mkdir(parents=True)
                tables = cell_tables(rng, teacher, seed, space, sets, steps, every, defined)
                tables[0].to_parquet(cell / "evaluations.parquet")
                tables[1].to_parquet(cell / "episodes.parquet")
                status = {"state": "finished", "step": steps, "steps": steps, "message": ""}
                (cell / "status.json").write_text(json.dumps(status))
                total = float(tables[0]["seconds"].max()) + 1
                shares = {"environment": 0.2, "student": 0.55, "task_teacher": 0.03, "evaluation": 0.15}
                seconds = {part: total * share for part, share in shares.items()} | {"total": total}
                seconds["other"] = total * 0.07
                timings = {"seconds": seconds, "steps": steps, "episodes": len(tables[1])}
                (cell / "timings.json").write_text(json.dumps(timings))
                (cell / "config.json").write_text("{}")
                (cell / "log.txt").write_text("started\nfinished\n")
    return folder


@pytest.fixture
def make_grid(tmp_path: Path) -> Callable[..., Path]:
    """`write_grid`, into a folder of this test."""
    return lambda **options: write_grid(tmp_path / "grid", **options)


@pytest.fixture(scope="session")
def reach_expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained expert for Reach, with a critic; it says that it cost 100 steps and 1.5 s."""
    import torch

    from tutelage.teachers.experts.mlp_expert import ExpertConfig, MLPExpert

    config = ExpertConfig(
        view="privileged",
        num_obs=21,
        num_actions=4,
        hidden=(8,),
        critic_view="privileged",
        num_states=21,
        critic_hidden=(8,),
    )
    generator = torch.Generator().manual_seed(0)
    tensors = {"log_std": torch.zeros(4)}
    for part, outputs in (("actor", 4), ("critic", 1)):
        sizes = {"0.weight": (8, 21), "0.bias": (8,), "2.weight": (outputs, 8), "2.bias": (outputs,)}
        tensors |= {f"{part}.layers.{k}": 0.3 * torch.randn(s, generator=generator) for k, s in sizes.items()}
        tensors |= {f"{part}.mean": torch.zeros(21), f"{part}.scale": torch.ones(21)}
    folder = tmp_path_factory.mktemp("expert")
    MLPExpert(config, tensors, {"seconds": 1.5, "steps": 100, "gamma": 0.99}).save(folder)
    return folder
