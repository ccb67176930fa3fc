"""A student under a task teacher: the training of a cell of `tutelage compare`.

Environments whose state cannot be saved begin new episodes with every stage, from evaluation to evaluation,
in uninterrupted runs too; those that can be saved carry theirs on. Both resume to identical numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.interface import Scores
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.taught import TaughtVecEnv
from tutelage.experiments.runs.cell import EVALUATION_SEED, run_cell
from tutelage.experiments.runs.config import CellConfig, hyperparameters
from tutelage.experiments.runs.report import Report, quietly
from tutelage.experiments.runs.training import Costs, PlayTestSet, Progress, Results
from tutelage.experiments.tensorboard.clips import clip_tasks, record_clip
from tutelage.experiments.tensorboard.galleries import draw_task_space
from tutelage.experiments.tensorboard.grid_log import SB3Output
from tutelage.experiments.worlds.catalogue import build_task_teacher, make_eval_venv, make_venv, task_env_card
from tutelage.students.sb3.checkpoint import load_student, save_student
from tutelage.students.sb3.evaluation import evaluate
from tutelage.students.sb3.rollout_scores import RolloutScores
from tutelage.students.sb3.stages import load_stage, save_stage
from tutelage.students.sb3.student import make_student, train_until

PROPOSALS_SHOWN = 400  # a task-space picture shows this many recent episodes
CLIPS_AT = (0.25, 0.5, 1.0)  # fractions of the training after which clips are recorded


def train_student(values: Mapping[str, Any], folder: Path) -> None:
    """Train the cell that is described by the values of a `CellConfig`; a job of a grid.

    Raises:
        FolderError: when the folder belongs to another configuration or is in use.
        StateError: when the checkpoint is damaged.
    """
    torch.set_num_threads(1)
    config = CellConfig.from_json(values)
    # Clips decide no number.
    run_cell(lambda: TaughtStudent(config), config.to_json(), folder, undecisive=("clips",))


def load_trained(folder: str | Path) -> BaseAlgorithm:
    """Load the student of a finished cell, to act or to evaluate: an SB3 model with its normaliser.

    Args:
        folder: the cell's, e.g. ``runs/quick/ppo/alp-gmm/seed-0``.

    Raises:
        FileNotFoundError: when the cell has not finished.
        StateError: when its files are damaged.
    """
    folder = Path(folder)
    model = TaughtStudent(CellConfig.from_json(json.loads((folder / "config.json").read_text()))).model
    load_student(folder / "student", model, replay_buffer=False)
    return model


class TaughtStudent:
    """Student, task teacher and environments of one cell; a `tutelage.experiments.runs.training.Training`."""

    evaluates_untrained = True

    def __init__(self, config: CellConfig) -> None:
        self.config = config
        self.card = task_env_card(config.env)
        student = config.student_config
        venv = make_venv(self.card, student.n_envs, student.workers)
        self.eval_venv = make_eval_venv(self.card)
        self.tests = self.card.test_sets()
        self.task_teacher = build_task_teacher(
            config.task_teacher_name,
            self.card,
            self.eval_venv.task_space,
            np.random.default_rng([config.seed, 1]),
            config.task_teacher_config,
        )
        self.taught = TaughtVecEnv(venv, self.task_teacher)
        self.task_space = self.taught.task_space
        self.model = make_student(student, self.taught, seed=self._seed("student"), total_steps=config.steps)
        self.scoring: RolloutScores | None = None
        if isinstance(self.task_teacher, Scores) and isinstance(self.model, OnPolicyAlgorithm):
            self.scoring = RolloutScores(self.model, self._score)
        self.costs = Costs(seconds={"environment": 0.0, "student": 0.0, "task_teacher": 0.0})
        stages = range(0, config.steps, config.evaluate_every)
        self.evaluations: Sequence[float] = [*(step / config.steps for step in stages), 1.0]
        self._failed: set[str] = set()
        self._clip_step = 0.0  # fraction of the training done when clips were last thought of

    @property
    def step(self) -> int:
        """Environment steps trained so far."""
        return self.model.num_timesteps

    @property
    def spent(self) -> float:
        """The share of the steps that is done."""
        return self.step / self.config.steps

    @property
    def progress(self) -> Progress:
        """Steps done, of all."""
        return Progress(self.step, self.config.steps)

    def hyperparameters(self) -> Mapping[str, bool | int | float | str]:
        """What distinguishes the cell."""
        return hyperparameters(self.config)

    def advance(self, until: float, report: Report) -> None:
        """Train one stage: up to the next multiple of `evaluate_every`."""
        self.model.set_logger(Logger(folder=None, output_formats=[SB3Output(report.log)]))
        self.taught.on_episodes = lambda episodes: report.episodes(self.step + self.taught.num_envs, episodes)
        stage = self.step // self.config.evaluate_every
        new_episodes = stage == 0 or not self.taught.saves_episodes
        if new_episodes:
            self.taught.seed(self._seed("environments", stage))
        environment, teaching = self.taught.environment_seconds, self.taught.task_teacher_seconds
        began = time.perf_counter()
        callbacks: list[BaseCallback] = [_Watch(self, report)]
        if self.scoring is not None:
            callbacks.insert(0, self.scoring)
        self._report = report
        train_until(self.model, round(until * self.config.steps), CallbackList(callbacks), new_episodes)
        spent = {
            "environment": self.taught.environment_seconds - environment,
            "task_teacher": self.taught.task_teacher_seconds - teaching,
        }
        spent["student"] = time.perf_counter() - began - sum(spent.values())
        for name, value in spent.items():
            self.costs.seconds[name] += value
        self.costs.student = self.step

    def _score(self, ids: NDArray[np.int64], scores: Mapping[str, NDArray[np.float64]]) -> None:
        """Hand scores of episodes to the task teacher, and to the record."""
        assert isinstance(self.task_teacher, Scores)
        self.task_teacher.score(ids, scores)
        self._report.record.add_scores(self.step, ids, scores)

    # --- evaluation ------------------------------------------------------------------------------------

    def test_sets(self, at_end: bool) -> Sequence[str]:
        """All, every time."""
        return [self.card.primary_test_set, *(n for n in self.tests if n != self.card.primary_test_set)]

    def policies(self) -> Mapping[str, PlayTestSet]:
        """The student, deterministic."""
        return {
            "student": lambda name, _: evaluate(self.model, self.eval_venv, self.tests[name], EVALUATION_SEED)
        }

    def scores(self, results: Mapping[str, Episodes]) -> Mapping[str, float]:
        """Mean return, and percentage of mastered tasks where success is defined."""
        scores = {}
        for name, episodes in results.items():
            scores[f"evaluation/{name}/return"] = float(episodes.returns.mean())
            if not np.isnan(episodes.successes).all():
                scores[f"evaluation/{name}/mastered_pct"] = 100 * float(np.nanmean(episodes.successes))
        return scores

    def evaluated(self, results: Results, report: Report) -> None:
        """Log shares of the time, the task space, and clips."""
        total = max(report.record.seconds, 1e-9)
        seconds = {**self.costs.seconds, "evaluation": report.record.evaluation_seconds}
        shares = {f"time/{name}_share": value / total for name, value in seconds.items()}
        report.scalars({**shares, "time/steps_per_second": self.step / total}, self.step)
        episodes = results["student"][self.card.picture_test_set]
        quietly("pictures", lambda: self._log_pictures(episodes, report), self._failed)

    def _log_pictures(self, episodes: Episodes, report: Report) -> None:
        mastery = np.where(np.isnan(episodes.successes), episodes.returns, episodes.successes)
        tasks, returns = report.record.recent(PROPOSALS_SHOWN)
        shown = self.task_teacher.picture() if hasattr(self.task_teacher, "picture") else {}
        picture = draw_task_space(self.task_space, tasks, returns, shown, episodes.tasks, mastery)
        if picture is not None:
            report.log.image("task_space", picture, self.step)
        before, self._clip_step = self._clip_step, self.spent
        if self.config.clips and self.card.renders and any(before < at <= self.spent for at in CLIPS_AT):
            for label, index in clip_tasks(episodes.tasks, mastery).items():
                env = self.card.make("rgb_array")
                frames = record_clip(env, self._policy(), episodes.tasks[index], EVALUATION_SEED + index)
                report.log.clip(f"student/{label}", frames, self.step)

    def _policy(self) -> Callable[[Any], Any]:
        """The deterministic student for one unvectorised environment."""
        normalizer = self.model.get_vec_normalize_env()
        memory: list[Any] = [None, np.ones(1, dtype=bool)]

        def act(observation: Any) -> Any:
            inputs = observation if normalizer is None else normalizer.normalize_obs(observation)
            action, memory[0] = self.model.predict(inputs, memory[0], memory[1], deterministic=True)
            memory[1] = np.zeros(1, dtype=bool)
            return action

        return act

    # --- saving ----------------------------------------------------------------------------------------

    def finish(self, report: Report) -> Mapping[str, Any]:
        """Save the student."""
        save_student(report.folder / "student", self.model, replay_buffer=False)
        return {}

    def save(self, folder: Path, run: StateDict) -> None:
        """Write a new folder ``step-<n>``; the one before is deleted last."""
        scoring = None if self.scoring is None else self.scoring.state_dict()
        save_stage(
            folder, self.model, self.taught, {"clip_step": self._clip_step, "scoring": scoring, "run": run}
        )

    def load(self, folder: Path) -> StateDict | None:
        """Load the last checkpoint, if there is one."""
        beside = load_stage(folder, self.model, self.taught)
        if beside is None:
            return None
        self._clip_step = beside["clip_step"]
        if self.scoring is not None:
            self.scoring.load_state_dict(beside["scoring"])
        run: StateDict = beside["run"]
        return run

    def close(self) -> None:
        """Free the environments."""
        self.taught.close()
        self.eval_venv.close()

    def _seed(self, purpose: str, index: int = 0) -> int:
        """A seed for one purpose, from the cell's; environment *i* adds *i*, so leave room below 2^31."""
        words = [self.config.seed, *purpose.encode(), index]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) >> 2


class _Watch(BaseCallback):
    """Reports progress while SB3 trains, and logs the metrics of the task teacher."""

    def __init__(self, training: TaughtStudent, report: Report) -> None:
        super().__init__()
        self.training, self.report = training, report
        self._every = max(1, training.config.evaluate_every // 10)
        self._logged = training.step // self._every

    def _on_step(self) -> bool:
        self.report.progress(False)
        if self.num_timesteps // self._every > self._logged:
            self._logged = self.num_timesteps // self._every
            metrics = self.training.task_teacher.metrics()
            self.report.scalars({f"task_teacher/{k}": v for k, v in metrics.items()}, self.num_timesteps)
            if isinstance(venv := self.training.taught.venv, SB3VecTask):  # reward terms, one by one
                terms = {f"environment/{k}": v for k, v in venv.take_metrics().items()}
                self.report.scalars(terms, self.num_timesteps)
        return True
