"""A privileged teacher, trained or given: the training of a seed's expert in `tutelage distill`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict
from tutelage.experiments.distill import EXPERT_FIELDS, DistillConfig, given_expert, make_task
from tutelage.experiments.runs.cell import run_cell
from tutelage.experiments.runs.report import Report
from tutelage.experiments.runs.training import Costs, PlayTestSet, Progress, Results
from tutelage.experiments.trainings.distill_presets import ON_THE_WAY, test_sets
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.experts.expert_stages import ExpertProgress
from tutelage.students.experts.expert_training import ExpertTraining
from tutelage.teachers.experts.mlp_expert import MLPExpert

EVALUATION_SEED = 3_000_000  # the same episodes for every expert, student and seed
STAGES = 20  # that a training is cut into; between two of them it can be saved
SAVE_EVERY = 60.0  # seconds


def expert_name(seed: int) -> str:
    """Its folder, relative to the grid's."""
    return f"experts/seed-{seed}"


def expert_description(config: DistillConfig, seed: int) -> dict[str, Any]:
    """What decides an expert and its results, for its ``config.json``."""
    plain = config.to_json()
    return {**{name: plain[name] for name in EXPERT_FIELDS}, "seed": seed}


def make_expert(values: Mapping[str, Any], folder: Path) -> None:
    """Make the expert of a seed and find out how good it is; a job of the grid.

    The folder then holds the expert, and in ``results.json`` its success on every test set, and what it cost:
    nothing, where it was given.

    Args:
        values: ``config``, of `DistillConfig.to_json`, and ``seed``.
        folder: of this expert.

    Raises:
        FolderError: when the folder is in use, or was made with another configuration.
    """
    config, seed = DistillConfig.from_json(values["config"]), int(values["seed"])
    run_cell(lambda: ExpertRun(config, seed), expert_description(config, seed), folder, save_every=SAVE_EVERY)


class ExpertRun:
    """The expert of one seed; a `tutelage.experiments.runs.training.Training`.

    Looks do not matter to it: test sets that differ by looks alone are one evaluation.

    Args:
        config: of the grid, with all that preset and task decide filled in.
        seed: of networks, tasks and starts.
    """

    evaluates_untrained = False
    evaluations: Sequence[float] = (1.0,)

    def __init__(self, config: DistillConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.costs = Costs()
        self.given = given_expert(config) if config.expert is not None else None
        self.expert: MLPExpert | None = None
        self.training: ExpertTraining | None = None
        if self.given is None:
            self.training = ExpertTraining(
                config.task,
                seed=seed,
                steps=config.expert_steps,
                method=config.expert_method,
                until_success=config.expert_success,
                device=config.device,
            )
        self._played: dict[bool, Episodes] = {}

    @property
    def step(self) -> int:
        """Environment steps so far."""
        return 0 if self.training is None else self.training.step

    @property
    def spent(self) -> float:
        """The share of the steps that is done; 1 where it is as good as it was to be."""
        training = self.training
        return 1.0 if training is None or training.ended else training.step / training.steps

    @property
    def progress(self) -> Progress:
        """Steps done, of all."""
        return Progress(self.step, max(1, 0 if self.training is None else self.training.steps))

    def hyperparameters(self) -> Mapping[str, bool | int | float | str]:
        """What distinguishes it from other experts."""
        described = expert_description(self.config, self.seed)
        return {
            name: value for name, value in described.items() if isinstance(value, bool | int | float | str)
        }

    def advance(self, until: float, report: Report) -> None:
        """Train stage by stage."""
        training = self.training
        if training is None:
            return

        def on_progress(progress: ExpertProgress) -> None:
            running = {"success": progress.success, "return": progress.mean_return}
            if progress.episodes:
                report.scalars({f"training/{name}": value for name, value in running.items()}, progress.steps)
            report.progress(False)

        while not training.ended:
            training.advance(training.step + max(1, training.steps // STAGES), on_progress)
            self.costs.expert, self.costs.seconds["expert"] = training.step, training.monitor.seconds
            report.progress(training.saveable)

    def test_sets(self, at_end: bool) -> Sequence[str]:
        """Those of the students."""
        return list(test_sets(self.config.task, self.config.training_looks))

    def policies(self) -> Mapping[str, PlayTestSet]:
        """The expert, deterministic."""
        expert = self._made()

        def play(name: str, at_end: bool) -> Episodes:
            config, episodes = self.config, self.config.episodes or 1
            _, held_out = test_sets(config.task, config.training_looks)[name]
            if held_out not in self._played:
                task = make_task(
                    config, min(episodes, ON_THE_WAY), "none", self.seed, held_out=held_out, pictures=False
                )
                self._played[held_out] = evaluate_student(task, expert, episodes, EVALUATION_SEED)
                task.close()
            return self._played[held_out]

        return {"expert": play}

    def scores(self, results: Mapping[str, Episodes]) -> Mapping[str, float]:
        """Success on each test set."""
        return {
            f"success_on_{name.replace(' ', '_')}": episodes.success for name, episodes in results.items()
        }

    def evaluated(self, results: Results, report: Report) -> None:
        """There is nothing to add."""

    def finish(self, report: Report) -> Mapping[str, Any]:
        """Save the expert; return its results."""
        expert = self._made()
        expert.save(report.folder)
        facts, given = expert.facts, self.given is not None
        sets = test_sets(self.config.task, self.config.training_looks)
        played = {name: self._played[held_out] for name, (_, held_out) in sets.items()}
        return {
            "task": self.config.task,
            "seed": self.seed,
            "given": given,
            "success": {name: episodes.success for name, episodes in played.items()},
            "return": {name: float(episodes.returns.mean()) for name, episodes in played.items()},
            "steps": 0 if given else int(facts["steps"]),
            "seconds": 0.0 if given else float(facts["seconds"]),
            "evaluation_seconds": report.record.evaluation_seconds,
            "facts": facts,
        }

    def save(self, folder: Path, run: StateDict) -> None:
        """Write a checkpoint, where the training can be saved on its way and has begun."""
        if self.training is not None and self.training.saveable and self.expert is None:
            self.training.save(folder, run)

    def load(self, folder: Path) -> StateDict | None:
        """Continue from the last checkpoint, if there is one."""
        return None if self.training is None else self.training.load(folder)

    def close(self) -> None:
        """Free the environments of the training."""
        if self.training is not None:
            self.training.task.close()

    def _made(self) -> MLPExpert:
        """The expert, when its training has ended."""
        if self.expert is None:
            made = self.given if self.training is None else self.training.finish()
            assert made is not None
            self.expert = made.to(self.config.device)
        return self.expert
