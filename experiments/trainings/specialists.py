"""Generalist, specialists, and the generalist distilled of them: one seed of `tutelage specialists`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.batched.worlds.catalogue import make_vec_task, vec_task_recipe
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, load_state, save_state, write_json
from tutelage.experiments.runs.cell import CHECKPOINTS, run_cell
from tutelage.experiments.runs.records import read_json
from tutelage.experiments.runs.report import Report
from tutelage.experiments.runs.training import Costs, PlayTestSet, Progress, Results
from tutelage.experiments.specialists import SpecialistsConfig
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.trainings.task_clusters import OneCluster, TaskClusters
from tutelage.students.distillation import Budget, DaggerConfig, dagger
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.state_distillation import StateDaggerConfig, distil_state
from tutelage.students.experts.expert_training import ExpertTraining, load_expert
from tutelage.students.sb3.presets import student_preset
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent
from tutelage.teachers import needs_knowledge
from tutelage.teachers.continuous.uniform import Random
from tutelage.teachers.experts.expert_router import ExpertRouter
from tutelage.teachers.experts.mlp_expert import MLPExpert, check_expert

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.teachers.experts.mlp_expert import Expert

    Policy = Expert | VisionStudent

KINDS = ("training", "held_out")
LINES = ("generalist", "specialists", "distilled", "continued")
"""Stages that TensorBoard has a line of; all begin with the generalist."""

VISION_CAMERAS = ("front", "wrist")
EVALUATION_SEED = 3_000_000  # the same episodes for every arm and seed
FEWEST = 30  # episodes of a cluster whose success is told
ENVIRONMENTS = 256  # of distillation and evaluation
SEEN_AT_ONCE = 128  # environments with cameras
SAVE_EVERY = 60.0  # seconds between checkpoints of an expert that is under way
STAGES = 20  # that its training is cut into
UNDECISIVE_FIELDS = ("workers", "seeds", "first_seed", "out", "episodes", "vision_frames")


def check_names(config: SpecialistsConfig) -> None:
    """Make sure that task, task teacher and generalist exist, and fit each other.

    Raises:
        ValueError: when they do not.
    """
    if ":" in config.task_teacher or needs_knowledge(config.task_teacher):
        raise ValueError(
            f"task_teacher {config.task_teacher!r} does not go: take one of tutelage.teachers.TASK_TEACHERS "
            "that needs no knowledge of the task"
        )
    task = make_task(config, 1, 0, looks="none" if config.vision_frames else None)
    if config.generalist is not None:
        check_expert(load_expert(config.generalist), task)
    task.close()


def make_task(
    config: SpecialistsConfig, num_envs: int, seed: int, held_out: bool = False, looks: str | None = None
) -> VecTask:
    """Environments of the training tasks, or of those that training never shows; in looks: with cameras."""
    options = dict(vec_task_recipe(config.task).held_out) if held_out else {}
    if looks is not None:
        from tutelage.envs.batched.cameras.camera_config import CameraConfig
        from tutelage.envs.batched.looks.visual_randomization import VisualRandomization

        options["cameras"] = [CameraConfig(name, 64, 64) for name in VISION_CAMERAS]
        options["visuals"] = getattr(VisualRandomization, looks)()
    return make_vec_task(config.task, num_envs, seed=seed, device=config.device, threads=1, **options)


def specialists_description(config: SpecialistsConfig, seed: int) -> dict[str, Any]:
    """What decides a seed's results, for its ``config.json``."""
    values = {name: value for name, value in asdict(config).items() if name not in UNDECISIVE_FIELDS}
    values["generalist"] = None if config.generalist is None else str(config.generalist)
    return {**values, "seed": seed}


def train_specialists(values: Mapping[str, Any], folder: Path) -> None:
    """Make all arms of a seed that are not there, and measure them; a job of the grid.

    Args:
        values: ``config``, of `SpecialistsConfig.to_json`, and ``seed``.
        folder: of this seed.

    Raises:
        FolderError: when the folder is in use, or was made with another configuration.
    """
    config, seed = SpecialistsConfig.from_json(values["config"]), int(values["seed"])

    def build() -> Specialists:
        return Specialists(config, seed, folder)

    run_cell(build, specialists_description(config, seed), folder, complete=lambda: build().complete())


class Specialists:
    """One seed of generalist-specialist learning; a `tutelage.experiments.runs.training.Training`.

    It goes from arm to arm: the generalist; in every iteration the specialists as one policy, and the
    generalist that is distilled of them; PPO that went on instead; perhaps a student that sees. The experts
    of an arm are saved in folders of their own; those that were under way go on from their last checkpoint.

    Every evaluation is a point in TensorBoard, against the environment steps after the generalist:
    ``success_on_training_tasks/specialists``, ``worst_cluster_of_held_out_tasks/distilled``, and so on.

    Args:
        config: with the preset's numbers filled in.
        seed: of everything but the evaluations.
        folder: of this seed.
    """

    evaluates_untrained = False

    def __init__(self, config: SpecialistsConfig, seed: int, folder: Path) -> None:
        self.config, self.seed, self.folder = config, seed, folder
        probe = make_task(config, 1, 0)
        self.space = probe.task_space
        probe.close()
        preset = student_preset(config.task, "ppo")
        self.student = replace(preset, kwargs={**preset.kwargs, "learning_rate": config.learning_rate})
        self.count, iterations = config.clusters or 0, config.iterations or 0  # `filled` has set them
        self.arms = ["generalist"]
        for i in range(iterations):
            self.arms += [f"specialists-{i}", f"distilled-{i}"]
        self.arms += ["continued"] + ["vision"] * bool(config.vision_frames)
        self.evaluations: Sequence[float] = [(k + 1) / len(self.arms) for k in range(len(self.arms))]
        self.costs = Costs()
        self.made = 0  # arms that are there
        self.found: dict[str, dict[str, Any]] = {}  # evaluations by arm
        self._spaces = {"training": self.space}  # held-out objects have a space of their own

    # --- what a training is ----------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Environment steps after the generalist, up to the last arm."""
        return self.steps_of(self.arms[self.made - 1]) if self.made else 0

    @property
    def spent(self) -> float:
        """The share of the arms that are there."""
        return self.made / len(self.arms)

    @property
    def progress(self) -> Progress:
        """Arms that are there, of all."""
        return Progress(self.made, len(self.arms), "arms")

    def hyperparameters(self) -> Mapping[str, bool | int | float | str]:
        """What distinguishes this seed."""
        described = specialists_description(self.config, self.seed)
        return {name: value for name, value in described.items() if value is not None}

    def advance(self, until: float, report: Report) -> None:
        """Make the arms that come next."""
        while self.spent < until:
            self.make(self.arms[self.made], lambda: report.progress(False))
            self.made += 1
            self.costs.student = self.step
            self._say(f"{self.arms[self.made - 1]} is there")

    def test_sets(self, at_end: bool) -> Sequence[str]:
        """Tasks of the training, and those that it never shows, where there are any."""
        return KINDS if vec_task_recipe(self.config.task).held_out else KINDS[:1]

    def policies(self) -> Mapping[str, PlayTestSet]:
        """The newest arm."""
        arm = self.arms[self.made - 1]
        return {arm: lambda kind, at_end: self.play(arm, kind)}

    def scores(self, results: Mapping[str, Episodes]) -> Mapping[str, float]:
        """Success, and that of the worst cluster; the generalist begins the lines of all."""
        arm = self.arms[self.made - 1]
        return self._noted(arm, results)

    def evaluated(self, results: Results, report: Report) -> None:
        """There is nothing to add."""

    def finish(self, report: Report) -> Mapping[str, Any]:
        """All arms with their evaluations."""
        return {"task": self.config.task, "seed": self.seed, "arms": self._by_name()}

    def save(self, folder: Path, run: StateDict) -> None:
        """Note how many arms there are; they save themselves."""
        save_state(folder / "arms.npz", {"made": self.made, "run": run})

    def load(self, folder: Path) -> StateDict | None:
        """Go on with the arm after the last one that was measured."""
        if not (folder / "arms.npz").exists():
            return None
        state = load_state(folder / "arms.npz")
        self.made = state["made"]
        for arm in self.arms[: self.made]:
            self.found[arm] = read_json(self._evaluation_of(arm))
        run: StateDict = state["run"]
        return run

    def close(self) -> None:
        """Nothing is open."""

    def complete(self) -> None:
        """Of a seed that had finished: make arms that are missing or new, measure what is asked for anew."""
        with RunLog(self.folder) as log:
            log.hparams(self.hyperparameters())
            for arm in self.arms:
                self.make(arm, lambda: None)
                self.found[arm] = read_json(self._evaluation_of(arm))
                if self.found[arm].get("episodes") != self.config.episodes:
                    self._noted(arm, {kind: self.play(arm, kind) for kind in self.test_sets(True)})
                log.scalars(self._lines(arm), self.steps_of(arm))
        write_json(
            self.folder / "results.json",
            {"task": self.config.task, "seed": self.seed, "arms": self._by_name()},
        )

    # --- arms ------------------------------------------------------------------------------------------

    def steps_of(self, arm: str) -> int:
        """Environment steps after the generalist that an arm has had."""
        specialists = self.count * (self.config.specialist_steps or 0)
        cycle = specialists + (self.config.distil_frames or 0)
        kind, _, number = arm.partition("-")
        whole = cycle * (self.config.iterations or 0)
        return {
            "generalist": 0,
            "specialists": cycle * int(number or 0) + specialists,
            "distilled": cycle * (int(number or 0) + 1),
            "continued": whole,
            "vision": whole + self.config.vision_frames,
        }[kind]

    def make(self, arm: str, on_progress: Callable[[], None]) -> None:
        """Make what an arm consists of, where it is not there."""
        kind, _, number = arm.partition("-")
        iteration = int(number or 0)
        if kind == "generalist":
            self._train("generalist", self._generalist, on_progress)
        elif kind == "specialists":
            for cluster in range(self.count):
                stage = partial(self._specialist, iteration, cluster)
                self._train(f"specialist-{iteration}-{cluster}", stage, on_progress)
        elif kind == "distilled":
            if not (self.folder / arm / "expert.json").exists():
                self._distil(iteration).save(self.folder / arm)
        elif kind == "continued":
            whole = partial(self._ppo, self.expert("generalist"), "random", self.steps_of(arm), 2_000)
            self._train("continued", whole, on_progress)
        else:
            self._vision()

    def policy(self, arm: str, task: VecTask) -> Policy:
        """Who acts in an arm."""
        kind, _, number = arm.partition("-")
        if kind == "specialists":
            return self.router(int(number), task)
        if kind == "vision":
            return VisionStudent.load(self.folder / "vision", self.config.device)
        return self.expert(arm)

    def expert(self, name: str) -> MLPExpert:
        """An expert that was saved."""
        return MLPExpert.load(self.folder / name, self.config.device)

    def router(self, iteration: int, task: VecTask) -> ExpertRouter:
        """The specialists of an iteration as one expert, each for the tasks of its cluster."""
        own = [self.expert(f"specialist-{iteration}-{cluster}") for cluster in range(self.count)]
        return route(own, self.clusters, task)

    @cached_property
    def clusters(self) -> TaskClusters:
        """Clusters of the training tasks."""
        path = self.folder / "clusters.json"
        if not (found := read_json(path)):
            fitted = TaskClusters.fit(self.space, self.count, self.config.sampled_tasks, self.seed)
            found = fitted.to_json()
            write_json(path, found)
        return TaskClusters(**{name: np.array(value) for name, value in found.items()})

    def _train(
        self, name: str, build: Callable[[], ExpertTraining | MLPExpert], on_progress: Callable[[], None]
    ) -> None:
        """Train an expert, from its last checkpoint if it has one, and save it; unless it is there."""
        if (self.folder / name / "expert.json").exists():
            return
        training, checkpoints = build(), self.folder / CHECKPOINTS / name
        if isinstance(training, MLPExpert):
            training.save(self.folder / name)
            return
        training.load(checkpoints)
        saved = time.monotonic()
        while not training.ended:
            training.advance(training.step + max(1, training.steps // STAGES), lambda _: on_progress())
            if time.monotonic() - saved >= SAVE_EVERY:
                training.save(checkpoints, {})
                saved = time.monotonic()
        training.finish().save(self.folder / name)

    def _generalist(self) -> ExpertTraining | MLPExpert:
        """The expert that was given, or a new one."""
        config = self.config
        if config.generalist is not None:
            return load_expert(config.generalist)
        return ExpertTraining(
            config.task,
            seed=self._stage_seed(0),
            steps=config.generalist_steps,
            task_teacher=config.task_teacher,
            device=config.device,
        )

    def _specialist(self, iteration: int, cluster: int) -> ExpertTraining:
        """The generalist, trained further on the tasks of one cluster."""
        number = 100 + 100 * iteration + cluster
        tasks = OneCluster(self.space, np.random.default_rng([self.seed, number]), self.clusters, cluster)
        return self._ppo(self._before(iteration), tasks, self.config.specialist_steps or 0, number)

    def _before(self, iteration: int) -> MLPExpert:
        """The generalist that an iteration begins with."""
        return self.expert(f"distilled-{iteration - 1}" if iteration else "generalist")

    def _ppo(self, start: MLPExpert, task_teacher: str | Random, steps: int, number: int) -> ExpertTraining:
        """PPO from an expert on, with the learning rate for that."""
        return ExpertTraining(
            self.config.task,
            seed=self._stage_seed(number),
            steps=steps,
            config=self.student,
            task_teacher=task_teacher,
            start_from=start,
            device=self.config.device,
        )

    def _distil(self, iteration: int) -> MLPExpert:
        """All specialists into the generalist that they came of."""
        task = make_task(self.config, ENVIRONMENTS, self._stage_seed(3_000 + iteration))
        settings = StateDaggerConfig(frames=self.config.distil_frames or 0)
        seed = self._stage_seed(4_000 + iteration)
        try:
            return distil_state(task, self.router(iteration, task), self._before(iteration), settings, seed)
        finally:
            task.close()

    def _vision(self) -> None:
        """A student that sees cameras, distilled of the last specialists."""
        path, frames = self.folder / "vision", self.config.vision_frames
        if read_json(path / "frames.json").get("frames") == frames:
            return
        task = make_task(self.config, SEEN_AT_ONCE, self._stage_seed(5_000), looks="strong")
        seed = self._stage_seed(5_001)
        images = tuple(f"{camera}/rgb" for camera in VISION_CAMERAS)
        encoder, view = vec_task_recipe(self.config.task).encoder, type(task).default_states_view
        vision = VisionConfig(images, encoder=encoder, opponents=True, predicts=view)
        student = VisionStudent.of_task(vision, task, seed)
        expert = self.router((self.config.iterations or 1) - 1, task)
        dagger.distil(task, expert, student, DaggerConfig(Budget(frames=frames)), seed)
        task.close()
        student.save(path)
        write_json(path / "frames.json", {"frames": frames})
        self._evaluation_of("vision").unlink(missing_ok=True)  # of a student before

    # --- evaluation ------------------------------------------------------------------------------------

    def play(self, arm: str, kind: str) -> Episodes:
        """Episodes of an arm on training or held-out tasks: the same for all arms and seeds."""
        at_once = min(ENVIRONMENTS, self.config.episodes)
        looks = "held_out" if arm == "vision" else None
        task = make_task(self.config, at_once, 0, held_out=kind == "held_out", looks=looks)
        self._spaces[kind] = task.task_space
        try:
            return evaluate_student(task, self.policy(arm, task), self.config.episodes, EVALUATION_SEED)
        finally:
            task.close()

    def _noted(self, arm: str, results: Mapping[str, Episodes]) -> dict[str, float]:
        """Write an evaluation down; return what TensorBoard shows of it."""
        found: dict[str, Any] = {"episodes": self.config.episodes, "steps": self.steps_of(arm)}
        found |= {kind: {} for kind in KINDS}
        found |= {kind: self._summary(kind, episodes) for kind, episodes in results.items()}
        self.found[arm] = found
        write_json(self._evaluation_of(arm), found)
        shown = [f"{kind} {100 * found[kind]['success']:.1f} %" for kind in KINDS if found[kind]]
        self._say(f"{arm}: {', '.join(shown)}")
        return self._lines(arm)

    def _summary(self, kind: str, episodes: Episodes) -> dict[str, Any]:
        """Mean success, that of each cluster with enough episodes (else None), and the worst of these."""
        clusters = self.clusters.of(self._spaces[kind], episodes.tasks)
        each = []
        for cluster in range(len(self.clusters.centres)):
            own = episodes.successes[clusters == cluster]
            each.append(float(own.mean()) if len(own) >= FEWEST else None)
        worst = min((value for value in each if value is not None), default=None)
        return {"success": episodes.success, "worst_cluster": worst, "clusters": each}

    def _lines(self, arm: str) -> dict[str, float]:
        """An evaluation as scalars, by tag."""
        lines = LINES if arm == "generalist" else [arm.partition("-")[0]]
        return {
            f"{tag}_{kind}_tasks/{line}": value
            for kind in KINDS
            for key, tag in (("success", "success_on"), ("worst_cluster", "worst_cluster_of"))
            if (value := self.found[arm][kind].get(key)) is not None
            for line in lines
        }

    def _by_name(self) -> dict[str, Any]:
        """Evaluations as ``results.json`` has them: those of the last iteration without its number."""
        last = f"-{(self.config.iterations or 1) - 1}"
        return {arm.removesuffix(last): found for arm, found in self.found.items()}

    def _evaluation_of(self, arm: str) -> Path:
        return self.folder / "evaluations" / f"{arm}.json"

    def _stage_seed(self, number: int) -> int:
        """A seed of a stage's own."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]) >> 2

    def _say(self, text: str) -> None:
        print(f"seed {self.seed}: {text}", flush=True)


def route(own: Sequence[Expert], clusters: TaskClusters, task: VecTask) -> ExpertRouter:
    """Several experts as one, each for the tasks of its cluster."""
    return ExpertRouter(own, clusters.rule(task.task_space), lambda: task.tasks)
