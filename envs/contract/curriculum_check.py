"""The check of a curriculum at run time: it finds what is silently not taught.

`check_task_env` looks at one environment. A curriculum can fail where environments, vector environment and
task teacher meet, and the training then runs on with curves that look like any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.proposals import tasks_of
from tutelage.envs.contract.random_play import (
    AnyVectorEnv,
    RandomPlay,
    Taught,
    WatchedTaskTeacher,
    first_episodes,
    random_play,
    watched,
)
from tutelage.envs.contract.tasks import Tasks

_REALISE = (
    'read the task in reset(), task = (options or {}).get("task"), keep a copy, and report that copy as '
    'info["task"]; check_task_env(env) looks further'
)
_PROBES = 500  # proposals by which two distributions are compared


@dataclass(frozen=True)
class CurriculumFinding:
    """Something that `check_curriculum` found.

    Attributes:
        severity: ``error``: the student is not taught as it should be; ``note``: it may be meant so, or it
            could not be seen.
        subject: ``task``: tasks proposed are not those realised; ``results``: episodes do not reach the task
            teacher; ``change``: the distribution of proposals stays as it is; ``number``: episodes depend on
            the number of environments.
        message: what was seen, and the cure.
    """

    severity: Literal["error", "note"]
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
    player = random_play(venv, task_teacher)
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
        with watched(player.taught) as watch:
            player.play(-(-steps // player.n), seed)
        findings += _task_findings(player)
        findings += _result_findings(player, watch)
        if watch.observed:
            findings += _change_findings(before, task_teacher, watch, adapts)
    if saved is not None:
        task_teacher.load_state_dict(saved)
    if make_venv is not None:
        findings += _number_findings(make_venv, player.taught, min(steps // 8, 500), seed)
    return sorted(findings, key=lambda f: ("error", "note").index(f.severity))


def _task_findings(player: RandomPlay) -> Iterator[CurriculumFinding]:
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


def _result_findings(player: RandomPlay, watch: WatchedTaskTeacher) -> Iterator[CurriculumFinding]:
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
            f"{player.ended} episodes ended and {observed} reached the task teacher. Cure: let nothing but "
            f"{type(player.taught).__name__} end episodes and reset environments, and let it call observe().",
        )


def _change_findings(
    before: TaskTeacher, after: TaskTeacher, watch: WatchedTaskTeacher, adapts: bool
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


def _number_findings(
    make_venv: Callable[[int], AnyVectorEnv], taught: Taught, steps: int, seed: int
) -> Iterator[CurriculumFinding]:
    n = 4
    tasks = taught.task_space.sample(np.random.default_rng([seed, n]), n)
    together = first_episodes(make_venv(n), tasks, steps, seed)
    alone = [first_episodes(make_venv(1), tasks[i : i + 1], steps, seed + i)[0] for i in range(n)]
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
