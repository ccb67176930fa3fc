"""The taught vector environment over every kind of SB3 `VecEnv`."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from tutelage.envs.contract.bookkeeping import NO_HORIZON
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.proposals import Proposals
from tutelage.envs.contract.state import load_state, save_state
from tutelage.envs.contract.tasks import BoxTasks, TaskError
from tutelage.envs.contract.taught import TaskQueue, TaughtVecEnv
from tutelage.envs.contract.vector import GymTaskVecEnv
from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv
from tutelage.students.sb3.evaluation import evaluate


class Countdown(gym.Env[Any, Any]):
    """Ends after ``ceil(task)`` steps of reward `task`; observed are the task and the steps so far."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)
    task_space = BoxTasks({"length": (0.5, 9.5)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        given = options["task"] if options and "task" in options else [5.0]
        self.task = self.task_space.check([given])[0]
        self.steps = 0
        self.resets = getattr(self, "resets", 0) + 1
        return self._observation(), {"task": self.task}

    def step(self, action: Any) -> Any:
        self.steps += 1
        ended = self.steps >= self.task[0]
        info = {"task": self.task, **({"success": self.task[0] > 5} if ended else {})}
        return self._observation(), float(self.task[0]), ended, False, info

    def _observation(self) -> Any:
        return np.array([self.task[0], self.steps], dtype=np.float32)


class Listing:
    """A task teacher that proposes 1.0, 2.0, ... 9.0, 1.0, ... and remembers what it saw."""

    def __init__(self) -> None:
        self.next, self.seen, self.calls = 0, [], []

    def propose(self, n: int) -> np.ndarray:
        self.calls.append(n)
        tasks = [[1.0 + (self.next + i) % 9] for i in range(n)]
        self.next += n
        return np.array(tasks)

    def observe(self, episodes: Episodes) -> None:
        self.seen.append(episodes)

    def metrics(self) -> dict[str, float]:
        return {}


def _dummy() -> DummyVecEnv:
    return DummyVecEnv([Countdown] * 3)


def _subproc() -> SubprocVecEnv:
    return SubprocVecEnv([lambda: TaskQueue(Countdown())] * 3, start_method="fork")


def _plain_subproc() -> SubprocVecEnv:
    return SubprocVecEnv([Countdown] * 3, start_method="fork")


class OtherDummy(DummyVecEnv):
    """A vector environment of somebody else's: not stepped by us."""


def _other() -> DummyVecEnv:
    return OtherDummy([Countdown] * 3)


@pytest.mark.parametrize(
    "make", [_dummy, _subproc, _plain_subproc, _other], ids=lambda f: f.__name__.strip("_")
)
def test_every_automatic_reset_starts_a_proposed_task(make: Any) -> None:
    teacher = Listing()
    venv = TaughtVecEnv(make(), teacher)
    observations = venv.reset()
    lag = venv.starter.lag
    assert lag == (make is _subproc)
    np.testing.assert_array_equal(observations, [[1, 0], [2, 0], [3, 0]])
    ended: list[float] = []
    for _ in range(60):
        running = venv.tasks[:, 0].copy()
        observations, rewards, dones, infos = venv.step(np.zeros(3, dtype=int))
        np.testing.assert_allclose(rewards, running)
        for i in np.flatnonzero(dones):
            assert infos[i]["terminal_observation"].tolist() == [running[i], running[i]]
            assert infos[i]["task"] == [running[i]]
            assert infos[i]["success"] is infos[i]["is_success"] is bool(running[i] > 5)
            # task t lasts t steps of reward t
            assert infos[i]["episode"]["r"] == running[i] ** 2
            assert infos[i]["episode"]["l"] == running[i]
            assert observations[i].tolist() == [venv.tasks[i, 0], 0]
            ended.append(running[i])
    seen = np.concatenate([e.tasks[:, 0] for e in teacher.seen])
    np.testing.assert_array_equal(seen, ended)
    np.testing.assert_array_equal(np.concatenate([e.returns for e in teacher.seen]), seen**2)
    np.testing.assert_array_equal(np.concatenate([e.lengths for e in teacher.seen]), seen)
    np.testing.assert_array_equal(np.concatenate([e.successes for e in teacher.seen]), seen > 5)
    # every proposal is running, queued or done: none is lost
    assert teacher.next == len(seen) + 3 * (1 + lag)
    venv.close()


def test_environments_that_end_together_are_taught_in_one_batch() -> None:
    class Same(Listing):
        def propose(self, n: int) -> np.ndarray:
            super().propose(n)
            return np.full((n, 1), 2.0)

    teacher = Same()
    venv = TaughtVecEnv(_dummy(), teacher)
    venv.reset()
    for _ in range(4):
        venv.step(np.zeros(3, dtype=int))
    assert teacher.calls == [3, 3, 3]
    assert [len(e) for e in teacher.seen] == [3, 3]


def test_dummy_environments_are_reset_once_for_each_episode() -> None:
    venv = TaughtVecEnv(_dummy(), Listing())
    venv.reset()
    finished = 0
    for _ in range(50):
        finished += int(venv.step(np.zeros(3, dtype=int))[2].sum())
    assert sum(venv.get_attr("resets")) == finished + 3


@pytest.mark.parametrize("bad", [np.nan, 10.0])
def test_bad_proposals_are_refused_by_name(bad: float) -> None:
    class Bad(Listing):
        def propose(self, n: int) -> np.ndarray:
            return np.full((n, 1), bad)

    with pytest.raises(TaskError, match=r"proposed by Bad: length = .* is outside \[0.5, 9.5\]"):
        TaughtVecEnv(_dummy(), Bad()).reset()


def test_too_few_proposals_are_refused() -> None:
    class Few(Listing):
        def propose(self, n: int) -> np.ndarray:
            return np.ones((n - 1, 1))

    with pytest.raises(ValueError, match=r"propose\(3\) returned 2 tasks"):
        TaughtVecEnv(_dummy(), Few()).reset()


def test_a_reward_that_is_not_a_number_is_named() -> None:
    class Broken(Countdown):
        def step(self, action: Any) -> Any:
            observation, _, ended, truncated, info = super().step(action)
            return observation, float("nan"), ended, truncated, info

    venv = TaughtVecEnv(DummyVecEnv([Broken]), Listing())
    venv.reset()
    with pytest.raises(ValueError, match=r"environment 0 gave the reward nan in step 1 of task"):
        venv.step(np.zeros(1, dtype=int))


def test_success_at_the_end_of_some_episodes_only_is_refused() -> None:
    class Sometimes(Countdown):
        def step(self, action: Any) -> Any:
            *rest, info = super().step(action)
            return *rest, info if info.get("success") else {}

    student = PPO("MlpPolicy", DummyVecEnv([Countdown]))
    with pytest.raises(ValueError, match="missing at others"):
        evaluate(student, GymTaskVecEnv([Sometimes] * 2), np.array([[4.0], [7.0]]))


def test_environments_may_change_the_tasks_they_are_given() -> None:
    class Careless(Countdown):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            assert options is not None
            result = super().reset(seed=seed, options={"task": options["task"].copy()})
            options["task"][:] = -1.0
            return result

    proposed = np.full((1, 1), 2.0)

    class Keeps(Listing):
        def propose(self, n: int) -> np.ndarray:
            return proposed

    venv = TaughtVecEnv(DummyVecEnv([Careless]), Keeps())
    venv.reset()
    infos = [venv.step(np.zeros(1, dtype=int))[3][0] for _ in range(2)]
    assert infos[-1]["task"] == [2.0]
    assert proposed == [[2.0]]


def test_wrappers_inside_are_refused_with_the_cure() -> None:
    with pytest.raises(TypeError, match=r"VecNormalize\(TaughtVecEnv\(DummyVecEnv"):
        TaughtVecEnv(VecNormalize(_dummy()), Listing())


def test_an_environment_without_task_space_is_refused() -> None:
    with pytest.raises(ValueError, match="no `task_space`"):
        TaughtVecEnv(DummyVecEnv([lambda: gym.make("CartPole-v1")]), Listing())


@pytest.mark.parametrize("wrap", [VecMonitor, VecNormalize])
def test_sb3_wrappers_around_and_unmodified_ppo(wrap: Any) -> None:
    teacher = Listing()
    venv = wrap(TaughtVecEnv(_dummy(), teacher))
    model = PPO("MlpPolicy", venv, n_steps=32, batch_size=32, n_epochs=1)
    model.learn(96)
    assert len(model.ep_info_buffer) == sum(len(e) for e in teacher.seen) > 0
    for info in model.ep_info_buffer:
        assert info["r"] == pytest.approx(info["l"] ** 2)


def test_batched_environments_meet_the_proposed_tasks() -> None:
    class Wide(Listing):
        def propose(self, n: int) -> np.ndarray:
            return np.column_stack([np.zeros(n), np.linspace(4, 8, n)])

    teacher = Wide()
    venv = TaughtVecEnv(PointMassGateVecEnv(5), teacher)
    venv.seed(3)
    venv.reset()
    for _ in range(150):
        venv.step(np.tile(np.float32([0, -0.5]), (5, 1)))
    seen = np.concatenate([e.tasks for e in teacher.seen])
    assert len(seen) >= 5
    assert (seen[:, 0] == 0).all()
    assert (seen[:, 1] >= 4).all()


def test_parked_environments_stand_still_until_started_again() -> None:
    venv = GymTaskVecEnv([Countdown] * 2)
    venv.auto_reset = False
    venv.start(np.arange(2), np.array([[3.0], [3.0]]))
    venv.park(0)
    observations, rewards, _, _ = venv.step(np.zeros(2, dtype=int))
    assert observations.tolist() == [[3, 0], [3, 1]]
    assert rewards.tolist() == [0, 3]
    venv.start(np.array([0]), np.array([[4.0]]))
    observations, rewards, _, _ = venv.step(np.zeros(2, dtype=int))
    assert observations.tolist() == [[4, 1], [3, 2]]


class Limiting(Listing):
    """Proposes tasks 1, 2, ... 9, cut off after 3 steps, every second one not to be learnt from."""

    def propose(self, n: int) -> Any:
        tasks = super().propose(n)
        even = tasks[:, 0] % 2 == 0
        kinds = np.where(even, "replay", "edited")
        return Proposals(tasks, np.full(n, 3), ~even, kinds)


@pytest.mark.parametrize(
    "make", [_dummy, _subproc, _plain_subproc, _other], ids=lambda f: f.__name__.strip("_")
)
def test_episodes_are_numbered_and_cut_off_at_their_horizons(make: Any) -> None:
    teacher = Limiting()
    venv = TaughtVecEnv(make(), teacher)
    observations = venv.reset()
    assert venv.ids.tolist() == [0, 1, 2]
    assert venv.horizons.tolist() == [3, 3, 3]
    assert venv.trains.tolist() == [True, False, True]
    assert venv.kinds.tolist() == ["edited", "replay", "edited"]
    met: list[int] = []
    for step in range(1, 25):
        tasks, ids = venv.tasks[:, 0].copy(), venv.ids.copy()
        before = observations.copy()
        observations, _, dones, infos = venv.step(np.zeros(3, dtype=int))
        np.testing.assert_array_equal(ids % 9 + 1, tasks)  # proposal i was task i % 9 + 1
        # task t ends by itself after t steps, or is cut off after 3
        np.testing.assert_array_equal(dones, before[:, 1] + 1 == np.minimum(tasks, 3))
        for i in np.flatnonzero(dones):
            assert infos[i]["proposal_id"] == ids[i]
            assert infos[i]["TimeLimit.truncated"] == (tasks[i] > 3)
            assert infos[i]["terminal_observation"].tolist() == [tasks[i], min(tasks[i], 3)]
            assert observations[i].tolist() == [venv.tasks[i, 0], 0]
            met.append(int(ids[i]))
        if dones.any():
            seen = teacher.seen[-1]
            assert seen.ids.tolist() == ids[dones].tolist()
            assert seen.environments.tolist() == np.flatnonzero(dones).tolist()
            np.testing.assert_array_equal(seen.started, 3 * (step - seen.lengths))
    assert len(met) == len(set(met)) > 20
    assert set(range(max(met))) - set(met) <= set(venv.ids.tolist())  # no number is lost
    everything = np.concatenate([e.successes for e in teacher.seen])
    # Countdown says success in its last step alone, False for tasks up to 5: cut episodes have none
    assert (everything == 0).all()
    venv.close()


def test_success_of_cut_episodes_is_unknown_where_no_episode_defines_it() -> None:
    class Silent(Countdown):
        def step(self, action: Any) -> Any:
            *rest, _ = super().step(action)
            return *rest, {}

    teacher = Limiting()
    venv = TaughtVecEnv(DummyVecEnv([Silent] * 3), teacher)
    venv.reset()
    for _ in range(12):
        venv.step(np.zeros(3, dtype=int))
    assert np.isnan(np.concatenate([e.successes for e in teacher.seen])).all()


def test_success_said_in_the_step_of_the_cut_counts() -> None:
    class Saying(Countdown):
        def step(self, action: Any) -> Any:
            *rest, _ = super().step(action)
            return *rest, {"success": self.steps == 3}

    teacher = Limiting()
    venv = TaughtVecEnv(DummyVecEnv([Saying] * 3), teacher)
    venv.reset()
    for _ in range(12):
        venv.step(np.zeros(3, dtype=int))
    for episodes in teacher.seen:
        np.testing.assert_array_equal(episodes.successes, episodes.lengths == 3)


def test_horizons_cut_batched_environments_off() -> None:
    class Short(Listing):
        def propose(self, n: int) -> Any:
            ids = self.next + np.arange(n)
            self.next += n
            return Proposals(np.tile([[0.0, 8.0]], (n, 1)), np.where(ids % 2, NO_HORIZON, 7))

    teacher = Short()
    venv = TaughtVecEnv(PointMassGateVecEnv(2, seed=0), teacher)
    venv.reset()
    ends = [np.flatnonzero(venv.step(np.zeros((2, 2)))[2]).tolist() for _ in range(14)]
    # environment 0 plays proposal 0 (7 steps), then 2 (7 steps); environment 1 plays 1 to its own end
    assert ends == [[]] * 6 + [[0]] + [[]] * 6 + [[0]]
    assert [e.successes.tolist() for e in teacher.seen] == [[0.0], [0.0]]
    assert [e.ids.tolist() for e in teacher.seen] == [[0], [2]]
    assert [e.started.tolist() for e in teacher.seen] == [[0], [14]]


def test_numbers_and_horizons_survive_saving(tmp_path: Path) -> None:
    class Short(Limiting):
        def propose(self, n: int) -> Any:
            proposals = super().propose(n)
            return Proposals(np.tile([[0.0, 8.0]], (n, 1)), 5 + proposals.tasks[:, 0], proposals.trains)

    def make() -> TaughtVecEnv:
        return TaughtVecEnv(PointMassGateVecEnv(3, seed=0), Short())

    venv = make()
    venv.reset()
    for _ in range(10):
        venv.step(np.ones((3, 2)))
    save_state(tmp_path / "state.npz", venv.state_dict())
    state, proposed = load_state(tmp_path / "state.npz"), venv.task_teacher.next
    later = make()
    later.task_teacher.next = proposed
    later.load_state_dict(state)
    for name in ("ids", "trains", "kinds", "horizons", "tasks"):
        np.testing.assert_array_equal(getattr(later, name), getattr(venv, name))
    for _ in range(30):
        ours, theirs = venv.step(np.ones((3, 2))), later.step(np.ones((3, 2)))
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[2], theirs[2])
    last, expected = later.task_teacher.seen[-1], venv.task_teacher.seen[-1]
    for name in ("ids", "environments", "started", "lengths", "returns"):
        np.testing.assert_array_equal(getattr(last, name), getattr(expected, name))


def test_a_state_without_numbers_of_proposals_still_loads() -> None:
    venv = TaughtVecEnv(PointMassGateVecEnv(2, seed=0), Limiting())
    old = {
        "environments": PointMassGateVecEnv(2, seed=0).state_dict(),
        "running": np.array([[0.0, 8.0], [1.0, 8.0]]),
        "returns": np.array([1.0, 2.0]),
        "lengths": np.array([4, 5]),
    }
    venv.load_state_dict(old)
    assert venv.tasks.tolist() == [[0.0, 8.0], [1.0, 8.0]]
    assert venv.ids.tolist() == [-1, -1]
    assert venv.trains.all()
    assert venv.horizons.tolist() == [NO_HORIZON] * 2
    episodes = venv.episodes.end(np.arange(2), np.zeros(2))
    assert episodes.lengths.tolist() == [4, 5]
    assert episodes.started.tolist() == [-1, -1]


def test_environments_that_cannot_be_saved_go_on_counting() -> None:
    venv = TaughtVecEnv(_dummy(), Listing())
    venv.reset()
    for _ in range(5):  # tasks 1, 2, 3 end after 1, 2 and 3 steps; task 4 takes 4
        venv.step(np.zeros(3, dtype=int))
    state = venv.state_dict()
    assert state == {"next_id": 7, "steps": 15, "defines_success": True}
    later = TaughtVecEnv(_dummy(), Listing())
    later.load_state_dict(state)
    later.reset()
    assert later.ids.tolist() == [7, 8, 9]
    later.step(np.zeros(3, dtype=int))
    assert later.task_teacher.seen[0].started.tolist() == [15]
