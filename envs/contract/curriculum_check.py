"""The check of a curriculum at run time: it finds what is silently not taught.

`check_task_env` looks at one environment. A curriculum can fail where environments, vector environment and
task teacher meet, and the training then runs on with curves that look like any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.proposals import Proposals, tasks_of
from tutelage.envs.contract.tasks import Tasks
from tutelage.envs.contract.taught import TaughtVecEnv
from tutelage.envs.contract.taught_gymnasium import TaughtGymnasiumVectorEnv
from tutelage.envs.contract.vector import take

AnyVectorEnv = VecEnv | VectorEnv[Any, Any, Any]
Taught = TaughtVecEnv | TaughtGymnasiumVectorEnv

_REALISE = (
    'read the task in reset(), task = (options or {}).get("task"), keep a copy, and report that copy as '
    'info["task"]; check_task_env(env) looks further'
)
_PROBES = 500  # proposals by which two distributions are compared


@dataclass(frozen=True)
class CurriculumFinding:
    """Something that `check_curriculum` found.

    Attributes:
        severity: ``error``: the student is not taught as it should be; ``warning``: it may not be; ``note``:
            it may be meant so, or could not be seen.
        subject: ``task``: tasks proposed are not those realised; ``results``: episodes do not reach the task
            teacher; ``change``: the distribution of proposals stays as it is; ``number``: episodes depend on
            the number of environments.
        message: what was seen, and the cure.
    """

    severity: Literal["error", "warning", "note"]
    subject: Literal["task", "results", "change", "number"]
    message: str


def check_curriculum(
    venv: AnyVectorEnv,
    task_teacher: TaskTeacher,
    *,
    make_venv: Callable[[int], AnyVectorEnv] | None = None,
    adapts: bool = True,
    steps: int = 4000,
    seed: int = 0,
) -> list[CurriculumFinding]:
    """Play random actions under a task teacher and report what is silently not taught.

    Args:
        venv: a `TaughtVecEnv` or `TaughtGymnasiumVectorEnv`, wrappers around one included, or an untaught
            vector environment that one of them can go around. Made for this check; it is not closed.
        task_teacher: the one that is meant to teach there. It learns from the random episodes; afterwards it
            gets its state back, if it has a ``state_dict``.
        make_venv: makes untaught vector environments of a number of environments; with it, episodes in one
            environment are compared with those in four, and without it they are not.
        adapts: whether the task teacher is meant to change its distribution; False for uniform draws or a
            fixed target.
        steps: environment steps to play, of all environments together.
        seed: of episodes and actions.

    Returns:
        Findings, the most severe first; empty when all is well.

    Example:
        >>> from tutelage.envs import PointMassGateVecEnv
        >>> from tutelage.teachers import make_task_teacher
        >>> venv = PointMassGateVecEnv(4)
        >>> uniform = make_task_teacher("random", venv.task_space, np.random.default_rng(0))
        >>> [finding.severity for finding in check_curriculum(venv, uniform, adapts=False, steps=400)]
        ['note']
    """
    findings: list[CurriculumFinding] = []
    saved = task_teacher.state_dict() if hasattr(task_teacher, "state_dict") else None
    before = deepcopy(task_teacher)
    player = _player(venv, task_teacher)
    if player.taught.episodes.task_teacher is not task_teacher:
        findings.append(
            CurriculumFinding(
                "error",
                "results",
                "the environment is taught by another task teacher than the one given here, which proposes "
                "nothing and observes nothing. Cure: build one task teacher, and pass that object to "
                f"{type(player.taught).__name__} and to whatever else uses it.",
            )
        )
    else:
        with _watched(player.taught) as watch:
            player.play(-(-steps // player.n), seed)
        findings += _task_findings(player)
        findings += _result_findings(player, watch)
        if watch.observed:
            findings += _change_findings(before, task_teacher, watch, adapts)
    if saved is not None:
        task_teacher.load_state_dict(saved)
    if make_venv is not None:
        findings += _number_findings(make_venv, player.taught, min(steps // 8, 500), seed)
    return sorted(findings, key=lambda f: ("error", "warning", "note").index(f.severity))


class _Watch:
    """Stands in for a task teacher, and counts what passes."""

    def __init__(self, task_teacher: TaskTeacher) -> None:
        self._task_teacher = task_teacher
        self.observed: list[Episodes] = []

    def propose(self, n: int) -> Tasks | Proposals:
        return self._task_teacher.propose(n)

    def observe(self, episodes: Episodes) -> None:
        self.observed.append(episodes)
        self._task_teacher.observe(episodes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task_teacher, name)


@contextmanager
def _watched(taught: Taught) -> Iterator[_Watch]:
    original = taught.episodes.task_teacher
    # Messages about proposals name the task teacher by its class.
    watch: Any = type(type(original).__name__, (_Watch,), {})(original)
    taught.episodes.task_teacher = watch
    try:
        yield watch
    finally:
        taught.episodes.task_teacher = original


class _Player:
    """Plays random actions in a taught environment, and notes what the environments say of their tasks."""

    def __init__(self, venv: Any, taught: Taught, n: int, action_space: gymnasium.Space[Any]) -> None:
        self.venv, self.taught, self.n, self.action_space = venv, taught, n, action_space
        self.ended = 0
        self.reported = 0  # how often an environment said which task it plays
        self.wrong: list[tuple[int, Any, Any]] = []  # environment, proposed, reported

    def reset(self, seed: int) -> Any:
        """Begin; return observations."""
        raise NotImplementedError

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
        """Step; return observations, rewards, ends."""
        raise NotImplementedError

    def actions(self, seed: int) -> Iterator[Any]:
        """Random actions; those of environment *i* come of ``seed + i`` alone."""
        spaces = [deepcopy(self.action_space) for _ in range(self.n)]
        for i, space in enumerate(spaces):
            space.seed(seed + i)
        while True:
            buffer = create_empty_array(self.action_space, self.n)
            yield concatenate(self.action_space, [space.sample() for space in spaces], buffer)

    def play(self, steps: int, seed: int) -> None:
        """Take `steps` steps in every environment."""
        self.reset(seed)
        for _, actions in zip(range(steps), self.actions(seed), strict=False):
            self.ended += int(np.count_nonzero(self.step(actions)[2]))

    def compare(self, environment: int, proposed: Any, reported: Any) -> None:
        """Note whether an environment plays what was proposed; `reported` is None where it does not say."""
        if reported is None:
            return
        self.reported += 1
        if np.shape(reported) != np.shape(proposed) or not np.allclose(reported, proposed, atol=1e-6):
            self.wrong.append((environment, proposed, reported))


class _SB3Player(_Player):
    """Listens below `TaughtVecEnv`, which writes the task that it proposed into the infos."""

    taught: TaughtVecEnv

    def reset(self, seed: int) -> Any:
        self.taught.seed(seed)
        observations = self.venv.reset()
        self._compare_started(np.arange(self.n))
        return observations

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
        before, ids, inner = self.taught.tasks.copy(), self.taught.ids.copy(), self.taught.venv
        original, said = inner.step_wait, []

        def step_wait() -> Any:
            result = original()
            said.extend(info.get("task") for info in result[3])
            return result

        inner.step_wait = step_wait  # type: ignore[method-assign]
        try:
            observations, rewards, dones, _ = self.venv.step(actions)
        finally:
            del inner.step_wait
        for i, task in enumerate(said):
            self.compare(i, before[i], task)
        self._compare_started(np.flatnonzero(self.taught.ids != ids))
        return observations, rewards, dones

    def _compare_started(self, rows: NDArray[np.int64]) -> None:
        for i in rows.tolist():
            task = self.taught.venv.reset_infos[i].get("task")
            if task is None and self.taught.venv.has_attr("task"):
                task = self.taught.venv.get_attr("task", [i])[0]
            self.compare(i, self.taught.tasks[i], task)


class _GymnasiumPlayer(_Player):
    taught: TaughtGymnasiumVectorEnv

    def reset(self, seed: int) -> Any:
        observations, infos = self.venv.reset(seed=seed)
        self._compare(infos)
        return observations

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
        observations, rewards, terminations, truncations, infos = self.venv.step(actions)
        self._compare(infos)
        return observations, rewards, terminations | truncations

    def _compare(self, infos: dict[str, Any]) -> None:
        for i in np.flatnonzero(infos.get("_task", np.zeros(self.n))).tolist():
            self.compare(i, self.taught.tasks[i], infos["task"][i])


def _player(venv: AnyVectorEnv, task_teacher: TaskTeacher) -> _Player:
    """What plays in `venv`, which is made a taught environment if there is none in it."""
    inner: Any = venv
    if isinstance(venv, VecEnv):
        while not isinstance(inner, TaughtVecEnv) and hasattr(inner, "venv"):
            inner = inner.venv
        if not isinstance(inner, TaughtVecEnv):
            inner = venv = TaughtVecEnv(venv, task_teacher)
        return _SB3Player(venv, inner, inner.num_envs, inner.action_space)
    while not isinstance(inner, TaughtGymnasiumVectorEnv) and hasattr(inner, "env"):
        inner = inner.env
    if not isinstance(inner, TaughtGymnasiumVectorEnv):
        inner = venv = TaughtGymnasiumVectorEnv(venv, task_teacher)
    return _GymnasiumPlayer(venv, inner, inner.num_envs, inner.single_action_space)


def _task_findings(player: _Player) -> Iterator[CurriculumFinding]:
    if player.wrong:
        i, proposed, reported = player.wrong[0]
        yield CurriculumFinding(
            "error",
            "task",
            f"environment {i} was to play the task {proposed} and says that it plays {reported}; so in "
            f"{len(player.wrong)} of {player.reported} reports. Cure: {_REALISE}.",
        )
    elif not player.reported:
        yield CurriculumFinding(
            "note",
            "task",
            "the environments do not say which task they play, so nobody can see whether they play the "
            f"proposed one. Cure: {_REALISE}.",
        )


def _result_findings(player: _Player, watch: _Watch) -> Iterator[CurriculumFinding]:
    observed = sum(map(len, watch.observed))
    if not player.ended:
        yield CurriculumFinding(
            "error",
            "results",
            f"no episode ended within {player.taught.episodes.steps} steps, and a task teacher learns from "
            "finished episodes alone. Cure: give episodes a time limit, e.g. gymnasium.make(..., "
            "max_episode_steps=1000) or Proposals(tasks, horizon=...); or, if they are that long, check more "
            "steps.",
        )
    elif observed < player.ended:
        yield CurriculumFinding(
            "error",
            "results",
            f"{player.ended} episodes ended and {observed} reached the task teacher. Cure: let "
            f"{type(player.taught).__name__} end and report episodes, and reset single environments by "
            "nothing else.",
        )


def _change_findings(
    before: TaskTeacher, after: TaskTeacher, watch: _Watch, adapts: bool
) -> Iterator[CurriculumFinding]:
    first, last = (tasks_of(deepcopy(one).propose(_PROBES)) for one in (before, after))
    if _differ(first, last):
        return
    seen = sum(map(len, watch.observed))
    probe = deepcopy(before)
    learns = True
    if hasattr(probe, "state_dict"):
        was = deepcopy(probe.state_dict())
        for episodes in watch.observed:
            probe.observe(episodes)
        learns = not data_equivalence(was, probe.state_dict(), exact=True)
    cure = (
        "keep what it observes and check more steps: many task teachers begin with uniform draws"
        if learns
        else "let observe() change what propose() draws from; or, if it is meant to be constant, say "
        "adapts=False"
    )
    yield CurriculumFinding(
        "error" if adapts and not learns else "note",
        "change",
        f"after {seen} episodes {type(after).__name__} proposes as it did at the beginning"
        + ("." if not adapts else f". Cure: {cure}."),
    )


def _differ(first: Tasks, last: Tasks) -> bool:
    """Kolmogorov and Smirnov's two-sample test of each dimension, at a level of 0.001 over all of them."""
    a, b = (np.sort(np.asarray(t, dtype=np.float64).reshape(len(t), -1), axis=0) for t in (first, last))
    n, dimensions = a.shape
    limit = np.sqrt(-np.log(0.0005 / dimensions) / n)  # c(alpha) sqrt(2 / n), c = sqrt(-ln(alpha / 2) / 2)
    for x, y in zip(a.T, b.T, strict=True):
        at = np.concatenate([x, y])
        gap = np.searchsorted(x, at, side="right") - np.searchsorted(y, at, side="right")
        if np.abs(gap).max() / n > limit:
            return True
    return False


class _Repeats:
    """Proposes the same tasks again and again, and learns nothing."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks

    def propose(self, n: int) -> Tasks:
        return np.resize(self.tasks, (n, *self.tasks.shape[1:]))

    def observe(self, episodes: Episodes) -> None:
        """Nothing to learn."""


def _number_findings(
    make_venv: Callable[[int], AnyVectorEnv], taught: Taught, steps: int, seed: int
) -> Iterator[CurriculumFinding]:
    n = 4
    tasks = taught.task_space.sample(np.random.default_rng([seed, n]), n)
    together = _first_episodes(make_venv(n), tasks, steps, seed)
    alone = [_first_episodes(make_venv(1), tasks[i : i + 1], steps, seed + i)[0] for i in range(n)]
    different = [i for i in range(n) if not data_equivalence(together[i], alone[i], exact=False)]
    if different:
        i = different[0]
        yield CurriculumFinding(
            "error",
            "number",
            f"the same seed, task {tasks[i]} and actions gave another episode in environment {i} of {n} "
            f"({len(together[i]['rewards'])} steps, return {sum(together[i]['rewards']):g}) than alone "
            f"({len(alone[i]['rewards'])} steps, return {sum(alone[i]['rewards']):g}); so in "
            f"{len(different)} of {n} environments. Cure: let no environment draw from a generator, or write "
            "to state, that it shares with others; seed each by the seed that its reset() is given.",
        )


def _first_episodes(venv: AnyVectorEnv, tasks: Tasks, steps: int, seed: int) -> list[dict[str, Any]]:
    """First observation and rewards of each environment's first episode, cut off after `steps` steps."""
    repeats: Any = _Repeats(tasks)
    player = _player(venv, repeats)
    space = player.taught.observation_space
    if isinstance(player, _SB3Player):  # an array, or a dict or tuple of arrays, environments first
        first = player.reset(seed)
        rows = [deepcopy(take(first, i)) for i in range(player.n)]
    else:
        rows = deepcopy(list(iterate(space, player.reset(seed))))
    rewards: list[list[float]] = [[] for _ in range(player.n)]
    running = np.ones(player.n, dtype=np.bool_)
    for _, actions in zip(range(steps), player.actions(seed), strict=False):
        _, earned, ended = player.step(actions)
        for i in np.flatnonzero(running).tolist():
            rewards[i].append(float(earned[i]))
        running &= ~ended
        if not running.any():
            break
    venv.close()
    return [{"first": row, "rewards": np.array(r)} for row, r in zip(rows, rewards, strict=True)]
