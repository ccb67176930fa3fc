"""Making experts: training them on privileged views, and loading them from whatever has been trained.

`train_expert` trains one on any batched task, by SB3's PPO (a CPU's choice) or rsl_rl's (a GPU's).
`load_expert` reads experts, rsl_rl policies, cells of ``tutelage compare``, and SB3's own files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.catalogue import vec_task_class
from tutelage.envs.contract.recipe import recipe_of
from tutelage.envs.contract.state import StateDict
from tutelage.students.experts.expert_loading import expert_from_rsl_rl, expert_from_sb3, load_expert
from tutelage.students.experts.expert_stages import (
    ExpertProgress,
    Monitor,
    RslRlStage,
    SB3Stage,
    build_task_teacher,
    test_episodes,
)
from tutelage.students.experts.expert_warm_start import config_like
from tutelage.students.rsl_rl.rsl_rl_policy import RslRlPPOConfig
from tutelage.students.sb3.checkpoint import global_generators, set_global_generators, untouched_generators
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.sb3.presets import student_preset
from tutelage.students.sb3.stages import load_stage, save_stage
from tutelage.students.torch_tools.threads import torch_threads
from tutelage.teachers.experts.mlp_expert import MLPExpert

if TYPE_CHECKING:
    from tutelage.students.experts.expert_stages import AnyTaskTeacher

__all__ = ["ExpertProgress", "expert_from_rsl_rl", "expert_from_sb3", "load_expert", "train_expert"]


class ExpertTraining:
    """The training of an expert, in stages that can be saved; `train_expert` goes through it at once.

    Global generators come out of every call as they went in. On a CPU, the same arguments give the same
    expert, however the training is cut into stages, and whether it was saved and loaded between them.

    Args:
        task_name, seed, steps, method, config, task_teacher, start_from, until_success, device, task_options:
            as of `train_expert`.

    Attributes:
        steps: environment steps that it may take at most.
        monitor: steps, seconds, running means.
        saveable: whether it can be saved between two stages; with ``rsl_rl`` there is one stage alone.

    Raises:
        ValueError: as of `train_expert`.
    """

    def __init__(
        self,
        task_name: str | type[VecTask],
        *,
        seed: int,
        steps: int | None = None,
        method: Literal["sb3", "rsl_rl"] = "sb3",
        config: StudentConfig | RslRlPPOConfig | None = None,
        task_teacher: AnyTaskTeacher = "random",
        start_from: MLPExpert | None = None,
        until_success: float | None = None,
        device: str = "cpu",
        task_options: Mapping[str, Any] | None = None,
    ) -> None:
        if method not in ("sb3", "rsl_rl"):
            raise ValueError(f"unknown method {method!r} (known: sb3, rsl_rl)")
        if until_success is not None and not 0 < until_success <= 1:
            raise ValueError(f"until_success must be above 0 and at most 1, not {until_success}")
        self.name = task_name if isinstance(task_name, str) else task_name.__name__
        cls = vec_task_class(task_name) if isinstance(task_name, str) else task_name
        self.steps = recipe_of(cls, self.name).expert_steps if steps is None else steps
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        self.method, self.seed = method, seed
        options = {"threads": 1, **(task_options or {}), "device": device, "seed": seed}
        self.monitor = Monitor(until_success)
        kind = StudentConfig if method == "sb3" else RslRlPPOConfig
        if config is not None and not isinstance(config, kind):
            article = "a" if method == "sb3" else "an"
            raise ValueError(
                f"method {method!r} takes {article} {kind.__name__}, not {type(config).__name__}"
            )
        self._stage: SB3Stage | RslRlStage
        with untouched_generators(), torch_threads(1):  # small networks gain nothing from more
            if method == "sb3":
                student = student_preset(recipe_of(cls, self.name), "ppo")
                if isinstance(config, StudentConfig):
                    student = config
                if start_from is not None:
                    student = config_like(student, start_from)
                self.task = cls(student.n_envs, **options)
                proposer = build_task_teacher(task_teacher, self.task, seed)
                student = replace(student, device=device)
                self._stage = SB3Stage(
                    self.task, student, self.steps, seed, proposer, start_from, self.monitor
                )
            else:
                if start_from is not None:
                    raise ValueError("start_from goes with method='sb3' only; leave it out")
                settings = config if isinstance(config, RslRlPPOConfig) else None
                count = settings.num_envs if settings else 256 if device == "cpu" else 2048
                self.task = cls(count, **options)
                taught = (
                    None if task_teacher == "random" else build_task_teacher(task_teacher, self.task, seed)
                )
                self._stage = RslRlStage(self.task, settings, self.steps, seed, taught, self.monitor)
            self._generators = global_generators()
        self.saveable = isinstance(self._stage, SB3Stage)

    @property
    def step(self) -> int:
        """Environment steps so far."""
        return self.monitor.steps

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train."""
        return self.monitor.stops or self.step >= self.steps

    def advance(self, until: int, on_progress: Callable[[ExpertProgress], bool | None] | None = None) -> None:
        """Train until at least `until` steps in all, or until the success that was asked for.

        Args:
            until: environment steps; with ``rsl_rl`` the training goes on to its end.
            on_progress: called after every roll-out; the training ends where it returns False.
        """
        self.monitor.on_progress = on_progress
        with untouched_generators(), torch_threads(1):
            set_global_generators(self._generators)
            with self.monitor.running():
                self._stage.advance(min(until, self.steps))
            self._generators = global_generators()

    def finish(self) -> MLPExpert:
        """The expert, with its `facts`; see `train_expert`. The task is closed."""
        with untouched_generators(), torch_threads(1):
            expert = self._stage.expert()
            episodes = test_episodes(self.task, expert, self.seed)
        self.task.close()
        success = self.monitor.success
        expert.facts |= {
            "task": self.name,
            "method": self.method,
            "seed": self.seed,
            "steps": self.step,
            "seconds": round(self.monitor.seconds, 3),
            "training_success": None if math.isnan(success) else success,
            "success": episodes.success,
            "success_episodes": len(episodes),
        }
        expert.queries = 0  # none of a student's yet
        return expert

    def save(self, folder: Path, beside: Mapping[str, Any]) -> None:
        """Write a checkpoint between two stages, `beside` included; the one before is deleted last.

        Raises:
            ValueError: with ``rsl_rl``, whose trainings have no stages.
        """
        if not isinstance(self._stage, SB3Stage):
            raise ValueError("a training by rsl_rl cannot be saved on its way")
        own = {"monitor": self.monitor.state_dict(), "beside": dict(beside)}
        with untouched_generators():
            set_global_generators(self._generators)
            save_stage(folder, self._stage.model, self._stage.taught, own)

    def load(self, folder: Path) -> StateDict | None:
        """Continue from the last checkpoint; return what was saved beside it, or None where there is none.

        Raises:
            StateError: when it is damaged or of another training.
        """
        if not isinstance(self._stage, SB3Stage):
            return None
        with untouched_generators():
            own = load_stage(folder, self._stage.model, self._stage.taught)
            self._generators = global_generators()
        if own is None:
            return None
        self._stage.begun = True
        self.monitor.load_state_dict(own["monitor"])
        beside: StateDict = own["beside"]
        return beside


def train_expert(
    task_name: str | type[VecTask],
    *,
    seed: int,
    steps: int | None = None,
    method: Literal["sb3", "rsl_rl"] = "sb3",
    config: StudentConfig | RslRlPPOConfig | None = None,
    task_teacher: AnyTaskTeacher = "random",
    start_from: MLPExpert | None = None,
    until_success: float | None = None,
    on_progress: Callable[[ExpertProgress], bool | None] | None = None,
    device: str = "cpu",
    task_options: Mapping[str, Any] | None = None,
) -> MLPExpert:
    """Train an expert on what the task calls ``obs``; for most tasks that is the view ``privileged``.

    Global generators come out as they went in. On a CPU, the same arguments give the same expert.

    Args:
        task_name: of `tutelage.envs.batched.VEC_TASKS`, ``module:Class``, or the class of a task.
        seed: of networks, actions, tasks and starts.
        steps: environment steps of all environments together, rounded up to whole roll-outs; default: what
            the task's recipe says.
        method: ``sb3``: Stable-Baselines3's PPO with the preset of the task. ``rsl_rl``: rsl_rl's PPO, whose
            critic sees the task's ``states``.
        config: settings of the method, in place of its preset.
        task_teacher: whose tasks to train on: a name of `tutelage.teachers.TASK_TEACHERS` that needs no
            knowledge of the task (``geo-curriculum`` is the object curriculum), what makes one of a task
            space and a generator, or one that is built. For ``sb3`` only.
        start_from: an expert of the same task, to train further rather than a new one; it is not changed. Its
            networks, critic, statistics and exploration go on; optimiser and schedules begin anew. For
            ``sb3`` only.
        until_success: stop as soon as the running success of training reaches this, in (0, 1]. It is that of
            exploring actions on the task teacher's tasks: the expert itself is mostly better.
        on_progress: called after every roll-out; training stops where it returns False.
        device: of networks and task. The CPU simulator runs on one thread unless `task_options` say more.
        task_options: of the task's constructor, e.g. ``{"backend": "warp"}``; see `VecTask`.

    Returns:
        The expert, with `facts`: ``task``, ``method``, ``seed``, ``steps``, ``seconds`` of training,
        ``training_success`` (the running mean at the end), ``success`` (deterministic actions, newly drawn
        uniform tasks, ``success_episodes`` of them), and what its critic was trained on: returns, with the
        discount ``gamma``, of rewards divided by ``reward_scale``.

    Raises:
        ValueError: when there is no such task, method or task teacher, or a setting does not fit.
    """
    training = ExpertTraining(
        task_name,
        seed=seed,
        steps=steps,
        method=method,
        config=config,
        task_teacher=task_teacher,
        start_from=start_from,
        until_success=until_success,
        device=device,
        task_options=task_options,
    )
    training.advance(training.steps, on_progress)
    return training.finish()
