"""A batched task as a Gymnasium vector environment, and a batch of one as an environment."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from tutelage.envs import TaskError, check_task_env
from tutelage.envs.batched.adaptors.gymnasium_env import GymnasiumVecTask, SingleVecTask
from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.worlds.stump_walker import StumpWalker

PUSH = np.ones((3, 1), dtype=np.float32)


def single(sliding_mass: Any, **options: Any) -> SingleVecTask:
    return SingleVecTask(sliding_mass(1, threads=1), **options)


def test_vector_spaces_and_metadata(sliding_mass: Any) -> None:
    env = GymnasiumVecTask(sliding_mass(3, threads=1))
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.single_observation_space.shape == (3,)
    assert env.observation_space.shape == (3, 3)
    assert env.single_action_space.shape == (1,)
    observations, infos = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert env.task_space.contains(infos["task"]).all()
    observations, rewards, terminations, truncations, _ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observations)
    assert (rewards.dtype, terminations.dtype, truncations.dtype) == (np.float64, np.bool_, np.bool_)


def test_dict_views(sliding_mass: Any) -> None:
    env = GymnasiumVecTask(sliding_mass(3, threads=1), views=("privileged", "raw"))
    observations, _ = env.reset(seed=0, options={"task": [0.5, 1.0]})
    assert env.observation_space.contains(observations)
    for _ in range(5):
        observations, _, ends, _, infos = env.step(PUSH)
        if ends.any():
            break
    assert set(infos["final_obs"][np.flatnonzero(ends)[0]]) == {"privileged", "raw"}
    with pytest.raises(ValueError, match="view 'privilegd'; did you mean 'privileged'"):
        GymnasiumVecTask(sliding_mass(1, threads=1), views=("privilegd",))


def test_ends_look_as_in_a_sync_vector_env(sliding_mass: Any) -> None:
    """The same episodes through Gymnasium's own vectoriser give the same arrays, masks and final infos."""
    ours = GymnasiumVecTask(sliding_mass(3, threads=1))
    make: Callable[[], gymnasium.Env[Any, Any]] = lambda: single(sliding_mass)  # noqa: E731
    theirs = SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    actions = np.array([[1.0], [0.6], [0.0]], dtype=np.float32)
    task = [0.5, 1.0]
    np.testing.assert_array_equal(
        ours.reset(seed=5, options={"task": task})[0], theirs.reset(seed=5, options={"task": task})[0]
    )
    for step in range(1, 5):
        a, b = ours.step(actions), theirs.step(actions)
        if step < 4:
            for x, y in zip(a[:4], b[:4], strict=True):
                np.testing.assert_array_equal(x, y)
            assert set(a[4]) == set(b[4]) == {"task", "_task"}
    # after four steps the first is at its goal: its observation is the next episode's, of a random task
    for x, y in zip(a[1:4], b[1:4], strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a[0][1:], b[0][1:])
    np.testing.assert_array_equal(a[2], [True, False, False])
    assert set(a[4]) == set(b[4])
    np.testing.assert_array_equal(a[4]["final_obs"][0], b[4]["final_obs"][0])
    assert a[4]["final_obs"].dtype == b[4]["final_obs"].dtype == object
    assert a[4]["final_obs"][1] is None
    np.testing.assert_array_equal(a[4]["_final_obs"], b[4]["_final_obs"])
    assert set(a[4]["final_info"]) == set(b[4]["final_info"])
    for name, values in a[4]["final_info"].items():
        np.testing.assert_array_equal(values, b[4]["final_info"][name])
    assert a[4]["final_info"]["success"].tolist() == [True, False, False]
    assert not np.array_equal(a[4]["task"][0], task)


def test_vector_reset_options_and_seeds(sliding_mass: Any) -> None:
    env = GymnasiumVecTask(sliding_mass(3, threads=1))
    tasks = [[0.5, 1.0], [0.6, 2.0], [0.7, 3.0]]
    first, infos = env.reset(seed=7, options={"tasks": tasks})
    np.testing.assert_array_equal(infos["task"], tasks)
    again, _ = env.reset(seed=[7, 8, 9], options={"tasks": tasks})
    np.testing.assert_array_equal(first, again)
    other, _ = env.reset(options={"tasks": tasks})
    assert not np.array_equal(first, other)
    seeded, infos = env.reset(seed=7)
    np.testing.assert_array_equal(env.reset(seed=7)[0], seeded)
    with pytest.raises(ValueError, match="2 seeds were given for 3"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match=r"seed\[1\] is None: give a seed to every environment"):
        env.reset(seed=[1, None, 3])
    for name in ("task", "tasks"):
        with pytest.raises(ValueError, match=f"option '{name}' is None: leave it out"):
            env.reset(options={name: None})
    with pytest.raises(ValueError, match="exclude each other"):
        env.reset(options={"task": tasks[0], "tasks": tasks})
    with pytest.raises(ValueError, match="unknown reset option 'taks'; did you mean 'tasks'"):
        env.reset(options={"taks": [0.5, 1.0]})
    with pytest.raises(TaskError, match=r"goal = 9\.0"):
        env.reset(options={"task": [9.0, 1.0]})


def test_gymnasium_wrappers_go_around(sliding_mass: Any) -> None:
    env = DictInfoToList(RecordEpisodeStatistics(GymnasiumVecTask(sliding_mass(3, threads=1))))
    env.reset(seed=0, options={"task": [0.5, 1.0]})
    for _ in range(12):
        *_, infos = env.step(np.array([[1.0], [0.0], [0.0]]))
    assert infos[1]["episode"]["l"] == 12
    assert not infos[1]["final_info"]["success"]


def test_single_is_a_task_environment(sliding_mass: Any) -> None:
    warnings = check_task_env(single(sliding_mass))
    assert all("infinity" in warning for warning in warnings)  # positions have no bounds
    with pytest.warns(UserWarning, match="infinity"):
        check_env(single(sliding_mass), skip_render_check=True)


def test_stump_walker_is_a_task_environment() -> None:
    env = SingleVecTask(StumpWalker(1, threads=1), render_mode="rgb_array")
    assert all("infinity" in warning for warning in check_task_env(env))
    picture = env.render()
    assert picture is not None
    assert picture.shape == (160, 240, 3)
    assert picture.std() > 5  # there is something to see


def test_single_episode_equals_its_row_of_a_batch(sliding_mass: Any) -> None:
    env, batch = single(sliding_mass), GymnasiumVecTask(sliding_mass(3, threads=1, seed=4))
    rng = np.random.default_rng(0)
    tasks = batch.task_space.sample(rng, 3)
    for options, batch_options in (({"task": tasks[1]}, {"tasks": tasks}), ({}, {})):
        first, info = env.reset(seed=12, options=options)
        firsts, infos = batch.reset(seed=11, options=batch_options)
        np.testing.assert_array_equal(first, firsts[1])
        np.testing.assert_array_equal(info["task"], infos["task"][1])
        for _ in range(12):
            actions = rng.uniform(-1, 1, (3, 1))
            observation, reward, terminated, truncated, info = env.step(actions[1])
            observations, rewards, terminations, truncations, infos = batch.step(actions)
            assert (reward, terminated, truncated) == (rewards[1], terminations[1], truncations[1])
            if terminated or truncated:
                np.testing.assert_array_equal(observation, infos["final_obs"][1])
                assert info["success"] == infos["final_info"]["success"][1]
                break
            np.testing.assert_array_equal(observation, observations[1])
        assert terminated or truncated


def test_single_without_a_seed_draws_from_np_random(sliding_mass: Any) -> None:
    env = single(sliding_mass)

    def episodes() -> list[Any]:
        env.reset(seed=3)
        return [np.concatenate([env.reset()[0], env.unwrapped.vec_task.tasks[0]]) for _ in range(3)]

    once, again = episodes(), episodes()
    np.testing.assert_array_equal(once, again)
    assert len({tuple(row) for row in once}) == 3


def test_single_info_and_copies(sliding_mass: Any) -> None:
    env = single(sliding_mass, views=("raw",))
    observation, info = env.reset(seed=0, options={"task": [0.5, 1.0]})
    kept = {"raw": observation["raw"].copy()}
    for _ in range(3):
        _, _, terminated, _, info = env.step(np.ones(1))
        assert not terminated
        assert set(info) == {"task"}
    np.testing.assert_array_equal(observation["raw"], kept["raw"])  # "raw" is the simulator's own memory
    _, _, terminated, truncated, info = env.step(np.ones(1))
    assert (terminated, truncated, info["success"], info["diverged"]) == (True, False, True, False)


def test_adaptors_of_one_task_do_not_disturb_each_other(sliding_mass: Any) -> None:
    """Each sets how finished environments go on in its own steps."""
    task = sliding_mass(1, threads=1)
    batch, one = GymnasiumVecTask(task), SingleVecTask(task)
    batch.reset(seed=0)
    for _ in range(13):  # of 12 steps
        batch.step(np.zeros((1, 1)))
    assert task.progress_buf.tolist() == [1]
    one.reset(seed=0)
    for _ in range(12):
        *_, truncated, _ = one.step(np.zeros(1))
    assert truncated
    assert task.progress_buf.tolist() == [12]


def test_several_environments_are_no_single_one(sliding_mass: Any) -> None:
    with pytest.raises(ValueError, match="use GymnasiumVecTask"):
        SingleVecTask(sliding_mass(2, threads=1))
    with pytest.raises(ValueError, match="unknown render_mode 'human'"):
        single(sliding_mass, render_mode="human")


class Painter:
    """A renderer that paints the mass's position."""

    def __init__(self, sim: Any, configs: list[CameraConfig]) -> None:
        self.sim, self.config = sim, configs[0]

    def render(self, rows: Any = None) -> dict[str, torch.Tensor]:
        picture = torch.zeros(1, self.config.height, self.config.width, 3, dtype=torch.uint8)
        picture[:] = int(100 * float(self.sim.read("qpos")[0, 0]) + 100)
        return {f"{self.config.camera}/rgb": picture}


def test_render_draws_the_present_state(sliding_mass: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.envs.batched.adaptors.gymnasium_env.make_cameras", Painter)
    env = single(sliding_mass, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before is not None
    assert before.shape == (160, 240, 3)
    for _ in range(3):
        env.step(np.ones(1))
    after = env.render()
    assert after is not None
    assert after[0, 0, 0] > before[0, 0, 0]
    assert single(sliding_mass).render() is None
    assert env.metadata["render_fps"] == 25  # four steps of 0.01 s
    with pytest.warns(UserWarning, match="infinity"):
        check_env(env)
