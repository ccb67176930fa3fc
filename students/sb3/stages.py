"""Checkpoints of a training between two of its stages: student, task teacher, running episodes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.envs.contract.state import StateDict, load_state, save_state
from tutelage.students.sb3.checkpoint import load_student, save_student

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from tutelage.envs.teaching.taught import TaughtVecEnv


def save_stage(folder: Path, model: BaseAlgorithm, taught: TaughtVecEnv, beside: Mapping[str, Any]) -> None:
    """Write a new folder ``step-<n>`` in `folder`; the one before is deleted last.

    Args:
        folder: of one training alone.
        model: the student.
        taught: its environments, with their task teacher; running episodes are saved where they can be.
        beside: a state tree of the caller's own.

    Raises:
        OSError: when the disk is full or not writable; the checkpoint before is then untouched.
    """
    draft = folder / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_student(draft, model)
    state = {
        "task_teacher": taught.task_teacher.state_dict(),
        "episodes": taught.state_dict() if model.num_timesteps else None,  # at the least their counters
        "beside": dict(beside),
    }
    save_state(draft / "run.npz", state)
    older = stages_in(folder)
    draft.rename(folder / f"step-{model.num_timesteps}")
    for path in older:
        shutil.rmtree(path)


def load_stage(folder: Path, model: BaseAlgorithm, taught: TaughtVecEnv) -> StateDict | None:
    """Continue from the last checkpoint of a folder; return its `beside`, or None without a checkpoint.

    Raises:
        StateError: when it is damaged, or of another student, task teacher or environment.
    """
    stages = stages_in(folder)
    if not stages:
        return None
    load_student(stages[-1], model)
    state = load_state(stages[-1] / "run.npz")
    taught.task_teacher.load_state_dict(state["task_teacher"])
    if state["episodes"] is not None:
        taught.load_state_dict(state["episodes"])
    beside: StateDict = state["beside"]
    return beside


def stages_in(folder: Path) -> list[Path]:
    """List the complete checkpoints, the newest last."""
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
