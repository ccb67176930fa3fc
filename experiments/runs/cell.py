"""Training one cell of a comparison: one student, one task teacher, one seed, in a folder of its own.

The run goes in stages: train up to the next evaluation, evaluate, write a checkpoint. A killed run continues
from the last stage, with identical numbers. Environments whose state cannot be saved therefore begin new
episodes with every stage; those that can be saved carry theirs on.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import load_state, save_state
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.envs.contract.taught import TaughtVecEnv
from tutelage.experiments.runs.config import CellConfig, hyperparameters
from tutelage.experiments.runs.locking import check_same_config, locked
from tutelage.experiments.runs.records import RunRecord, read_status, write_json
from tutelage.experiments.tensorboard.clips import clip_tasks, record_clip
from tutelage.experiments.tensorboard.grid_log import RunLog, SB3Output
from tutelage.experiments.tensorboard.pictures import task_space_picture
from tutelage.experiments.worlds.catalogue import build_task_teacher, make_eval_venv, make_venv, task_env_card
from tutelage.students.sb3.checkpoint import load_student, save_student, untouched_generators
from tutelage.students.sb3.evaluation import evaluate
from tutelage.students.sb3.student import make_student, train_until

EVALUATION_SEED = 10_000  # the same in all cells: their evaluations meet the same random numbers
PROPOSALS_SHOWN = 400  # a task-space picture shows this many recent episodes
CLIPS_AT = (0.25, 0.5, 1.0)  # fractions of the training after which clips are recorded


def run_cell(config: CellConfig, folder: Path) -> None:
    """Train a cell to its end, from its last checkpoint if it has one.

    Raises:
        FolderError: when the folder belongs to another configuration or is in use.
        StateError: when the checkpoint is damaged.
    """
    torch.set_num_threads(1)
    with locked(folder):
        # Clips decide no number.
        check_same_config(folder / "config.json", config.to_json(), ignore=("clips",))
        if read_status(folder).get("state") != "finished":
            CellRun(config, folder).train()


def load_trained(folder: str | Path) -> BaseAlgorithm:
    """Load the student of a finished cell, to act or to evaluate: an SB3 model with its normaliser.

    Args:
        folder: the cell's, e.g. ``runs/quick/ppo/alp-gmm/seed-0``.

    Raises:
        FileNotFoundError: when the cell has not finished.
        StateError: when its files are damaged.
    """
    folder = Path(folder)
    config = CellConfig.from_json(json.loads((folder / "config.json").read_text()))
    model = CellRun(config, folder).model
    load_student(folder / "student", model, replay_buffer=False)
    return model


class CellRun:
    """Student, task teacher, environments and record of one cell, put together and trained."""

    def __init__(self, config: CellConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.card = task_env_card(config.env)
        student = config.student_config
        venv = make_venv(self.card, student.n_envs, student.workers)
        self.eval_venv = make_eval_venv(self.card)
        self.test_sets = self.card.test_sets()
        self.task_teacher = build_task_teacher(
            config.task_teacher,
            self.card,
            self.eval_venv.task_space,
            np.random.default_rng([config.seed, 1]),
            config.task_teacher_config,
        )
        self.taught = TaughtVecEnv(venv, self.task_teacher, on_episodes=self._on_episodes)
        self.model = make_student(student, self.taught, seed=self._seed("student"), total_steps=config.steps)
        self.record = RunRecord(folder, self.taught.task_space, config.steps)
        self.seconds = {"environment": 0.0, "student": 0.0, "task_teacher": 0.0, "evaluation": 0.0}
        self._picture_failed = False
        self._clip_step = 0.0  # fraction of the training done when clips were last thought of

    @property
    def step(self) -> int:
        """Environment steps trained so far."""
        return self.model.num_timesteps

    def train(self) -> None:
        """Resume, then train and evaluate in turn until the end."""
        resumed = self._resume()
        self.log = RunLog(self.folder, purge_step=self.step + 1 if resumed else None)
        if not resumed:
            self.log.hparams(hyperparameters(self.config))
        self.model.set_logger(Logger(folder=None, output_formats=[SB3Output(self.log)]))
        if not resumed:
            self._evaluate()
            self._checkpoint()
        while self.step < self.config.steps:
            self._train_stage()
            self._evaluate()
            self._checkpoint()
        save_student(self.folder / "student", self.model, replay_buffer=False)
        self.log.close()
        self.record.status("finished", self.step)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def _train_stage(self) -> None:
        stage = self.step // self.config.evaluate_every
        new_episodes = stage == 0 or not self.taught.saves_episodes
        if new_episodes:
            self.taught.seed(self._seed("environments", stage))
        environment, teaching = self.taught.environment_seconds, self.taught.task_teacher_seconds
        began = time.perf_counter()
        until = min((stage + 1) * self.config.evaluate_every, self.config.steps)
        train_until(self.model, until, _Watch(self), new_episodes)
        spent = {
            "environment": self.taught.environment_seconds - environment,
            "task_teacher": self.taught.task_teacher_seconds - teaching,
        }
        spent["student"] = time.perf_counter() - began - sum(spent.values())
        for name, value in spent.items():
            self.seconds[name] += value

    def _evaluate(self) -> None:
        """Evaluate on every test set; log scores, pictures and clips."""
        began = time.perf_counter()
        with untouched_generators():
            results = {
                name: evaluate(self.model, self.eval_venv, tasks, EVALUATION_SEED)
                for name, tasks in self.test_sets.items()
            }
            for name, episodes in results.items():
                self.record.add_evaluation(self.step, name, episodes)
                scores = {f"evaluation/{name}/return": float(episodes.returns.mean())}
                if not np.isnan(episodes.successes).all():
                    scores[f"evaluation/{name}/mastered_pct"] = 100 * float(np.nanmean(episodes.successes))
                self.log.scalars(scores, self.step)
            primary = results[self.card.primary_test_set]
            self.record.scores.append((self.step, _score(primary)))
            self.log.scalars(self._shares(), self.step)
            try:
                self._log_pictures(results)
            except Exception:  # whatever a user's render() or picture() does, training goes on
                if not self._picture_failed:
                    traceback.print_exc()
                    print("pictures could not be drawn; training goes on without", flush=True)
                self._picture_failed = True
        self.seconds["evaluation"] += time.perf_counter() - began

    def _log_pictures(self, results: dict[str, Episodes]) -> None:
        name = self.card.picture_test_set
        episodes = results[name]
        mastery = np.where(np.isnan(episodes.successes), episodes.returns, episodes.successes)
        space = self.taught.task_space
        if isinstance(space, BoxTasks):
            tasks, returns = self.record.recent(PROPOSALS_SHOWN)
            shown = self.task_teacher.picture() if hasattr(self.task_teacher, "picture") else {}
            picture = task_space_picture(space, tasks, returns, shown, episodes.tasks, mastery)
            self.log.image("task_space", picture, self.step)
        before, now = self._clip_step, self.step / self.config.steps
        self._clip_step = now
        if self.config.clips and self.card.renders and any(before < at <= now for at in CLIPS_AT):
            for label, index in clip_tasks(episodes.tasks, mastery).items():
                env = self.card.make("rgb_array")
                frames = record_clip(env, self._policy(), episodes.tasks[index], EVALUATION_SEED + index)
                self.log.clip(f"student/{label}", frames, self.step)

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

    def _shares(self) -> dict[str, float]:
        """What the seconds went to, for TensorBoard."""
        total = max(self.record.seconds, 1e-9)
        shares = {f"time/{name}_share": value / total for name, value in self.seconds.items()}
        return {**shares, "time/steps_per_second": self.step / total}

    def _checkpoint(self) -> None:
        """Write the record and then the checkpoint; the one before is deleted last."""
        self.record.write()
        seconds = {**self.seconds, "total": self.record.seconds}
        seconds["other"] = seconds["total"] - sum(self.seconds.values())
        episodes = len(self.record.episodes.columns()["return"])
        write_json(
            self.folder / "timings.json", {"seconds": seconds, "steps": self.step, "episodes": episodes}
        )
        parent = self.folder / "checkpoints"
        draft = parent / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_student(draft, self.model)
        state = {
            "task_teacher": self.task_teacher.state_dict(),
            "scores": self.record.scores,
            "seconds": seconds,
            "clip_step": self._clip_step,
            "episodes": self.taught.state_dict() if self.taught.saves_episodes and self.step else None,
        }
        save_state(draft / "run.npz", state)
        older = _checkpoints(parent)
        self.log.flush()  # what the checkpoint has behind it is never logged again
        draft.rename(parent / f"step-{self.step}")
        for folder in older:
            shutil.rmtree(folder)
        self.record.status("running", self.step)

    def _resume(self) -> bool:
        """Load the last checkpoint; tell whether there was one."""
        found = _checkpoints(self.folder / "checkpoints")
        if not found:
            return False
        load_student(found[-1], self.model)
        state = load_state(found[-1] / "run.npz")
        self.task_teacher.load_state_dict(state["task_teacher"])
        if state["episodes"] is not None:
            self.taught.load_state_dict(state["episodes"])
        self.seconds = {name: state["seconds"][name] for name in self.seconds}
        self._clip_step = state["clip_step"]
        self.record.resume(self.step, state["seconds"]["total"], state["scores"])
        return True

    def _seed(self, purpose: str, index: int = 0) -> int:
        """A seed for one purpose, from the cell's; environment *i* adds *i*, so leave room below 2^31."""
        words = [self.config.seed, *purpose.encode(), index]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) >> 2

    def _on_episodes(self, episodes: Episodes) -> None:
        self.record.add_episodes(self.step + self.taught.num_envs, episodes)


class _Watch(BaseCallback):
    """Reports progress while SB3 trains, and logs what the task teacher has to say."""

    def __init__(self, run: CellRun) -> None:
        super().__init__()
        self.run = run
        self._every = max(1, run.config.evaluate_every // 10)
        self._logged = run.step // self._every

    def _on_step(self) -> bool:
        self.run.record.status("running", self.num_timesteps, at_most_every=0.5)
        if self.num_timesteps // self._every > self._logged:
            self._logged = self.num_timesteps // self._every
            metrics = self.run.task_teacher.metrics()
            self.run.log.scalars({f"task_teacher/{k}": v for k, v in metrics.items()}, self.num_timesteps)
            if isinstance(venv := self.run.taught.venv, SB3VecTask):  # reward terms, one by one
                terms = {f"environment/{k}": v for k, v in venv.take_metrics().items()}
                self.run.log.scalars(terms, self.num_timesteps)
        return True


def _score(episodes: Episodes) -> float:
    """Percentage of mastered tasks, or the mean return where success is not defined."""
    defined = ~np.isnan(episodes.successes)
    return (
        100 * float(episodes.successes[defined].mean()) if defined.any() else float(episodes.returns.mean())
    )


def _checkpoints(parent: Path) -> list[Path]:
    """Complete checkpoints, the newest last."""
    return sorted(parent.glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))
