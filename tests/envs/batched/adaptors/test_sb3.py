"""Batched tasks as SB3 vector environments, with and without a task teacher."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
from tutelage.envs.batched.worlds.stump_walker import StumpWalker
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.proposals import Proposals
from tutelage.envs.contract.tasks import TaskError
from tutelage.envs.teaching.taught import TaughtVecEnv
from tutelage.students.sb3.evaluation import evaluate

PUSH = np.array([[1.0], [0.0], [0.5]], dtype=np.float32)


class Listing:
    """A task teacher that proposes goals 0.50, 0.51, ... for a mass of 1 kg, and remembers what it saw."""

    def __init__(self) -> None:
        self.next, self.seen = 0, []

    def propose(self, n: int) -> np.ndarray:
        self.next += n
        return np.array([[0.5 + 0.01 * ((self.next - n + i) % 50), 1.0] for i in range(n)])

    def observe(self, episodes: Episodes) -> None:
        self.seen.append(episodes)

    def metrics(self) -> dict[str, float]:
        return {}


def test_ends_are_told_apart(sliding_mass: Any) -> None:
    venv = SB3VecTask(sliding_mass(3, threads=1))
    everyone = np.arange(3)
    venv.start(everyone, np.array([[0.5, 1.0]] * 3), [0, 1, 2])
    ends: dict[int, Any] = {}
    for step in range(1, 13):
        observations, rewards, dones, infos = venv.step(np.array([[1.0], [0.0], [-1.0]]))
        assert observations.dtype == rewards.dtype == np.float32
        assert dones.dtype == np.bool_
        for i in np.flatnonzero(dones):
            info = infos[i]
            ends.setdefault(i, (step, info["TimeLimit.truncated"], info["success"], info["diverged"]))
            if step == ends[i][0]:
                np.testing.assert_array_equal(info["task"], [0.5, 1.0])
                goal_distance = info["terminal_observation"][2]
                assert (goal_distance <= 0) == (i == 0)
                assert abs(observations[i, 0]) <= 0.1  # the next episode's first
        assert all(infos[i] == {} for i in np.flatnonzero(~dones))
    assert ends == {
        0: (4, False, True, False),
        1: (12, True, False, False),
        2: (6, False, False, False),
    }


def test_a_step_does_not_change_earlier_results(sliding_mass: Any) -> None:
    venv = SB3VecTask(sliding_mass(3, threads=1), views=("policy", "raw"))
    first = venv.reset()
    results = [first, *venv.step(PUSH)[:2]]
    before = copy.deepcopy(results)
    venv.step(PUSH)
    for now, then in zip(results, before, strict=True):
        np.testing.assert_equal(now, then)


def test_start_in_any_order_returns_just_those(sliding_mass: Any) -> None:
    venv = SB3VecTask(sliding_mass(3, threads=1))
    venv.reset()
    first = venv.start(np.array([2, 0]), np.array([[0.7, 1.0], [0.9, 2.0]]), [5, 6])
    np.testing.assert_allclose(first[:, 0] + first[:, 2], [0.7, 0.9], rtol=1e-6)  # x and goal - x
    assert venv.vec_task.tasks[[2, 0]].tolist() == [[0.7, 1.0], [0.9, 2.0]]
    alone = SB3VecTask(sliding_mass(1, threads=1))
    np.testing.assert_array_equal(alone.start(np.arange(1), np.array([[0.7, 1.0]]), [5])[0], first[0])


def test_a_seeded_reset_repeats(sliding_mass: Any) -> None:
    venv = SB3VecTask(sliding_mass(3, threads=1))
    venv.seed(4)
    first, tasks = venv.reset(), venv.vec_task.tasks.clone()
    second = venv.reset()
    venv.seed(4)
    np.testing.assert_array_equal(venv.reset(), first)
    assert torch.equal(venv.vec_task.tasks, tasks)
    np.testing.assert_array_equal(venv.reset(), second)
    assert not np.array_equal(first, second)


def test_options_choose_tasks_for_one_reset(sliding_mass: Any) -> None:
    venv = SB3VecTask(sliding_mass(3, threads=1))
    venv.set_options({"task": [0.5, 1.0]})
    venv.reset()
    assert venv.vec_task.tasks.tolist() == [[0.5, 1.0]] * 3
    venv.seed(3)
    venv.set_options([{}, {"task": [0.7, 2.0]}, {"task": [0.8, 3.0]}])
    first = venv.reset()
    assert venv.vec_task.tasks[1:].tolist() == [[0.7, 2.0], [0.8, 3.0]]
    assert venv.vec_task.tasks[0].tolist() != [0.5, 1.0]
    np.testing.assert_allclose(first[1:, 0] + first[1:, 2], [0.7, 0.8], rtol=1e-6)  # x and goal - x
    assert venv.vec_task.progress_buf.tolist() == [0, 0, 0]
    drawn = venv.vec_task.tasks[0].clone()
    venv.reset()  # options hold for one reset alone
    assert not bool((venv.vec_task.tasks[1:] == torch.tensor([[0.7, 2.0], [0.8, 3.0]])).any())
    venv.seed(3)
    venv.reset()
    assert torch.equal(venv.vec_task.tasks[0], drawn)  # the options of others change nothing


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"taks": [0.5, 1.0]}, ValueError, "unknown reset option 'taks'; did you mean 'task'"),
        ([{"task": [0.5, 1.0]}], ValueError, "1 dicts for 3 environments"),
        ({"task": [9.0, 1.0]}, TaskError, r"goal = 9\.0"),
    ],
)
def test_wrong_options_are_named_and_forgotten(
    sliding_mass: Any, options: Any, error: type[Exception], message: str
) -> None:
    venv = SB3VecTask(sliding_mass(3, threads=1))
    before = venv.vec_task.tasks.clone()
    venv.set_options(options)
    with pytest.raises(error, match=message):
        venv.reset()
    assert torch.equal(venv.vec_task.tasks, before)
    venv.reset()


def test_a_task_teacher_drives_it_without_lag(sliding_mass: Any) -> None:
    teacher = Listing()
    venv = TaughtVecEnv(SB3VecTask(sliding_mass(3, threads=1)), teacher)
    assert venv.starter.lag == 0
    observations = venv.reset()
    np.testing.assert_allclose(observations[:, 0] + observations[:, 2], [0.5, 0.51, 0.52], rtol=1e-6)
    running = venv.tasks.copy()
    proposed = 3
    for _ in range(40):
        observations, _, dones, infos = venv.step(PUSH)
        finished = np.flatnonzero(dones)
        for k, i in enumerate(finished):
            np.testing.assert_array_equal(infos[i]["task"], running[i])
            # what runs next is what was proposed after this episode ended
            goal = 0.5 + 0.01 * ((proposed + k) % 50)
            assert observations[i, 0] + observations[i, 2] == pytest.approx(goal, rel=1e-5)
            running[i] = [goal, 1.0]
        proposed += len(finished)
        assert teacher.next == proposed
        np.testing.assert_array_equal(venv.venv.vec_task.tasks, venv.tasks)  # type: ignore[attr-defined]
    assert sum(len(episodes) for episodes in teacher.seen) == proposed - 3 > 10
    assert all(episodes.successes[0] in (0.0, 1.0) for episodes in teacher.seen)
    teacher.propose = lambda n: np.full((n, 2), 99.0)  # type: ignore[method-assign]
    with pytest.raises(TaskError, match="Listing"):
        venv.reset()


def test_taught_episodes_resume_exactly(sliding_mass: Any) -> None:
    def make() -> tuple[TaughtVecEnv, Listing]:
        teacher = Listing()
        return TaughtVecEnv(SB3VecTask(sliding_mass(3, threads=1)), teacher), teacher

    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.5, 1, (40, 3, 1)).astype(np.float32)
    venv, teacher = make()
    venv.reset()
    for step in range(10):
        venv.step(actions[step])
    state, proposed = copy.deepcopy(venv.state_dict()), teacher.next
    going_on = [venv.step(actions[step]) for step in range(10, 40)]
    assert sum(int(dones.sum()) for _, _, dones, _ in going_on) > 5

    other, teacher = make()
    other.reset()
    teacher.next = proposed
    other.load_state_dict(state)
    for step in range(10, 40):
        observations, rewards, dones, infos = other.step(actions[step])
        expected = going_on[step - 10]
        for ours, theirs in zip((observations, rewards, dones), expected[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(infos, expected[3], strict=True):
            for info in (ours, theirs):
                info.get("episode", {}).pop("t", None)  # wall-clock time
            np.testing.assert_equal(ours, theirs)


def test_horizons_cut_its_episodes_off_without_success(sliding_mass: Any) -> None:
    class Brief(Listing):
        def propose(self, n: int) -> Any:
            return Proposals(super().propose(n), np.arange(self.next - n, self.next) % 3 + 2)

    teacher = Brief()
    venv = TaughtVecEnv(SB3VecTask(sliding_mass(3, threads=1)), teacher)
    observations = venv.reset()
    assert venv.horizons.tolist() == [2, 3, 4]
    for step in range(1, 5):
        goals = observations[:, 0] + observations[:, 2]
        observations, _, dones, infos = venv.step(np.zeros((3, 1), dtype=np.float32))
        # 2, then proposal 3 (2 steps, from step 3 on); 3; 4
        assert dones.tolist() == [step in (2, 4), step == 3, step == 4]
        for i in np.flatnonzero(dones):
            assert infos[i]["TimeLimit.truncated"]
            assert infos[i]["success"] is False
            last = infos[i]["terminal_observation"]
            assert last[0] + last[2] == pytest.approx(goals[i], rel=1e-5)  # of the episode that ended
        np.testing.assert_array_equal(venv.venv.vec_task.tasks, venv.tasks)  # type: ignore[attr-defined]
    assert [e.ids.tolist() for e in teacher.seen] == [[0], [1], [3, 2]]  # in the order of environments
    assert venv.venv.vec_task.progress_buf.tolist() == [0, 1, 0]  # type: ignore[attr-defined]


class Images:
    """Pictures of every kind, of one pixel more each time."""

    def __init__(self, n: int) -> None:
        self.rgb = torch.zeros(n, 36, 36, 3, dtype=torch.uint8)
        self.depth = torch.full((n, 36, 36), torch.inf)
        self.segmentation = torch.full((n, 36, 36), -1, dtype=torch.int32)

    def render(self, rows: Any = None) -> dict[str, torch.Tensor]:
        self.rgb += 1
        return {"front/rgb": self.rgb, "front/depth": self.depth, "front/segmentation": self.segmentation}


def test_dict_views_and_images_train(sliding_mass: Any) -> None:
    task = sliding_mass(3, threads=1)
    task.cameras = Images(3)
    task.reset()
    names = ("policy", "front/rgb", "front/depth", "front/segmentation")
    venv = SB3VecTask(task, views=names)
    assert {name: space.dtype for name, space in venv.observation_space.spaces.items()} == {  # type: ignore[attr-defined]
        "policy": np.float32,
        "front/rgb": np.uint8,
        "front/depth": np.float32,
        "front/segmentation": np.int32,
    }
    first = venv.reset()
    assert all(venv.observation_space[name].contains(view[0]) for name, view in first.items())  # type: ignore[index]
    model = PPO("MultiInputPolicy", SB3VecTask(task, names[:2]), n_steps=8, batch_size=24, n_epochs=1, seed=0)
    model.learn(48)
    assert model.num_timesteps == 48
    with pytest.raises(ValueError, match="view 'front/rbg'; did you mean 'front/rgb'"):
        SB3VecTask(task, views=("front/rbg",))


def test_ppo_learns_to_push_under_a_task_teacher(sliding_mass: Any) -> None:
    """Success of the untrained policy is chance; after a few thousand steps it is near certain."""
    venv = VecNormalize(TaughtVecEnv(SB3VecTask(sliding_mass(64, threads=1)), Listing()))
    kwargs: dict[str, Any] = {"net_arch": [32], "log_std_init": -0.5}
    model = PPO(
        "MlpPolicy", venv, n_steps=16, batch_size=256, learning_rate=3e-3, seed=0, policy_kwargs=kwargs
    )
    test = SB3VecTask(sliding_mass(64, threads=1))
    tasks = Listing().propose(50)
    before = evaluate(model, test, tasks).successes.mean()
    model.learn(10_000)
    after = evaluate(model, test, tasks).successes.mean()
    assert before < 0.3
    assert after > 0.9


def test_ppo_trains_on_stump_walker() -> None:
    venv = VecNormalize(SB3VecTask(StumpWalker(16, threads=1)))
    model = PPO("MlpPolicy", venv, n_steps=16, batch_size=128, n_epochs=1, seed=0)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(2 * 256)
    assert model.num_timesteps == 512
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.policy.parameters())
