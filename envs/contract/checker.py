"""The check that a user's task environment is one: what is wrong with it, and how to mend it.

Task teachers, the taught vector environment and the evaluation rely on `task_space`,
``reset(options={"task": ...})``, ``info["task"]`` after a reset, and ``info["success"]`` at the end of every
episode or of none. An environment that gets one of them wrong usually runs on and gives meaningless curves,
so run this check once, in a test of your own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env, data_equivalence
from numpy.typing import NDArray

from tutelage.envs.contract.tasks import BoxSpace, TaskSpace, missing_members

_READ_TASK = 'read it in reset(): task = (options or {}).get("task")'
_REPORT_TASK = 'put a copy of the running task there: info["task"] = self.task.copy()'
_REPORT_SUCCESS = (
    'put info["success"] = bool(...) into every last step; where a time limit around the environment decides '
    "which step is the last, into every step"
)
_NOT_OURS = ("different from the unwrapped version", "alternative render modes")


class TaskEnvError(ValueError):
    """A task environment that does not keep the contract.

    Attributes:
        faults: what is wrong, each with its cure.
        warnings: what may be meant so.
    """

    def __init__(self, faults: list[str], warnings: list[str]) -> None:
        self.faults, self.warnings = faults, warnings
        listed = "\n".join(f"  {i}. {fault}" for i, fault in enumerate(faults, start=1))
        super().__init__(f"{len(faults)} fault{'s' * (len(faults) > 1)} in this task environment:\n{listed}")


@dataclass
class _Check:
    """One run of the check: the environment, and the findings so far."""

    env: gymnasium.Env[Any, Any]
    space: Any
    seed: int
    max_steps: int
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ends: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    """Task and last info of every episode that ended."""

    def actions(self, variant: int = 0) -> Iterator[Any]:
        """The same random actions each time, without touching the environment's own action space."""
        space = deepcopy(self.env.action_space)
        space.seed(self.seed + variant)
        while True:
            yield space.sample()

    def attempt(self, what: str, cure: str, run: Callable[..., Any], *args: Any) -> Any:
        """Result of ``run(*args)``, or None and a fault where it raises."""
        try:
            return run(*args)
        except Exception as error:  # whatever a user's environment raises is a finding
            self.faults.append(f"{what} raised {type(error).__name__}: {error}. Cure: {cure}.")
            return None

    def tasks(self, n: int, draw: int) -> Any:
        """Tasks of the space; the generator is none that an environment makes of the seed."""
        return self.space.sample(np.random.default_rng([self.seed, draw]), n)

    def reset(self, task: Any, variant: int = 0) -> Any:
        """Start `task`."""
        return self.env.reset(seed=self.seed + variant, options={"task": task})

    def step(self, action: Any) -> tuple[Any, ...]:
        """What `step` returned; TypeError where that is not Gymnasium's five values."""
        result = tuple(self.env.step(action))
        if len(result) != 5 or not isinstance(result[4], dict):
            raise TypeError("expected (observation, reward, terminated, truncated, info) with a dict as info")
        return result

    def episode(self, task: Any, steps: int, variant: int = 0) -> list[tuple[Any, ...]]:
        """Reset to `task` and take up to `steps` random steps; all that came back, copied.

        Other variants have other seeds and actions.
        """
        observation, info = self.reset(task, variant)
        came = [deepcopy((observation, 0.0, False, False, info))]
        for action in islice(self.actions(variant), steps):
            came.append(deepcopy(self.step(action)))
            if came[-1][2] or came[-1][3]:
                self.ends.append((task, came[-1][4]))
                break
        return came

    def border(self) -> list[Any]:
        """The ends of the task space (65 at most), the lowest first and the highest last."""
        if isinstance(self.space, BoxSpace):
            corners = islice(product(*zip(self.space.low, self.space.high, strict=True)), 64)
            return [*map(np.array, corners), self.space.high.copy()]
        return [] if (indices := self.indices()) is None else [indices[0], indices[-1]]

    def indices(self) -> NDArray[np.int64] | None:
        """First and last task of a space whose tasks are whole numbers, ``(2,)``; None in other spaces."""
        if self.space.shape != () or len(self.space.axes) != 1 or not self.space.axes[0].whole:
            return None
        return np.array([np.ceil(self.space.axes[0].low), np.floor(self.space.axes[0].high)], np.int64)


def check_task_env(env: gymnasium.Env[Any, Any], max_steps: int = 2000, seed: int = 0) -> list[str]:
    """Check that a Gymnasium environment is a task environment.

    Includes Gymnasium's own `check_env`. Takes some episodes of random actions.

    Args:
        env: the environment; it is reset and stepped, not closed.
        max_steps: an episode that lasts longer is warned of.
        seed: of tasks, actions and episodes.

    Returns:
        Warnings, each with its cure: what may be meant so, but is usually a mistake. Empty when all is well.

    Raises:
        TaskEnvError: with all faults found, each with its cure.

    Example:
        >>> from tutelage.envs.point_mass.point_mass_gate import PointMassGate
        >>> check_task_env(PointMassGate())
        []
    """
    check = _Check(env, None, seed, max_steps)
    for probes in ((_has_task_space,), (_starts_tasks,), _FURTHER):
        for probe in probes:
            probe(check)
        if check.faults:  # later probes would only report the same in other words
            break
    if check.faults:
        raise TaskEnvError(check.faults, check.warnings)
    return check.warnings


def _has_task_space(check: _Check) -> None:
    if not isinstance(check.env, gymnasium.Env):
        check.faults.append(
            f"{type(check.env).__name__} is no gymnasium.Env. Cure: inherit from gymnasium.Env."
        )
        return
    try:
        check.space = check.env.get_wrapper_attr("task_space")
    except AttributeError:
        check.faults.append(
            "there is no attribute task_space. Cure: in __init__, name an episode's parameters and their "
            'bounds: self.task_space = BoxTasks({"height": (0, 3)}).'
        )
        return
    if not isinstance(check.space, TaskSpace):
        lacking = ", ".join(missing_members(check.space, TaskSpace))
        check.faults.append(
            f"task_space is a {type(check.space).__name__}, which is no task space (it lacks {lacking}). "
            "Cure: use BoxTasks or DiscreteTasks of tutelage.envs, or inherit from TaskSpace or LevelSpace."
        )


def _starts_tasks(check: _Check) -> None:
    """Tasks given to `reset` are started, left alone, and reported."""
    tasks = check.tasks(3, draw=10)
    reported = []
    for task in tasks:
        given = deepcopy(task)
        result = check.attempt(
            f'reset(options={{"task": {task}}})',
            f"accept seed and options, and {_READ_TASK}",
            check.reset,
            given,
        )
        if result is None:
            return
        if not np.array_equal(given, task):
            check.faults.append(
                f"reset() changed the task array it was given, from {task} to {given}. "
                "Cure: work on a copy, np.array(options['task'], dtype=float)."
            )
            return
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            check.faults.append(
                "reset() does not return (observation, info). Cure: return both; info is a dict."
            )
            return
        if "task" not in result[1]:
            check.faults.append(f'info of reset() has no "task". Cure: {_REPORT_TASK}.')
            return
        reported.append(deepcopy(result[1]["task"]))
        if isinstance(given, np.ndarray) and not _keeps_own_copy(check, given, result[1]["task"]):
            return
    wrong = [i for i in range(len(tasks)) if not _same(reported[i], tasks[i])]
    if wrong:
        i = wrong[0]
        ignored = len(wrong) == len(tasks)
        check.faults.append(
            f"reset() was given task {tasks[i]} and info['task'] is {reported[i]}"
            + (f": options are ignored. Cure: {_READ_TASK}." if ignored else f". Cure: {_REPORT_TASK}.")
        )


def _keeps_own_copy(check: _Check, given: NDArray[Any], reported: Any) -> bool:
    running = deepcopy(reported)
    given[...] = check.tasks(1, draw=11)[0]
    result = check.attempt("step()", "mend step()", check.step, next(check.actions()))
    if result is None:
        return False
    kept = _same(result[4].get("task", reported), running)  # if steps do not report it, what reset() gave
    if not kept:
        check.faults.append(
            "the running task changed with the caller's array after reset(). Cure: keep a copy of it, "
            "self.task = np.array(options['task'], dtype=float)."
        )
    return kept


def _gymnasium(check: _Check) -> None:
    """Gymnasium's own checker."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check.attempt(
            "gymnasium.utils.env_checker.check_env",
            "mend what it names",
            lambda: check_env(check.env, skip_render_check=True, skip_close_check=True),
        )
    for warning in caught:
        text = str(warning.message).replace("\x1b[33m", "").replace("\x1b[0m", "").removeprefix("WARN: ")
        if not any(part in text for part in _NOT_OURS):
            check.warnings.append(f"gymnasium.utils.env_checker.check_env: {text}")


def _lasts_and_ends(check: _Check) -> None:
    """Rewards are finite, the task survives the steps where they report it, and the episode ends."""
    task = check.tasks(1, draw=12)[0]
    came = check.attempt("an episode of random actions", "mend step()", check.episode, task, check.max_steps)
    if came is None:
        return
    for step, (_, reward, _, _, info) in enumerate(came):
        if not np.isfinite(reward):
            check.faults.append(f"the reward of step {step} is {reward}. Cure: keep rewards finite.")
            return
        if "task" in info and not _same(info["task"], task):
            check.faults.append(
                f"the task became {info['task']} at step {step} of the episode on {task}. "
                "Cure: change it nowhere but in reset()."
            )
            return
    if not check.ends:
        check.warnings.append(
            f"the episode did not end within {check.max_steps} steps, and task teachers learn from finished "
            "episodes only. Cure: truncate it, e.g. gymnasium.make(..., max_episode_steps=1000)."
        )


def _tells_success(check: _Check) -> None:
    """Success is a bool at the end of every episode, or of none.

    Looks at all episodes that ended so far and, as far as three times `max_steps` reach, at further ones on
    the ends and the middle of the task space.
    """
    tasks = [*check.border()[:1], *check.border()[-1:], *check.tasks(4, draw=15)]
    if isinstance(check.space, BoxSpace):
        tasks.insert(2, (check.space.low + check.space.high) / 2)
    left = 3 * check.max_steps if check.ends and not check.faults else 0
    for variant, task in enumerate(tasks):
        if left > 0:
            came = check.attempt(f"an episode on {task}", "mend step()", check.episode, task, left, variant)
            left = 0 if came is None else left - len(came) + 1
    told: list[Any] = []
    silent: list[Any] = []
    for task, info in check.ends:
        name = "success" if "success" in info else "is_success"  # as SB3 calls it
        value = info.get(name)
        (silent if value is None else told).append(task)
        if value is not None and not isinstance(value, bool | np.bool_):
            check.faults.append(
                f'info["{name}"] is {value!r}, a {type(value).__name__}. Cure: info["{name}"] = bool(...).'
            )
            return
    if told and silent:
        check.faults.append(
            f"{len(told)} of {len(check.ends)} episodes ended with a success in info, e.g. on {told[0]}, and "
            f"the others with none, e.g. on {silent[0]}: success rates would be those of the former alone. "
            f"Cure: {_REPORT_SUCCESS}."
        )
    elif silent:
        check.warnings.append(
            'info at the end of the episode has no "success"; success rates and some task teachers need it. '
            f"Cure: where success is defined, {_REPORT_SUCCESS}."
        )


def _repeats(check: _Check) -> None:
    """Seed, task and actions decide an episode, also after another one."""
    first, other = check.tasks(2, draw=13)

    def both() -> bool:
        once = check.episode(first, 100)
        check.episode(other, 100)
        again = check.episode(first, 100)
        return len(once) == len(again) and all(
            data_equivalence(a[:4], b[:4], exact=True) for a, b in zip(once, again, strict=True)
        )

    if check.attempt("repeating an episode", "mend reset() and step()", both) is False:
        check.faults.append(
            "the same seed, task and actions gave two different episodes. Cure: call "
            "super().reset(seed=seed), draw all random numbers from self.np_random, and reset all state that "
            "an earlier episode left."
        )


def _takes_other_types(check: _Check) -> None:
    """float32 tasks (int32 for discrete ones), as neural task teachers propose them, and plain lists."""
    task = check.tasks(1, draw=14)[0]
    small = np.float32 if np.issubdtype(check.space.dtype, np.floating) else np.int32
    for kind, given in (
        (small.__name__, np.asarray(task).astype(small)),
        ("plain Python", np.asarray(task).tolist()),
    ):
        check.attempt(
            f"an episode on a {kind} task",
            "convert it first, np.array(options['task'], dtype=float)",
            check.episode,
            given,
            20,
        )


def _bears_corners(check: _Check) -> None:
    """The ends of the task space can be started and stepped."""
    for task in check.border():
        came = check.attempt(
            f"an episode on {task}, at the border of the task space,",
            "make it work there, or draw the bounds of task_space closer",
            check.episode,
            task,
            20,
        )
        if came is None:
            return
        if not all(check.env.observation_space.contains(step[0]) for step in came):
            check.faults.append(
                f"an observation on {task}, at the border of the task space, is outside observation_space. "
                "Cure: widen observation_space, or scale the observation."
            )
            return


def _refuses_foreign_tasks(check: _Check) -> None:
    """Tasks outside of the space, and NaN, are refused."""
    foreign: dict[str, Any]
    if isinstance(check.space, BoxSpace):
        foreign = {
            "outside its bounds": 2 * check.space.high - check.space.low,
            "of NaN": check.space.low * np.nan,
        }
    elif (indices := check.indices()) is not None:
        foreign = {"outside its range": indices[-1] + 1}
    else:
        return
    for kind, task in foreign.items():
        try:
            check.reset(task)
        except Exception:  # any refusal is one
            continue
        check.warnings.append(
            f"reset() silently accepted the task {task}, which is {kind}. Cure: task = "
            "self.task_space.check([options['task']])[0] names the parameter and its bounds."
        )


def _resets_without_task(check: _Check) -> None:
    """A plain reset, as automatic resets do it, starts some task of the space."""
    result = check.attempt(
        "reset() without options",
        "draw a task, self.task_space.sample(self.np_random, 1)[0]",
        lambda: check.env.reset(seed=check.seed),
    )
    if result is None:
        return
    task = result[1].get("task")
    try:
        inside = task is not None and bool(check.space.contains(np.asarray(task)[None])[0])
    except ValueError:
        inside = False
    if not inside:
        check.faults.append(
            f"reset() without options reports the task {task}, which is not in task_space. "
            "Cure: draw one, self.task_space.sample(self.np_random, 1)[0], and report it."
        )


def _same(one: Any, other: Any) -> bool:
    try:
        return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=1e-5, atol=1e-8))
    except TypeError:
        return bool(np.array_equal(one, other))


_FURTHER = (
    _gymnasium,
    _resets_without_task,
    _lasts_and_ends,
    _repeats,
    _takes_other_types,
    _bears_corners,
    _refuses_foreign_tasks,
    _tells_success,
)
