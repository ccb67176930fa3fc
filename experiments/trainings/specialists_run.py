"""One seed of `tutelage specialists`, stage by stage; what a stage has saved is not made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.worlds.catalogue import make_vec_task, vec_task_recipe
from tutelage.envs.contract.tasks import BoxTasks, Tasks
from tutelage.experiments.runs.locking import check_same_config, locked
from tutelage.experiments.runs.records import write_json
from tutelage.experiments.specialists import SpecialistsConfig, read_json
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.students.distillation.machinery.evaluation import Evaluation, evaluate_student
from tutelage.students.distillation.state_distillation import StateDaggerConfig, distil_state
from tutelage.students.experts.expert_training import load_expert, train_expert
from tutelage.students.sb3.presets import student_preset
from tutelage.teachers import needs_knowledge
from tutelage.teachers.continuous.geo_curriculum import task_features
from tutelage.teachers.continuous.uniform import Random
from tutelage.teachers.experts.expert_router import ExpertRouter
from tutelage.teachers.experts.mlp_expert import MLPExpert, check_expert

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.sb3.config import StudentConfig
    from tutelage.students.vision.vision_student import VisionStudent
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
NOT_IN_CONFIG = ("seeds", "first_seed", "out", "episodes", "vision_frames")


@dataclass(frozen=True)
class TaskClusters:
    """Clusters of tasks by their features (GeoClustering, Wan et al. 2023, algorithm 1): the nearest centre.

    Attributes:
        mean, scale: of the features, ``(k,)``; they are standardised.
        centres: of the clusters, standardised, ``(clusters, k)``.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    centres: NDArray[np.float64]

    @staticmethod
    def fit(space: BoxTasks, clusters: int, sampled: int, seed: int) -> TaskClusters:
        """Draw tasks and cluster their features by k-means."""
        from sklearn.cluster import KMeans

        features = task_features(space, space.sample(np.random.default_rng([seed, 11]), sampled))
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1.0)
        found = KMeans(clusters, n_init=4, random_state=seed).fit((features - mean) / scale)
        return TaskClusters(mean, scale, found.cluster_centers_)

    def of(self, space: BoxTasks, tasks: Tasks) -> NDArray[np.int64]:
        """The cluster of each task, ``(n,)``; of held-out tasks too, by what is nearest."""
        features = (task_features(space, tasks) - self.mean) / self.scale
        distances = ((features[:, None] - self.centres) ** 2).sum(axis=2)
        nearest: NDArray[np.int64] = distances.argmin(axis=1)
        return nearest

    def rule(self, space: BoxTasks) -> Callable[[Tensor], Tensor]:
        """The same as a rule for an `ExpertRouter`."""
        return lambda tasks: torch.from_numpy(self.of(space, tasks.cpu().numpy())).to(tasks.device)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}


class OneCluster(Random):
    """Proposes uniform tasks of one cluster; `Random`, with what belongs elsewhere left out."""

    def __init__(
        self, space: BoxTasks, rng: np.random.Generator, clusters: TaskClusters, cluster: int
    ) -> None:
        super().__init__(space, rng)
        self.box, self.clusters, self.cluster = space, clusters, cluster
        self._waiting = space.sample(rng, 0)

    def propose(self, n: int) -> Tasks:
        """Return `n` tasks of the cluster, shape ``(n, d)``."""
        while len(self._waiting) < n:
            drawn = self.box.sample(self.rng, 256 * len(self.clusters.centres))
            own = drawn[self.clusters.of(self.box, drawn) == self.cluster]
            self._waiting = np.concatenate([self._waiting, own])
        proposed, self._waiting = self._waiting[:n], self._waiting[n:]
        return proposed


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


def run_seed(config: SpecialistsConfig, seed: int, folder: Path) -> dict[str, Any]:
    """Run the stages of a seed that are not finished; return its results.

    Raises:
        FolderError: when the folder is in use, or was made with another configuration.
    """
    with locked(folder):
        values = {name: value for name, value in asdict(config).items() if name not in NOT_IN_CONFIG}
        values["generalist"] = None if config.generalist is None else str(config.generalist)
        check_same_config(folder / "config.json", {**values, "seed": seed})
        return SeedRun(config, seed, folder).run()


class SeedRun:
    """One seed.

    Every evaluation is also a point in TensorBoard, against the environment steps after the generalist:
    ``success_on_training_tasks/specialists``, ``worst_cluster_of_held_out_tasks/distilled``, and so on.

    Args:
        config: with the preset's numbers filled in.
        seed: of everything but the evaluations.
        folder: of this seed.
    """

    def __init__(self, config: SpecialistsConfig, seed: int, folder: Path) -> None:
        self.config, self.seed, self.folder = config, seed, folder
        probe = make_task(config, 1, 0)
        self.space = probe.task_space
        probe.close()
        self.preset = student_preset(config.task, "ppo")
        self.count, self.iterations = config.clusters or 0, config.iterations or 0  # `filled` has set them
        self.specialist_steps, self.distil_frames = config.specialist_steps or 0, config.distil_frames or 0

    def run(self) -> dict[str, Any]:
        """All stages; what is finished is read from the folder, and logged again in place of what was."""
        with RunLog(self.folder) as self.log:
            told = {name: value for name, value in asdict(self.config).items() if name not in NOT_IN_CONFIG}
            self.log.hparams({**told, "seed": self.seed})
            names = ("success_on_training_tasks", "success_on_held_out_tasks")
            self.log.layout({"specialists": {name.replace("_", " "): [f"{name}/.*"] for name in names}})
            return self._stages()

    def _stages(self) -> dict[str, Any]:
        """What `run` does, with the log open."""
        first = generalist = self.expert("generalist", self.train_generalist)
        self.clusters = self.find_clusters()
        arms = {"generalist": self.evaluate("generalist", partial(_same, first), 0)}
        steps = 0
        for iteration in range(self.iterations):
            own = [self.specialist(generalist, iteration, cluster) for cluster in range(self.count)]
            steps += self.count * self.specialist_steps
            routed = self.evaluate(f"specialists-{iteration}", partial(self.router, own), steps)
            make = partial(self.distil, generalist, own, iteration)
            generalist = self.expert(f"distilled-{iteration}", make)
            steps += self.distil_frames
            distilled = self.evaluate(f"distilled-{iteration}", partial(_same, generalist), steps)
            later = "" if iteration == self.iterations - 1 else f"-{iteration}"
            arms |= {f"specialists{later}": routed, f"distilled{later}": distilled}
        continued = self.expert("continued", partial(self.train_on, first, "random", steps, 2_000))
        arms["continued"] = self.evaluate("continued", partial(_same, continued), steps)
        if self.config.vision_frames:
            arms["vision"] = self.vision(own, steps)
        results = {"task": self.config.task, "seed": self.seed, "arms": arms}
        write_json(self.folder / "results.json", results)
        return results

    # --- stages ----------------------------------------------------------------------------------------

    def expert(self, name: str, make: Callable[[], MLPExpert]) -> MLPExpert:
        """The expert that a stage has saved, or makes and saves now."""
        folder = self.folder / name
        if (folder / "expert.json").exists():
            return MLPExpert.load(folder, self.config.device)
        began = time.perf_counter()
        made = make()
        made.save(folder)
        self._say(f"{name}: made in {time.perf_counter() - began:.0f} s")
        return made.to(self.config.device)

    def train_generalist(self) -> MLPExpert:
        """The expert that was given, or a new one."""
        config = self.config
        if config.generalist is not None:
            return load_expert(config.generalist)
        return train_expert(
            config.task,
            seed=self._stage_seed(0),
            steps=config.generalist_steps,
            task_teacher=config.task_teacher,
            device=config.device,
        )

    def find_clusters(self) -> TaskClusters:
        """Clusters of the training tasks."""
        path = self.folder / "clusters.json"
        if not (found := read_json(path)):
            fitted = TaskClusters.fit(self.space, self.count, self.config.sampled_tasks, self.seed)
            found = fitted.to_json()
            write_json(path, found)
        return TaskClusters(**{name: np.array(value) for name, value in found.items()})

    def specialist(self, generalist: MLPExpert, iteration: int, cluster: int) -> MLPExpert:
        """The generalist, trained further on the tasks of one cluster."""
        number = 100 + 100 * iteration + cluster

        def make() -> MLPExpert:
            rng = np.random.default_rng([self.seed, number])
            tasks = OneCluster(self.space, rng, self.clusters, cluster)
            return self.train_on(generalist, tasks, self.specialist_steps, number)

        return self.expert(f"specialist-{iteration}-{cluster}", make)

    def train_on(self, start: MLPExpert, task_teacher: str | Random, steps: int, number: int) -> MLPExpert:
        """PPO from an expert on, with the learning rate for that."""
        preset = self.preset
        student: StudentConfig = replace(
            preset, kwargs={**preset.kwargs, "learning_rate": self.config.learning_rate}
        )
        return train_expert(
            self.config.task,
            seed=self._stage_seed(number),
            steps=steps,
            config=student,
            task_teacher=task_teacher,
            start_from=start,
            device=self.config.device,
        )

    def distil(self, generalist: MLPExpert, own: list[MLPExpert], iteration: int) -> MLPExpert:
        """All specialists into the generalist that they came of."""
        task = make_task(self.config, ENVIRONMENTS, self._stage_seed(3_000 + iteration))
        settings = StateDaggerConfig(frames=self.distil_frames)
        try:
            return distil_state(
                task, self.router(own, task), generalist, settings, self._stage_seed(4_000 + iteration)
            )
        finally:
            task.close()

    def router(self, own: Sequence[MLPExpert], task: VecTask) -> ExpertRouter:
        """The specialists as one expert, each for the tasks of its cluster."""
        return ExpertRouter(own, self.clusters.rule(task.task_space), lambda: task.tasks)

    def vision(self, own: list[MLPExpert], steps: int) -> dict[str, Any]:
        """A student that sees cameras, distilled of the specialists; measured in looks it never met."""
        from tutelage.students.distillation import Budget, DaggerConfig, dagger
        from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

        path, frames = self.folder / "vision" / "evaluation.json", self.config.vision_frames
        found = read_json(path)
        wanted = {"frames": frames, "episodes": self.config.episodes}
        if wanted.items() <= found.items():
            self._log("vision", found)
            return found
        if found.get("frames") == frames:
            student = VisionStudent.load(path.parent, self.config.device)
        else:
            task = make_task(self.config, SEEN_AT_ONCE, self._stage_seed(5_000), looks="strong")
            seed = self._stage_seed(5_001)
            images = tuple(f"{camera}/rgb" for camera in VISION_CAMERAS)
            encoder, view = vec_task_recipe(self.config.task).encoder, type(task).default_states_view
            vision = VisionConfig(images, encoder=encoder, opponents=True, predicts=view)
            student = VisionStudent.of_task(vision, task, seed)
            dagger.distil(task, self.router(own, task), student, DaggerConfig(Budget(frames=frames)), seed)
            task.close()
            student.save(path.parent)
        found = self._measure(partial(_same, student), steps + frames, looks="held_out") | {"frames": frames}
        write_json(path, found)
        self._log("vision", found)
        return found

    # --- evaluation ------------------------------------------------------------------------------------

    def evaluate(self, name: str, policy: Callable[[VecTask], Policy], steps: int) -> dict[str, Any]:
        """Success on training and held-out tasks; the same episodes for all."""
        path = self.folder / "evaluations" / f"{name}.json"
        if (found := read_json(path)).get("episodes") != self.config.episodes:
            found = self._measure(policy, steps)
            write_json(path, found)
            told = [f"{kind} {100 * found[kind]['success']:.1f} %" for kind in KINDS if found[kind]]
            self._say(f"{name}: {', '.join(told)}")
        for stage in LINES if name == "generalist" else [name.split("-")[0]]:
            self._log(stage, found)
        return found

    def _measure(
        self, policy: Callable[[VecTask], Policy], steps: int, looks: str | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"episodes": self.config.episodes, "steps": steps}
        for kind in KINDS:
            found[kind] = {}
            if kind == "training" or vec_task_recipe(self.config.task).held_out:
                at_once = min(ENVIRONMENTS, self.config.episodes)
                task = make_task(self.config, at_once, 0, held_out=kind == "held_out", looks=looks)
                evaluation = evaluate_student(task, policy(task), self.config.episodes, EVALUATION_SEED)
                found[kind] = self._summary(task.task_space, evaluation)
                task.close()
        return found

    def _summary(self, space: BoxTasks, evaluation: Evaluation) -> dict[str, Any]:
        """Mean success, that of each cluster with enough episodes (else None), and the worst of these."""
        clusters = self.clusters.of(space, evaluation.tasks)
        each = []
        for cluster in range(len(self.clusters.centres)):
            own = evaluation.successes[clusters == cluster]
            each.append(float(own.mean()) if len(own) >= FEWEST else None)
        worst = min((value for value in each if value is not None), default=None)
        return {"success": evaluation.success, "worst_cluster": worst, "clusters": each}

    def _log(self, stage: str, found: dict[str, Any]) -> None:
        """An evaluation for TensorBoard."""
        for kind in KINDS:
            for key, tag in (("success", "success_on"), ("worst_cluster", "worst_cluster_of")):
                if (value := found[kind].get(key)) is not None:
                    self.log.scalars({f"{tag}_{kind}_tasks/{stage}": value}, found["steps"])
        self.log.flush()

    def _stage_seed(self, number: int) -> int:
        """A seed of a stage's own."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]) >> 2

    def _say(self, text: str) -> None:
        print(f"seed {self.seed}: {text}", flush=True)


def _same(policy: Policy, task: VecTask) -> Policy:
    """One policy for all tasks."""
    return policy
