"""One contract for every environment that can be named on the command line."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from tutelage.envs import BoxTasks, TaskError, check_task_env
from tutelage.envs.catalogue import WORLDS
from tutelage.experiments.worlds.catalogue import (
    build_task_teacher,
    make_eval_venv,
    make_venv,
    task_env_card,
)
from tutelage.teachers import TASK_TEACHERS


@pytest.mark.parametrize("name", WORLDS)
def test_checkers_pass(name: str) -> None:
    card = task_env_card(name)
    check_task_env(card.make(None))
    gymnasium_check(card.make("rgb_array"), skip_render_check=False)
    sb3_check(card.make(None))


@pytest.mark.parametrize("name", WORLDS)
def test_test_sets_are_fixed_and_inside_the_task_space(name: str) -> None:
    card = task_env_card(name)
    space = card.task_space()
    for label, tasks in card.test_sets().items():
        assert space.contains(tasks).all()
        np.testing.assert_array_equal(tasks, task_env_card(name).test_sets()[label])
        assert len(tasks) >= 50
    assert card.picture_test_set in card.test_sets()


@pytest.mark.parametrize("name", WORLDS)
def test_knowledge_fits_the_task_space(name: str) -> None:
    card = task_env_card(name)
    space = card.task_space()
    assert isinstance(space, BoxTasks)
    if card.knowledge is None:  # then the task teachers that need some refuse it by name
        with pytest.raises(ValueError, match="needs expert knowledge"):
            build_task_teacher("adr", card, space, np.random.default_rng(0))
        return
    assert space.contains([card.knowledge.easy_task, card.knowledge.target_mean]).all()
    assert len(card.knowledge.easy_std) == len(card.knowledge.target_std) == space.dim


@pytest.mark.parametrize("name", WORLDS)
def test_same_seed_and_task_same_episode_single_and_vectorised(name: str) -> None:
    card = task_env_card(name)
    task = card.test_sets()[card.picture_test_set][7]
    env = card.make(None)
    venv = make_venv(card, 3)
    venv.auto_reset = False  # type: ignore[attr-defined]
    first, info = env.reset(seed=11, options={"task": task})
    np.testing.assert_array_equal(info["task"], task)
    rows = venv.start(np.arange(3), np.stack([task] * 3), [5, 11, 6])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(rows[1], first)
    rng = np.random.default_rng(0)
    for _ in range(40):
        action = rng.uniform(-1, 1, (3, *env.action_space.shape)).astype(np.float32)  # type: ignore[misc]
        observation, reward, terminated, truncated, _ = env.step(action[1])
        observations, rewards, dones, _ = venv.step(action)
        np.testing.assert_array_equal(observations[1], observation)
        assert rewards[1] == np.float32(reward)
        assert dones[1] == (terminated or truncated)
        if dones.any():
            break


@pytest.mark.parametrize("name", WORLDS)
def test_tasks_out_of_the_space_are_refused(name: str) -> None:
    card = task_env_card(name)
    space = card.task_space()
    assert isinstance(space, BoxTasks)
    for bad in (space.high + 1, np.full(space.dim, np.nan), space.low[:-1]):
        with pytest.raises(TaskError):
            card.make(None).reset(options={"task": bad})


@pytest.mark.parametrize("name", WORLDS)
def test_pictures_and_evaluation_environments(name: str) -> None:
    card = task_env_card(name)
    env = card.make("rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert np.ptp(picture) > 50
    assert make_eval_venv(card).task_space == card.task_space()


@pytest.mark.parametrize(
    "name", ["tutelage/StumpTracks-v0", "tutelage/HexagonTracks-v0", "tutelage/PointMassGate-v0"]
)
def test_gymnasium_ids(name: str) -> None:
    for path in (name, f"tutelage.envs:{name}"):
        observation, info = gym.make(path).reset(seed=0)
        assert np.isfinite(observation).all()
        assert "task" in info


def test_names_of_environments_and_task_teachers_are_those_of_the_readme() -> None:
    assert {"point-mass-gate", "stump-tracks", "hexagon-tracks"} <= set(WORLDS)
    names = {"random", "target", "oracle", "adr", "riac", "covar-gmm", "alp-gmm", "geo-curriculum"}
    assert names == set(TASK_TEACHERS)
