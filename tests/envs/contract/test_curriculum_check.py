"""The check of a curriculum finds each thing that is silently not taught, and nothing where all is well."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tutelage.envs.contract.curriculum_check import CurriculumFinding, check_curriculum
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.envs.contract.taught import TaughtVecEnv
from tutelage.envs.contract.taught_gymnasium import TaughtGymnasiumVectorEnv
from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv
from tutelage.teachers import make_task_teacher


class Walk(gym.Env[Any, Any]):
    """A random walk of `task` steps, rounded up."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    task_space = BoxTasks({"length": (0.5, 9.5)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.task = np.array((options or {}).get("task", [9.0]), dtype=np.float64)
        self.x, self.steps = self.np_random.normal(), 0
        return np.array([self.x], dtype=np.float32), {"task": self.task.copy()}

    def step(self, action: Any) -> Any:
        self.x += 0.1 * self.draw()
        self.steps += 1
        info = {"task": self.task.copy(), "success": bool(self.x > 0)}
        observation = np.array([self.x], dtype=np.float32)
        return observation, float(self.x), bool(self.steps >= self.task[0]), False, info

    def draw(self) -> float:
        return float(self.np_random.normal())


class Harder:
    """A task teacher that proposes ever longer walks."""

    def __init__(self, deaf: bool = False) -> None:
        self.rng, self.seen, self.deaf = np.random.default_rng(0), 0, deaf

    def propose(self, n: int) -> np.ndarray:
        return self.rng.uniform(0.5, 2.0 + min(self.seen, 250) / 50, (n, 1))

    def observe(self, episodes: Episodes) -> None:
        self.seen += 0 if self.deaf else len(episodes)

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def _found(findings: list[CurriculumFinding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.subject) for finding in findings]


def _dummy(n: int, env: type[gym.Env[Any, Any]] = Walk) -> DummyVecEnv:
    return DummyVecEnv([env] * n)


def _sync(n: int, env: type[gym.Env[Any, Any]] = Walk) -> SyncVectorEnv:
    return SyncVectorEnv([env] * n)


KINDS = pytest.mark.parametrize("make", [_dummy, _sync], ids=["sb3", "gymnasium"])


@KINDS
def test_where_all_is_well_nothing_is_found(make: Any) -> None:
    teacher = Harder()
    assert check_curriculum(make(4), teacher, make_venv=make) == []
    assert teacher.seen == 0  # it has its state back


def test_taught_and_wrapped_environments_are_checked_as_they_are() -> None:
    teacher = Harder()
    assert check_curriculum(VecNormalize(TaughtVecEnv(_dummy(4), teacher)), teacher) == []
    taught = TaughtGymnasiumVectorEnv(_sync(4), teacher)
    assert check_curriculum(taught, teacher) == []
    assert taught.episodes.task_teacher is teacher


def test_our_batched_environments_do_not_depend_on_their_number() -> None:
    teacher = make_task_teacher("random", PointMassGateVecEnv(1).task_space, np.random.default_rng(0))
    state = teacher.state_dict()
    found = check_curriculum(
        PointMassGateVecEnv(4), teacher, make_venv=PointMassGateVecEnv, adapts=False, steps=1000
    )
    assert _found(found) == [("note", "change")]
    assert teacher.state_dict() == state


class Deaf(Walk):
    """Ignores the task that it is given."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)


@KINDS
def test_a_proposed_task_that_is_not_realised(make: Any) -> None:
    found = check_curriculum(make(4, Deaf), Harder())
    assert _found(found) == [("error", "task")]
    assert "says that it plays [9.]" in found[0].message
    assert 'task = (options or {}).get("task")' in found[0].message


def test_a_task_that_is_changed_in_mid_episode() -> None:
    class Drifting(Walk):
        def step(self, action: Any) -> Any:
            self.task = self.task + 0.01
            return super().step(action)

    assert ("error", "task") in _found(check_curriculum(_dummy(4, Drifting), Harder()))


def test_environments_that_do_not_say_what_they_play() -> None:
    class Silent(Walk):
        def reset(self, **kwargs: Any) -> Any:
            observation, _ = super().reset(**kwargs)
            self.hidden = self.task
            del self.task
            return observation, {}

        def step(self, action: Any) -> Any:
            self.task = self.hidden
            *rest, _ = super().step(action)
            del self.task
            return *rest, {}

    assert _found(check_curriculum(_dummy(4, Silent), Harder())) == [("note", "task")]


def test_an_attribute_is_believed_where_infos_say_nothing() -> None:
    class Attribute(Deaf):
        def reset(self, **kwargs: Any) -> Any:
            return super().reset(**kwargs)[0], {}

        def step(self, action: Any) -> Any:
            return *super().step(action)[:4], {}

    assert _found(check_curriculum(_dummy(4, Attribute), Harder())) == [("error", "task")]


def test_another_task_teacher_teaches() -> None:
    found = check_curriculum(TaughtVecEnv(_dummy(4), Harder()), Harder())
    assert _found(found) == [("error", "results")]
    assert "build one task teacher" in found[0].message


@KINDS
def test_episodes_that_never_end(make: Any) -> None:
    class Endless(Walk):
        def step(self, action: Any) -> Any:
            observation, reward, _, _, _ = super().step(action)
            return observation, reward, False, False, {}

    found = check_curriculum(make(4, Endless), Harder(), steps=400)
    assert _found(found) == [("error", "results")]
    assert "no episode ended within 400 steps" in found[0].message


def test_results_that_do_not_reach_the_task_teacher() -> None:
    class Losing(TaughtVecEnv):
        def _finish(self, observations: Any, finished: Any, infos: Any) -> None:
            self.episodes.task_teacher, kept = Harder(), self.episodes.task_teacher
            super()._finish(observations, finished, infos)
            self.episodes.task_teacher = kept

    teacher = Harder()
    assert _found(check_curriculum(Losing(_dummy(4), teacher), teacher)) == [("error", "results")]


@KINDS
def test_a_distribution_that_never_changes(make: Any) -> None:
    found = check_curriculum(make(4), Harder(deaf=True))
    assert _found(found) == [("error", "change")]
    assert "let observe() change what propose() draws from" in found[0].message
    assert _found(check_curriculum(make(4), Harder(deaf=True), adapts=False)) == [("note", "change")]


def test_a_task_teacher_that_still_collects_is_no_error() -> None:
    teacher = make_task_teacher("alp-gmm", Walk.task_space, np.random.default_rng(0))
    found = check_curriculum(_dummy(4), teacher, steps=400)
    assert _found(found) == [("note", "change")]
    assert "check more steps" in found[0].message


@KINDS
def test_episodes_that_depend_on_the_number_of_environments(make: Any) -> None:
    shared = np.random.default_rng(0)

    class Sharing(Walk):
        def draw(self) -> float:
            return float(shared.normal())

    found = check_curriculum(make(4), Harder(), make_venv=lambda n: make(n, Sharing))
    assert _found(found) == [("error", "number")]
    assert "in 4 of 4 environments" in found[0].message
