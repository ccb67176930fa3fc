"""Making experts: training them on privileged views, and loading them from whatever has been trained.

`train_expert` trains one on any batched task, by SB3's PPO (a CPU's choice) or rsl_rl's (a GPU's).
`load_expert` reads experts, rsl_rl policies, cells of ``tutelage compare``, and SB3's own files.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.catalogue import vec_task_class
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.recipe import recipe_of
from tutelage.students.experts.expert_loading import expert_from_rsl_rl, expert_from_sb3, load_expert
from tutelage.students.experts.expert_warm_start import config_like, warm_start
from tutelage.students.rsl_rl.rsl_rl_policy import Progress, RslRlPPOConfig
from tutelage.students.sb3.checkpoint import untouched_generators
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.sb3.presets import student_preset
from tutelage.students.torch_tools.threads import torch_threads
from tutelage.teachers import make_task_teacher
from tutelage.teachers.experts.mlp_expert import MLPExpert, check_expert

if TYPE_CHECKING:
    from tutelage.envs.contract.interface import TaskTeacher
    from tutelage.envs.contract.tasks import TaskSpace

    AnyTaskTeacher = str | TaskTeacher | Callable[[TaskSpace, np.random.Generator], TaskTeacher]

__all__ = ["ExpertProgress", "expert_from_rsl_rl", "expert_from_sb3", "load_expert", "train_expert"]

WINDOW = 256  # episodes, at least, that the running success is the mean of
TEST_EPISODES = 256  # at least, of the finished expert


@dataclass(frozen=True)
class ExpertProgress:
    """How far the training of an expert has come, after each roll-out.

    Attributes:
        steps: environment steps so far, of all environments.
        seconds: since training began.
        episodes: finished so far.
        success, mean_return: running means over the last episodes, with the exploration of training, on the
            tasks of training; NaN before the first has ended.
    """

    steps: int
    seconds: float
    episodes: int
    success: float
    mean_return: float


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
    if method not in ("sb3", "rsl_rl"):
        raise ValueError(f"unknown method {method!r} (known: sb3, rsl_rl)")
    if until_success is not None and not 0 < until_success <= 1:
        raise ValueError(f"until_success must be above 0 and at most 1, not {until_success}")
    name = task_name if isinstance(task_name, str) else task_name.__name__
    cls = vec_task_class(task_name) if isinstance(task_name, str) else task_name
    steps = recipe_of(cls, name).expert_steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    options = {"threads": 1, **(task_options or {}), "device": device, "seed": seed}
    run = _Run(until_success, on_progress)
    with untouched_generators(), torch_threads(1):  # small networks gain nothing from more
        if method == "sb3":
            if config is not None and not isinstance(config, StudentConfig):
                raise ValueError(f"method 'sb3' takes a StudentConfig, not {type(config).__name__}")
            student = config or student_preset(recipe_of(cls, name), "ppo")
            if start_from is not None:
                student = config_like(student, start_from)
            task = cls(student.n_envs, **options)
            student = replace(student, device=device)
            expert = _train_sb3(task, student, steps, seed, task_teacher, start_from, run)
        else:
            if task_teacher != "random" or start_from is not None:
                raise ValueError("task_teacher and start_from go with method='sb3' only; leave them out")
            if config is not None and not isinstance(config, RslRlPPOConfig):
                raise ValueError(f"method 'rsl_rl' takes an RslRlPPOConfig, not {type(config).__name__}")
            settings = config or RslRlPPOConfig(num_envs=256 if device == "cpu" else 2048)
            task = cls(settings.num_envs, **options)
            expert = _train_rsl_rl(task, settings, config is None, steps, seed, run)
        success, episodes = _success(task, expert, seed)
        task.close()
    expert.facts |= {
        "task": name,
        "method": method,
        "seed": seed,
        "steps": run.steps,
        "seconds": round(run.seconds, 3),
        "training_success": None if math.isnan(run.success) else run.success,
        "success": success,
        "success_episodes": episodes,
    }
    expert.queries = 0  # none of a student's yet
    return expert


class _Run:
    """Steps, seconds and running means of one training, and whether to stop it."""

    def __init__(
        self, until_success: float | None, on_progress: Callable[[ExpertProgress], bool | None] | None
    ) -> None:
        self.until_success, self.on_progress = until_success, on_progress
        self.steps, self.episodes, self.seconds = 0, 0, 0.0
        self.window = WINDOW
        self._recent: deque[tuple[int, float, float]] = deque()  # episodes, successes, returns of a step
        self._began = perf_counter()
        self._asked_to_stop = False

    def begin(self, num_envs: int) -> None:
        """Training begins: every environment's last episode is to be in the running mean."""
        self.window = max(WINDOW, num_envs)
        self._began = perf_counter()

    def end(self, steps: int) -> None:
        """Training ends."""
        self.steps, self.seconds = steps, perf_counter() - self._began

    def add(self, count: int, successes: float, returns: float) -> None:
        """Count finished episodes."""
        self.episodes += count
        self._recent.append((count, successes, returns))
        while sum(n for n, _, _ in self._recent) - self._recent[0][0] >= self.window:
            self._recent.popleft()

    def report(self, steps: int) -> None:
        """A roll-out is complete."""
        self.end(steps)
        progress = ExpertProgress(steps, self.seconds, self.episodes, self.success, self._mean(2))
        if self.on_progress is not None and self.on_progress(progress) is False:
            self._asked_to_stop = True

    @property
    def success(self) -> float:
        """The running mean; NaN before the first episode has ended."""
        return self._mean(1)

    @property
    def stops(self) -> bool:
        """Whether the training is to stop now."""
        full = sum(count for count, _, _ in self._recent) >= self.window
        reached = self.until_success is not None and full and self.success >= self.until_success
        return reached or self._asked_to_stop

    def _mean(self, column: int) -> float:
        count = sum(entry[0] for entry in self._recent)
        return sum(entry[column] for entry in self._recent) / count if count else math.nan


def _train_sb3(
    task: VecTask,
    config: StudentConfig,
    steps: int,
    seed: int,
    task_teacher: AnyTaskTeacher,
    start_from: MLPExpert | None,
    run: _Run,
) -> MLPExpert:
    from stable_baselines3.common.callbacks import BaseCallback

    from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
    from tutelage.envs.contract.taught import TaughtVecEnv
    from tutelage.students.sb3.student import make_student, train_until

    class Watch(BaseCallback):
        """Reports roll-outs, and stops the training."""

        def _on_rollout_end(self) -> None:
            run.report(self.num_timesteps)

        def _on_step(self) -> bool:
            return not run.stops

    def count(episodes: Episodes) -> None:
        run.add(len(episodes), float(episodes.successes.sum()), float(episodes.returns.sum()))

    rng = np.random.default_rng([seed, 1])
    if isinstance(task_teacher, str):
        proposer = make_task_teacher(task_teacher, task.task_space, rng)
    else:
        proposer = task_teacher(task.task_space, rng) if callable(task_teacher) else task_teacher
    taught = TaughtVecEnv(SB3VecTask(task), proposer, on_episodes=count)
    model = make_student(config, taught, seed=seed, total_steps=steps)
    expert_from_sb3(model)  # refuses what is no expert now, not after the training
    if start_from is not None:
        check_expert(start_from, task)
        warm_start(model, start_from)
    run.begin(task.num_envs)
    train_until(model, steps, Watch())
    run.end(model.num_timesteps)
    task.auto_reset = True
    return expert_from_sb3(model)


def _train_rsl_rl(
    task: VecTask, settings: RslRlPPOConfig, preset: bool, steps: int, seed: int, run: _Run
) -> MLPExpert:
    from tutelage.students.rsl_rl.rsl_rl_ppo import train

    def watch(progress: Progress) -> bool:
        if progress.episodes:
            successes, returns = progress.success, progress.mean_return
            run.add(progress.episodes, successes * progress.episodes, returns * progress.episodes)
        run.report(progress.steps)
        return not run.stops

    settings = replace(settings, seed=seed)
    if preset:
        settings = replace(settings, actor_view=task.obs_view, critic_view=task.states_view)
    run.begin(task.num_envs)
    return expert_from_rsl_rl(train(task, settings, steps, callback=watch))


def _success(task: VecTask, expert: MLPExpert, seed: int) -> tuple[float, int]:
    """Success of deterministic actions on new uniform tasks, and in how many episodes."""
    words = np.random.SeedSequence([seed, 2]).generate_state(1)
    task.seed([(int(words[0]) >> 2) + i for i in range(task.num_envs)])
    rounds = math.ceil(TEST_EPISODES / task.num_envs)
    succeeded = torch.zeros((), dtype=torch.int64, device=task.device)
    for _ in range(rounds):
        obs_dict = task.reset()
        running = torch.ones(task.num_envs, dtype=torch.bool, device=task.device)
        for _ in range(task.max_episode_length):
            obs_dict, _, ends, extras = task.step(expert.act(obs_dict))
            succeeded += (running & extras["success"]).sum()
            running &= ends == 0
    return int(succeeded) / (rounds * task.num_envs), rounds * task.num_envs
