"""What `train_expert` is made of: SB3's and rsl_rl's PPO on a task, running means, a test at the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict
from tutelage.students.experts.expert_loading import expert_from_rsl_rl, expert_from_sb3
from tutelage.students.experts.expert_warm_start import warm_start
from tutelage.students.rsl_rl.rsl_rl_policy import Progress, RslRlPPOConfig
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.torch_tools.play import play
from tutelage.teachers import make_task_teacher
from tutelage.teachers.experts.mlp_expert import MLPExpert, check_expert

if TYPE_CHECKING:
    from tutelage.envs.contract.interface import TaskTeacher
    from tutelage.envs.contract.tasks import TaskSpace

    AnyTaskTeacher = str | TaskTeacher | Callable[[TaskSpace, np.random.Generator], TaskTeacher]


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


class Monitor:
    """Steps, seconds and running means of one training, and whether to stop it."""

    def __init__(self, until_success: float | None) -> None:
        self.until_success = until_success
        self.on_progress: Callable[[ExpertProgress], bool | None] | None = None
        self.steps, self.episodes, self.seconds = 0, 0, 0.0
        self.window = WINDOW
        self._recent: deque[tuple[int, float, float]] = deque()  # episodes, successes, returns of a step
        self._began = perf_counter()
        self._asked_to_stop = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds inside."""
        self._began = perf_counter() - self.seconds
        yield
        self.seconds = perf_counter() - self._began

    def add(self, count: int, successes: float, returns: float) -> None:
        """Count finished episodes."""
        self.episodes += count
        self._recent.append((count, successes, returns))
        while sum(n for n, _, _ in self._recent) - self._recent[0][0] >= self.window:
            self._recent.popleft()

    def report(self, steps: int) -> None:
        """A roll-out is complete."""
        self.steps, self.seconds = steps, perf_counter() - self._began
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

    def state_dict(self) -> StateDict:
        """All counts, by value."""
        recent = [list(entry) for entry in self._recent]
        return {
            "steps": self.steps,
            "episodes": self.episodes,
            "seconds": self.seconds,
            "window": self.window,
            "recent": recent,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Go on counting."""
        self.steps, self.episodes, self.seconds = state["steps"], state["episodes"], state["seconds"]
        self.window = state["window"]
        self._recent = deque((n, successes, returns) for n, successes, returns in state["recent"])

    def _mean(self, column: int) -> float:
        count = sum(entry[0] for entry in self._recent)
        return sum(entry[column] for entry in self._recent) / count if count else math.nan


class SB3Stage:
    """SB3's PPO on a taught task."""

    def __init__(
        self,
        task: VecTask,
        config: StudentConfig,
        steps: int,
        seed: int,
        task_teacher: TaskTeacher,
        start_from: MLPExpert | None,
        monitor: Monitor,
    ) -> None:
        from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
        from tutelage.envs.teaching.taught import TaughtVecEnv
        from tutelage.students.sb3.student import make_student

        def count(episodes: Episodes) -> None:
            monitor.add(len(episodes), float(episodes.successes.sum()), float(episodes.returns.sum()))

        self.task, self.monitor, self.begun = task, monitor, False
        monitor.window = max(WINDOW, task.num_envs)  # every environment's last episode is in the mean
        self.taught = TaughtVecEnv(SB3VecTask(task), task_teacher, on_episodes=count)
        self.model = make_student(config, self.taught, seed=seed, total_steps=steps)
        expert_from_sb3(self.model)  # refuses what is no expert now, not after the training
        if start_from is not None:
            check_expert(start_from, task)
            warm_start(self.model, start_from)

    def advance(self, until: int) -> None:
        """Train until at least so many steps."""
        from stable_baselines3.common.callbacks import BaseCallback

        from tutelage.students.sb3.student import train_until

        monitor = self.monitor

        class Watch(BaseCallback):
            """Reports roll-outs, and stops the training."""

            def _on_rollout_end(self) -> None:
                monitor.report(self.num_timesteps)

            def _on_step(self) -> bool:
                return not monitor.stops

        train_until(self.model, until, Watch(), new_episodes=not self.begun)
        self.begun = True
        monitor.steps = self.model.num_timesteps

    def expert(self) -> MLPExpert:
        """The policy as it is."""
        self.task.auto_reset = True
        return expert_from_sb3(self.model)


class RslRlStage:
    """rsl_rl's PPO on a task, from beginning to end."""

    def __init__(
        self,
        task: VecTask,
        settings: RslRlPPOConfig | None,
        steps: int,
        seed: int,
        task_teacher: TaskTeacher | None,
        monitor: Monitor,
    ) -> None:
        if settings is None:
            settings = RslRlPPOConfig(
                num_envs=task.num_envs, actor_view=task.obs_view, critic_view=task.states_view
            )
        self.settings = replace(settings, seed=seed)
        self.task, self.steps, self.task_teacher, self.monitor = task, steps, task_teacher, monitor
        monitor.window = max(WINDOW, task.num_envs)

    def advance(self, until: int) -> None:
        """Train all steps, whatever `until` is."""
        from tutelage.students.rsl_rl.rsl_rl_ppo import train

        def watch(progress: Progress) -> bool:
            if n := progress.episodes:
                self.monitor.add(n, progress.success * n, progress.mean_return * n)
            self.monitor.report(progress.steps)
            return not self.monitor.stops

        if self.task_teacher is not None:
            self.task.teach(self.task_teacher)
        self.policy = train(self.task, self.settings, self.steps, callback=watch)
        if self.task_teacher is not None:
            self.task.teach(None)

    def expert(self) -> MLPExpert:
        """The policy as it is."""
        return expert_from_rsl_rl(self.policy)


def build_task_teacher(task_teacher: AnyTaskTeacher, task: VecTask, seed: int) -> TaskTeacher:
    """The task teacher itself, of its name or of what makes it."""
    rng = np.random.default_rng([seed, 1])
    if isinstance(task_teacher, str):
        return make_task_teacher(task_teacher, task.task_space, rng)
    return task_teacher(task.task_space, rng) if callable(task_teacher) else task_teacher


def test_episodes(task: VecTask, expert: MLPExpert, seed: int) -> Episodes:
    """Episodes of deterministic actions on new uniform tasks."""
    rng = np.random.default_rng([seed, 2])
    parts = []
    for _ in range(math.ceil(TEST_EPISODES / task.num_envs)):
        tasks = task.task_space.sample(rng, task.num_envs)
        seeds = rng.integers(0, 2**31, task.num_envs).tolist()
        parts.append(play(task, lambda obs_dict, started: expert.act(obs_dict), tasks, seeds))
    return Episodes.joined(parts)
