"""The taught `gymnasium.vector` environment over every kind and autoreset mode."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from tutelage.envs.batched.adaptors.gymnasium_env import GymnasiumVecTask
from tutelage.envs.batched.worlds.catalogue import make_vec_task
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.proposals import Proposals
from tutelage.envs.contract.starting import TaskQueue
from tutelage.envs.contract.tasks import BoxTasks, TaskError
from tutelage.envs.contract.taught_gymnasium import TaughtGymnasiumVectorEnv, episode_seed


class Countdown(gym.Env[Any, Any]):
    """Ends after ``ceil(task)`` steps of reward `task`; observed are task, steps, wind and seed."""

    observation_space = spaces.Box(-1e9, 1e10, (4,), np.float64)
    action_space = spaces.Discrete(2)
    task_space = BoxTasks({"length": (0.5, 9.5)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        options = options or {}
        self.task = np.array(options.get("task", [-9.0]))
        self.extras = [options.get("wind", -1.0), -1.0 if seed is None else float(seed)]
        self.steps = 0
        self.over = False
        return self._observation(), {"task": self.task.copy()}

    def step(self, action: Any) -> Any:
        assert not self.over
        self.steps += 1
        self.over = bool(self.steps >= self.task[0])
        info = {"success": bool(self.task[0] > 5)} if self.over else {}
        return self._observation(), float(self.task[0]), self.over, False, info

    def _observation(self) -> Any:
        return np.array([self.task[0], self.steps, *self.extras], dtype=np.float64)


class Listing:
    """A task teacher that proposes 1, 2, ... 9, 1, ..., with a horizon where it has one."""

    def __init__(self, horizon: int | None = None) -> None:
        self.next, self.horizon, self.seen = 0, horizon, []

    def propose(self, n: int) -> Any:
        tasks = 1.0 + (self.next + np.arange(n)[:, None]) % 9
        self.next += n
        return tasks if self.horizon is None else Proposals(tasks, np.full(n, self.horizon))

    def observe(self, episodes: Episodes) -> None:
        self.seen.append(episodes)

    def metrics(self) -> dict[str, float]:
        return {}


def _sync(mode: str) -> VectorEnv:
    return SyncVectorEnv([Countdown] * 3, autoreset_mode=mode)


def _async(mode: str) -> VectorEnv:
    return AsyncVectorEnv([lambda: TaskQueue(Countdown())] * 3, autoreset_mode=mode, context="fork")


@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("make", [_sync, _async], ids=["sync", "async"])
def test_task_seed_and_options_arrive_at_every_reset(make: Any, mode: str, horizon: int | None) -> None:
    teacher = Listing(horizon)
    envs = TaughtGymnasiumVectorEnv(make(mode), teacher, seed_episodes=True)
    same_step = mode != "NextStep"
    assert envs.metadata["autoreset_mode"] is (
        AutoresetMode.SAME_STEP if same_step else AutoresetMode.NEXT_STEP
    )
    lag = int(make is _async and mode == "SameStep")
    observations, infos = envs.reset(seed=5, options={"wind": 3.0})
    seeds = [episode_seed(5, i) for i in range(3)]
    np.testing.assert_array_equal(observations, [[i + 1, 0, 3, seeds[i]] for i in range(3)])
    np.testing.assert_array_equal(infos["task"], [[1], [2], [3]])
    waiting = np.zeros(3, dtype=bool)
    ended_ids: list[int] = []
    for _ in range(40):
        before, ids, tasks = observations, envs.ids.copy(), envs.tasks[:, 0].copy()
        observations, rewards, terminations, truncations, infos = envs.step(np.zeros(3, dtype=int))
        np.testing.assert_array_equal(rewards, np.where(waiting, 0, tasks))
        limit = tasks if horizon is None else np.minimum(tasks, horizon)
        ends = ~waiting & (before[:, 1] + 1 == limit)
        np.testing.assert_array_equal(terminations | truncations, ends)
        np.testing.assert_array_equal(truncations, ends & (tasks > limit))
        fresh = ends if same_step else waiting
        for i in np.flatnonzero(fresh):  # the first observation of a proposed task, its seed and the options
            number = int(envs.ids[i])
            assert observations[i].tolist() == [number % 9 + 1, 0, 3, episode_seed(5, number)]
            assert infos["_task"][i]
            assert infos["task"][i] == number % 9 + 1
        for i in np.flatnonzero(ends):
            last = infos["final_info"] if same_step else infos
            final = infos["final_obs"][i] if same_step else observations[i]
            assert final.tolist() == [tasks[i], limit[i], 3, episode_seed(5, int(ids[i]))]
            assert last["_proposal_id"][i]
            assert last["proposal_id"][i] == ids[i]
            assert last["task"][i] == tasks[i]
            ended_ids.append(int(ids[i]))
        if same_step and ends.any():
            assert not infos.get("_success", np.zeros(3, dtype=bool)).any()
        waiting = ends if not same_step else waiting
    seen = [np.concatenate([getattr(e, n) for e in teacher.seen]) for n in ("ids", "lengths", "returns")]
    tasks = seen[0] % 9 + 1
    assert seen[0].tolist() == ended_ids
    assert len(set(ended_ids)) == len(ended_ids) > 15
    np.testing.assert_array_equal(seen[1], tasks if horizon is None else np.minimum(tasks, horizon))
    np.testing.assert_array_equal(seen[2], seen[1] * tasks)
    successes = np.concatenate([e.successes for e in teacher.seen])
    np.testing.assert_array_equal(successes, (tasks > 5) & (seen[1] == tasks))
    assert teacher.next == len(ended_ids) + 3 * (1 + lag)
    envs.close()


def test_seeds_without_seed_episodes_are_for_the_first_episodes() -> None:
    envs = TaughtGymnasiumVectorEnv(_sync("SameStep"), Listing())
    observations, _ = envs.reset(seed=7)
    assert observations[:, 3].tolist() == [7, 8, 9]
    observations = envs.step(np.zeros(3, dtype=int))[0]  # task 1 ends after one step
    assert observations[:, 3].tolist() == [-1, 8, 9]


def test_started_counts_no_resets_as_steps() -> None:
    teacher = Listing()
    envs = TaughtGymnasiumVectorEnv(_sync("NextStep"), teacher)
    envs.reset()
    for _ in range(8):
        envs.step(np.zeros(3, dtype=int))
    # Environment 0: task 1 in step 1, reset in step 2, task 4 from step 3. Before step 3 three environments
    # have taken step 1, and two of them step 2: environments 1's task 2 has ended then.
    assert [(e.ids.tolist(), e.started.tolist()) for e in teacher.seen[:4]] == [
        ([0], [0]),
        ([1], [0]),
        ([2], [0]),
        ([3], [5]),
    ]


@pytest.mark.parametrize("horizon", [None, 5])
def test_natively_vectorised_tasks(horizon: int | None) -> None:
    class Goals(Listing):
        def propose(self, n: int) -> Any:
            tasks = self.space.sample(np.random.default_rng(self.next), n)
            self.next += n
            return tasks if self.horizon is None else Proposals(tasks, np.full(n, self.horizon))

    task = make_vec_task("reach", num_envs=3, threads=1)
    teacher = Goals(horizon)
    teacher.space = task.task_space
    envs = TaughtGymnasiumVectorEnv(GymnasiumVecTask(task), teacher)
    envs.reset(seed=0)
    for step in range(1, 13 if horizon else task.max_episode_length + 2):
        tasks, ids = envs.tasks.copy(), envs.ids.copy()
        np.testing.assert_array_equal(task.tasks.numpy(), tasks)
        progress = task.progress_buf.numpy().copy()
        observations, _, terminations, truncations, infos = envs.step(np.zeros((3, task.num_actions)))
        np.testing.assert_array_equal(observations, task.obs_dict["obs"].numpy())
        ended = terminations | truncations
        if horizon:
            np.testing.assert_array_equal(ended, np.full(3, step % 5 == 0))
        for i in np.flatnonzero(ended):
            final = infos["final_info"]
            assert final["proposal_id"][i] == ids[i]
            np.testing.assert_array_equal(final["task"][i], tasks[i])
            np.testing.assert_array_equal(infos["task"][i], envs.tasks[i])
            assert not np.array_equal(infos["final_obs"][i], observations[i])
            assert teacher.seen[-1].lengths.max() == progress[i] + 1
    assert sum(map(len, teacher.seen)) >= 3
    assert not np.isnan(np.concatenate([e.successes for e in teacher.seen])).any()
    state = envs.state_dict()
    assert state["ids"].tolist() == envs.ids.tolist()
    envs.load_state_dict(state)
    with pytest.raises(ValueError, match="takes no reset options but tasks"):
        envs.reset(options={"wind": 1.0})


def test_wrappers_go_around() -> None:
    teacher = Listing()
    envs = RecordEpisodeStatistics(TaughtGymnasiumVectorEnv(_sync("NextStep"), teacher))
    envs.reset()
    recorded = []
    for _ in range(30):
        infos = envs.step(np.zeros(3, dtype=int))[4]
        if "episode" in infos:
            recorded += infos["episode"]["r"][infos["_episode"]].tolist()
    assert recorded == np.concatenate([e.returns for e in teacher.seen]).tolist()
    with pytest.raises(TypeError, match=r"RecordEpisodeStatistics\(TaughtGymnasiumVectorEnv"):
        TaughtGymnasiumVectorEnv(RecordEpisodeStatistics(_sync("NextStep")), teacher)


def test_what_cannot_be_taught_is_refused_with_the_cure() -> None:
    plain = AsyncVectorEnv([Countdown] * 2, context="fork")
    with pytest.raises(TypeError, match=r"AsyncVectorEnv\(\[lambda: TaskQueue\(make_env\(\)\)\] \* n\)"):
        TaughtGymnasiumVectorEnv(plain, Listing())
    plain.close()
    foreign = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point")
    with pytest.raises(TypeError, match="CartPoleVectorEnv cannot be given tasks"):
        TaughtGymnasiumVectorEnv(foreign, Listing())
    with pytest.raises(ValueError, match="no `task_space`"):
        TaughtGymnasiumVectorEnv(gym.make_vec("CartPole-v1", 2, vectorization_mode="sync"), Listing())
    envs = TaughtGymnasiumVectorEnv(_sync("NextStep"), Listing())
    with pytest.raises(ValueError, match="'task' is not for users"):
        envs.reset(options={"task": [1.0]})
    with pytest.raises(ValueError, match="2 seeds were given for 3 environments"):
        envs.reset(seed=[1, 2])

    class Bad(Listing):
        def propose(self, n: int) -> Any:
            return np.full((n, 1), 99.0)

    with pytest.raises(TaskError, match="proposed by Bad"):
        TaughtGymnasiumVectorEnv(_sync("NextStep"), Bad()).reset()
