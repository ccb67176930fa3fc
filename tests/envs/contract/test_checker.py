"""`check_task_env` finds each fault that it names, in an environment broken in just that way."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from tutelage.envs.contract.checker import TaskEnvError, check_task_env
from tutelage.envs.contract.tasks import BoxTasks, DiscreteTasks
from tutelage.envs.point_mass.point_mass_gate import PointMassGate

LENGTH = 12


class Walk(gymnasium.Env[Any, Any]):
    """A random walk with a drift and a step size as its task: sound; what follows breaks it."""

    observation_space = Box(-1000.0, 1000.0, (1,), np.float64)
    action_space = Discrete(2)

    def __init__(self) -> None:
        self.task_space: Any = BoxTasks({"drift": (-1, 1), "size": (1, 5)})
        self.task: Any = None
        self.x, self.t = 0.0, 0

    def pick(self, options: dict[str, Any] | None) -> Any:
        task = (options or {}).get("task")
        if task is None:
            return self.task_space.sample(self.np_random, 1)[0]
        return self.task_space.check([np.array(task, dtype=float)])[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.task = self.pick(options)
        self.x, self.t = 0.0, 0
        return self.observe(), {"task": self.task.copy()}

    def observe(self) -> Any:
        return np.array([self.x])

    def noise(self) -> float:
        return float(self.np_random.normal())

    def reward(self) -> float:
        return self.x

    def move(self, action: int) -> None:
        self.x += float(self.task[0] + self.task[1] * (2 * action - 1) + self.noise())
        self.t += 1

    def info(self, ended: bool) -> dict[str, Any]:
        return {"task": self.task.copy()} | ({"success": self.x > 0} if ended else {})

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.move(action)
        ended = self.t >= LENGTH
        return self.observe(), self.reward(), False, ended, self.info(ended)


class NoTaskSpace(Walk):
    def __init__(self) -> None:
        super().__init__()
        del self.task_space


class GymSpaceForTasks(Walk):
    def __init__(self) -> None:
        super().__init__()
        self.task_space = Box(-1.0, 1.0, (2,))


class NoOptions(Walk):
    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        return super().reset(seed=seed)


class IgnoresOptions(Walk):
    def pick(self, options: dict[str, Any] | None) -> Any:
        return super().pick(None)


class StartsOther(Walk):
    def pick(self, options: dict[str, Any] | None) -> Any:
        task = super().pick(options)
        return task if task[0] < 0 else task * [0.5, 1.0]  # right for some tasks only


class NoTaskAtReset(Walk):
    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        return super().reset(**how)[0], {}


class MutatesGivenTask(Walk):
    def pick(self, options: dict[str, Any] | None) -> Any:
        if options and "task" in options:
            options["task"][0] *= 0.5
        return super().pick(options)


class KeepsCallersArray(Walk):
    def pick(self, options: dict[str, Any] | None) -> Any:
        return options["task"] if options and "task" in options else super().pick(options)


class TaskDrifts(Walk):
    def move(self, action: int) -> None:
        super().move(action)
        if self.t == 5:
            self.task = self.task * 0.9


class HandsOutCallersArray(Walk):
    """Says which task runs in reset() alone, and that with the caller's own array."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation, {"task": (options or {}).get("task", info["task"])}

    def info(self, ended: bool) -> dict[str, Any]:
        return {"success": True} if ended else {}


class OldStep(Walk):
    def step(self, action: int) -> Any:
        observation, reward, _, ended, info = super().step(action)
        return observation, reward, ended, info


class SuccessIsFloat(Walk):
    def info(self, ended: bool) -> dict[str, Any]:
        return super().info(ended) | ({"success": 1.0} if ended else {})


class IsSuccessIsFloat(Walk):
    def info(self, ended: bool) -> dict[str, Any]:
        return {"is_success": float(self.x > 0)} if ended else {}


class TellsSuccessesOnly(Walk):
    def info(self, ended: bool) -> dict[str, Any]:
        return {"success": True} if ended and self.x > 0 else {}


class TellsFailuresByOtherName(Walk):
    """Sound: `is_success` is as good as `success`."""

    def info(self, ended: bool) -> dict[str, Any]:
        return {"success" if self.x > 0 else "is_success": self.x > 0} if ended else {}


class TimeLimitHidesSuccess(Walk):
    """Ends by itself, with success, where the drift is above 0.8; else at the time limit, without."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.move(action)
        ended, truncated = bool(self.task[0] > 0.8 and self.t >= 4), self.t >= LENGTH
        return self.observe(), self.x, ended, truncated, {"success": True} if ended else {}


class GlobalRandomness(Walk):
    def noise(self) -> float:
        return float(np.random.default_rng().normal())


class LeaksState(Walk):
    """The second step is longer by the drift of the last episode."""

    memory = 0.0

    def move(self, action: int) -> None:
        super().move(action)
        self.x += self.memory if self.t == 2 else 0.0
        self.memory = float(self.task[0]) if self.t == LENGTH else self.memory


class KeepsRecord(Walk):
    """The second step is longer by the greatest size of step that any task ever had."""

    record = 0.0

    def move(self, action: int) -> None:
        super().move(action)
        self.record = max(self.record, float(self.task[1]) if self.task[1] < 5 else 0.0)
        self.x += self.record if self.t == 2 else 0.0


class Float32Crashes(Walk):
    def pick(self, options: dict[str, Any] | None) -> Any:
        task = (options or {}).get("task")
        if getattr(task, "dtype", None) == np.float32:
            raise TypeError("expected double")
        return super().pick(options)


class CornerCrashes(Walk):
    def move(self, action: int) -> None:
        if self.task[1] == 5:
            raise ZeroDivisionError("5 - size")
        super().move(action)


class LeavesObservationSpace(Walk):
    def observe(self) -> Any:
        return np.array([2000.0 if self.task[1] == 1 else self.x])


class NaNReward(Walk):
    def reward(self) -> float:
        return float("nan") if self.t == 7 else self.x


class BreaksGymnasium(Walk):
    def observe(self) -> Any:
        return np.array([self.x, 0.0])  # not the shape of the observation space


class NoTaskWithoutOptions(Walk):
    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        observation, info = super().reset(**how)
        return observation, info if (how.get("options") or {}).get("task") is not None else {"task": None}


class SharedInfo(Walk):
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed, options=options)[0], {"task": self.task}

    def info(self, ended: bool) -> dict[str, Any]:
        return super().info(ended) | {"task": self.task}


FAULTS = {
    NoTaskSpace: "no attribute task_space.*Cure: .*BoxTasks",
    GymSpaceForTasks: "is a Box, which is no task space .*contains|lacks.*Cure: use BoxTasks",
    NoOptions: "raised TypeError.*options.*Cure: accept seed and options",
    IgnoresOptions: r"options are ignored. Cure: read it in reset\(\)",
    StartsOther: r"was given task .* and info\['task'\] is .*Cure: put a copy of the running task",
    NoTaskAtReset: r'info of reset\(\) has no "task"',
    MutatesGivenTask: "changed the task array it was given.*work on a copy",
    KeepsCallersArray: "changed with the caller's array.*keep a copy",
    TaskDrifts: "became .* at step 5 .*change it nowhere but in reset",
    HandsOutCallersArray: "changed with the caller's array.*keep a copy",
    OldStep: r"step\(\) raised TypeError: expected \(observation, reward, terminated, truncated, info\)",
    SuccessIsFloat: r'info\["success"\] is 1.0, a float. Cure: .*bool',
    IsSuccessIsFloat: r'info\["is_success"\] is \d.0, a float. Cure: info\["is_success"\] = bool',
    TellsSuccessesOnly: "episodes ended with a success in info.* others with none.*Cure: .*every last step",
    TimeLimitHidesSuccess: "episodes ended with a success in info.* into every step",
    GlobalRandomness: "two different episodes.*self.np_random",
    LeaksState: "two different episodes.*reset all state",
    Float32Crashes: "float32 task raised TypeError: expected double. Cure: convert it first",
    CornerCrashes: r"episode on \[-1\.  5\.\], at the border .* raised ZeroDivisionError",
    LeavesObservationSpace: "outside observation_space. Cure: widen",
    NaNReward: "reward of step 7 is nan",
    BreaksGymnasium: "gymnasium.utils.env_checker.check_env raised AssertionError",
    NoTaskWithoutOptions: r"reset\(\) without options reports the task None",
    SharedInfo: "check_env raised AssertionError: The infos",
}


@pytest.mark.parametrize("broken", FAULTS, ids=lambda env: env.__name__)
def test_each_fault_is_found_and_comes_with_a_cure(broken: type[Walk]) -> None:
    with pytest.raises(TaskEnvError, match=FAULTS[broken]) as caught:
        check_task_env(broken())
    assert all("Cure: " in fault for fault in caught.value.faults)


class NoTaskInSteps(Walk):
    def info(self, ended: bool) -> dict[str, Any]:
        return {"success": self.x > 0} if ended else {}


def test_a_sound_environment_has_no_findings_from_us() -> None:
    assert check_task_env(Walk()) == []
    assert check_task_env(NoTaskInSteps()) == []
    assert check_task_env(TellsFailuresByOtherName()) == []
    assert check_task_env(PointMassGate(friction=True)) == []


def test_wrapped_environments_are_checked_through_their_wrappers() -> None:
    assert check_task_env(gymnasium.wrappers.TimeLimit(Walk(), LENGTH + 1)) == []
    (warning,) = check_task_env(gymnasium.wrappers.TimeLimit(Walk(), LENGTH - 1))  # truncated from outside
    assert 'no "success"' in warning


def test_all_faults_are_listed_at_once() -> None:
    class Two(SuccessIsFloat, Float32Crashes):
        pass

    with pytest.raises(TaskEnvError, match="2 faults") as caught:
        check_task_env(Two())
    assert len(caught.value.faults) == 2


def test_the_episode_in_between_uncovers_records() -> None:
    with pytest.raises(TaskEnvError, match="two different episodes"):
        check_task_env(KeepsRecord(), seed=9)  # where the task in between is a record


def test_success_is_looked_for_on_ends_and_middle_of_the_task_space() -> None:
    attempted: list[float] = []

    class Records(Walk):
        def info(self, ended: bool) -> dict[str, Any]:
            attempted.extend([float(self.task[0])] * ended)
            return super().info(ended)

    assert check_task_env(Records()) == []
    assert {-1.0, 0.0, 1.0} < set(attempted)  # drift is a parameter from -1 to 1
    assert len(set(attempted)) > 6

    class TellsOfTheMiddleOnly(Walk):
        def info(self, ended: bool) -> dict[str, Any]:
            return {"success": True} if ended and self.task[0] == 0 else {}

    with pytest.raises(TaskEnvError, match=r"1 of \d+ episodes ended with"):
        check_task_env(TellsOfTheMiddleOnly())


def test_no_gymnasium_environment_is_a_fault() -> None:
    with pytest.raises(TaskEnvError, match=r"int is no gymnasium\.Env"):
        check_task_env(3)  # type: ignore[arg-type]


class NoSuccess(Walk):
    def info(self, ended: bool) -> dict[str, Any]:
        return {"task": self.task.copy()}


class AcceptsAnything(Walk):
    def pick(self, options: dict[str, Any] | None) -> Any:
        task = (options or {}).get("task")
        return super().pick(None) if task is None else np.array(task, dtype=float)


class NeverEnds(Walk):
    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x = min(max(self.x, -900.0), 900.0)
        return (*super().step(action)[:3], False, {"task": self.task.copy()})


class Unbounded(Walk):
    observation_space = Box(-np.inf, np.inf, (1,), np.float64)


WARNINGS = {
    NoSuccess: ['no "success"'],
    AcceptsAnything: [
        "silently accepted the task .* outside its bounds",
        "silently accepted the task .* of NaN",
    ],
    NeverEnds: ["did not end within 300 steps"],
    Unbounded: ["minimum value is -infinity", "maximum value is infinity"],
}


@pytest.mark.parametrize("doubtful", WARNINGS, ids=lambda env: env.__name__)
def test_each_warning_is_given_and_is_no_fault(doubtful: type[Walk]) -> None:
    found = check_task_env(doubtful(), max_steps=300)
    assert len(found) == len(WARNINGS[doubtful])
    for warning, pattern in zip(found, WARNINGS[doubtful], strict=True):
        assert re.search(pattern, warning)


class Doors(Walk):
    """A discrete task space."""

    def __init__(self) -> None:
        super().__init__()
        self.task_space = DiscreteTasks(["left", "right", "both"])

    def pick(self, options: dict[str, Any] | None) -> Any:
        task = (options or {}).get("task")
        if task is None:
            return self.task_space.sample(self.np_random, 1)[0]
        return self.task_space.check([task])[0]

    def move(self, action: int) -> None:
        self.x += action * int(self.task) + self.noise()
        self.t += 1


class DoorsLastCrashes(Doors):
    def move(self, action: int) -> None:
        self.x += [0.5, 0.7][int(self.task)] + self.noise()
        self.t += 1


def test_discrete_tasks() -> None:
    assert check_task_env(Doors()) == []
    with pytest.raises(TaskEnvError, match="IndexError"):
        check_task_env(DoorsLastCrashes())


def test_the_check_leaves_global_random_state_and_action_space_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr,index]  # noqa: NPY002
    check_task_env(Walk())
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
