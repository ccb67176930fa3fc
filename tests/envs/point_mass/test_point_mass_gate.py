"""The point mass: dynamics by hand, one and many environments alike, and what SB3 and Gymnasium ask for."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from tutelage.envs.contract.noise import next_keys, normals, stream_keys, uniforms
from tutelage.envs.contract.state import StateError, load_state, save_state
from tutelage.envs.contract.tasks import TaskError
from tutelage.envs.point_mass import gate_physics
from tutelage.envs.point_mass.point_mass_gate import (
    EASY,
    TARGET,
    PointMassGate,
    PointMassGateVecEnv,
    target_test_tasks,
    task_box,
    uniform_test_tasks,
)

WIDE = [0.0, 8.0]


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise, so that trajectories can be written down."""
    monkeypatch.setattr(gate_physics, "NOISE_STD", 0.0)


def drive(env: PointMassGate, actions: NDArray[Any]) -> list[tuple[Any, ...]]:
    came = []
    for action in actions:
        came.append(env.step(action))
        if came[-1][2] or came[-1][3]:
            break
    return came


# ---------------------------------------------------------------- dynamics


@pytest.mark.usefixtures("calm")
def test_one_step_by_hand() -> None:
    env = PointMassGate()
    env.reset(seed=0, options={"task": WIDE})
    (observation, reward, terminated, truncated, _) = env.step(np.array([0.2, -1.0], dtype=np.float32))
    # forces 2 and -10; ten Euler steps of 0.01 s: v = 1.5 F 0.1, x = 1.5 F 0.01^2 (0 + 1 + ... + 9)
    vx, vy = 1.5 * 2 * 0.1, 1.5 * -10 * 0.1
    x, y = 1.5 * 2 * 1e-4 * 45, 3 + 1.5 * -10 * 1e-4 * 45
    assert np.allclose(observation, [x / 4, vx / 10, y / 4, vy / 10, 0, 1], atol=1e-6)
    assert reward == pytest.approx(math.exp(-0.6 * math.hypot(x, y + 3)), abs=1e-7)
    assert (terminated, truncated) == (False, False)


@pytest.mark.usefixtures("calm")
def test_friction_slows_by_hand() -> None:
    env = PointMassGate(friction=True)
    env.reset(seed=0, options={"task": [0, 8, 4]})
    observation = env.step(np.array([1.0, 0.0]))[0]
    x = v = 0.0
    for _ in range(10):
        x, v = x + 0.01 * v, v + 0.01 * (1.5 * 10 - 4 * v)
    assert np.allclose(observation[:2], [x / 4, v / 10], atol=1e-6)
    assert observation[-1] == 1.0  # friction 4 of [0, 4]


@pytest.mark.usefixtures("calm")
def test_positions_stay_in_the_room_and_velocities_within_the_observation_space() -> None:
    env = PointMassGate()
    env.reset(seed=0, options={"task": WIDE})
    came = drive(env, np.full((100, 2), [1.0, 1.0]))
    assert came[-1][0][0] == came[-1][0][2] == 1.0
    # nothing brakes: v = 1.5 * 10 * 10 s
    assert came[-1][0][1] * 10 == pytest.approx(150.0, rel=1e-5)
    assert env.observation_space.contains(came[-1][0])


@pytest.mark.usefixtures("calm")
def test_a_crash_ends_the_episode_at_the_wall() -> None:
    env = PointMassGate()
    env.reset(seed=0, options={"task": [2.5, 0.5]})
    came = drive(env, np.full((100, 2), [0.0, -1.0]))
    observation, reward, terminated, truncated, info = came[-1]
    assert np.allclose(observation[:4], 0.0)  # at x = 0, y = 0, at rest
    assert reward == pytest.approx(math.exp(-0.6 * 3))
    assert (terminated, truncated, info["success"]) == (True, False, False)
    # 3 = 15 / 2 t^2 after 0.63 s, in the 7th step
    assert len(came) == 7


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(("position", "crash"), [(0.24, False), (0.26, True), (-0.24, False), (-0.26, True)])
def test_the_gate_is_as_wide_as_it_says(position: float, crash: bool) -> None:
    env = PointMassGate()
    env.reset(seed=0, options={"task": [position, 0.5]})
    assert drive(env, np.full((8, 2), [0.0, -1.0]))[-1][2] is crash


def test_the_crossing_is_interpolated_and_the_first_bad_one_counts() -> None:
    physics = gate_physics.GatePhysics(task_box(), 3)
    physics.start(np.arange(3), np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), stream_keys(range(3)))
    path = np.zeros((11, 2, 3))
    path[:, 1] = 1.0
    # 0: crosses from (0.2, 0.3) to (0.6, -0.1): x = 0.2 + 0.4 * 0.3 / 0.4 = 0.5, on the post: no crash
    path[4:, :, 0] = [0.6, -0.1]
    path[3, :, 0] = [0.2, 0.3]
    # 1: from (0.2, 0.3) to (0.61, -0.1): x = 0.2 + 0.41 * 0.75 = 0.5075: crash
    path[4:, :, 1] = [0.61, -0.1]
    path[3, :, 1] = [0.2, 0.3]
    # 2: down through the gate, up again outside of it at x = 2, down at x = 3: crash at 2
    path[2:5, :, 2] = [0.0, -1.0]
    path[5, :, 2], path[6, :, 2], path[7:, :, 2] = [2.0, -1.0], [2.0, 1.0], [3.0, 1.0]
    path[8:, :, 2] = [3.0, -1.0]
    physics._path[:] = path
    physics.position[:] = path[-1]
    assert physics._stop_at_wall().tolist() == [False, True, True]
    assert np.allclose(physics.position, [[0.6, 0.5075, 2.0], [-0.1, 0.0, 0.0]])


def test_upward_crossings_crash_too() -> None:
    physics = gate_physics.GatePhysics(task_box(), 1)
    physics.start(np.arange(1), np.array([[2.0, 1.0]]), stream_keys([0]))
    physics.position[:], physics.velocity[:] = [[0.0], [-0.1]], [[0.0], [5.0]]
    assert physics.step([[0.0, 0.0]])[1].tolist() == [True]


def test_noise_has_the_strength_of_the_papers() -> None:
    physics = gate_physics.GatePhysics(task_box(), 4000)
    physics.start(np.arange(4000), np.tile(WIDE, (4000, 1)), stream_keys(range(4000)))
    physics.step(np.zeros((4000, 2)))
    # velocity after ten substeps: sum of ten N(0, 0.05) * 0.01, standard deviation sqrt(10) * 5e-4
    assert physics.velocity.std() == pytest.approx(math.sqrt(10) * 5e-4, rel=0.03)
    assert abs(physics.velocity.mean()) < 5 * math.sqrt(10) * 5e-4 / math.sqrt(8000)


def test_noise_of_successive_steps_is_independent() -> None:
    physics = gate_physics.GatePhysics(task_box(), 4000)
    physics.start(np.arange(4000), np.tile(WIDE, (4000, 1)), stream_keys(range(4000)))
    kicks = [np.zeros((2, 4000))]
    for _ in range(4):
        physics.step(np.zeros((4000, 2)))
        kicks.append(physics.velocity - np.sum(kicks, axis=0))
    correlations = np.corrcoef(np.concatenate(kicks[1:]))
    assert np.abs(correlations - np.eye(8)).max() < 5 / math.sqrt(4000)


@pytest.mark.parametrize(("x", "success"), [(0.0, True), (0.24, True), (0.26, False)])
@pytest.mark.usefixtures("calm")
def test_success_is_to_be_near_the_goal_at_the_end(x: float, success: bool) -> None:
    env = PointMassGate()
    env.reset(seed=0, options={"task": WIDE})
    env._physics.position[:] = [[x], [-3.0]]
    came = drive(env, np.zeros((100, 2)))
    assert len(came) == 100
    assert (came[-1][2], came[-1][3]) == (False, True)
    assert came[-1][4]["success"] is success
    assert all("success" not in step[4] for step in came[:-1])
    # it does not move: 100 times the reward there
    assert sum(step[1] for step in came) == pytest.approx(100 * math.exp(-0.6 * x))


# ---------------------------------------------------------------- one and many


@given(seed=st.integers(0, 2**70), friction=st.booleans(), n=st.integers(1, 5), data=st.data())
@settings(max_examples=15, deadline=None)
def test_one_episode_is_the_same_alone_and_in_a_batch(seed: int, friction: bool, n: int, data: Any) -> None:
    row = data.draw(st.integers(0, n - 1))
    rng = np.random.default_rng(seed)
    task = task_box(friction).sample(rng, 1)
    actions = rng.uniform(-1, 1, (60, n, 2)).astype(np.float32)
    many, one = PointMassGateVecEnv(n, friction=friction, seed=3), PointMassGate(friction=friction)
    many.auto_reset = False
    others = many.task_space.sample(rng, n)
    many.start(np.arange(n), others)
    first = many.start(np.array([row]), task, [seed])[0]
    alone, info = one.reset(seed=seed, options={"task": task[0]})
    assert np.array_equal(first, alone)
    assert np.array_equal(info["task"], task[0])
    for action in actions:
        observations, rewards, dones, infos = many.step(action)
        observation, reward, terminated, truncated, info = one.step(action[row])
        assert np.array_equal(observations[row], observation)
        assert rewards[row] == np.float32(reward)
        assert dones[row] == (terminated or truncated)
        if dones[row]:
            assert infos[row]["success"] == info["success"]
            assert infos[row]["TimeLimit.truncated"] == truncated
            assert np.array_equal(infos[row]["task"], info["task"])
            assert np.array_equal(infos[row]["terminal_observation"], observation)
            break
        ended = np.flatnonzero(dones)
        if ended.size:
            many.start(ended, many.task_space.sample(rng, len(ended)))


def test_an_environment_does_not_depend_on_its_neighbours() -> None:
    """Automatic resets draw tasks and noise from each environment's own stream."""
    actions = np.random.default_rng(0).uniform(-1, 1, (150, 8, 2))
    few, many = PointMassGateVecEnv(3, seed=5), PointMassGateVecEnv(8, seed=5)
    assert np.array_equal(few.reset(), many.reset()[:3])
    tasks = []
    for action in actions:
        one, two = few.step(action[:3]), many.step(action)
        for a, b in zip(one[:3], two[:3], strict=True):
            assert np.array_equal(a, b[:3])
        tasks += [info["task"].tolist() for info in two[3] if info]
    assert len(tasks) >= 10
    assert len(np.unique(tasks, axis=0)) == len(tasks)
    assert many.task_space.contains(tasks).all()


def test_automatically_drawn_tasks_are_uniform() -> None:
    env = PointMassGateVecEnv(4000, friction=True, seed=0)
    env.reset()
    unit = env.task_space.to_unit([info["task"] for info in env.reset_infos])
    # uniform on [0, 1]: mean 1/2, standard deviation 1/sqrt(12) = 0.2887
    assert np.allclose(unit.mean(axis=0), 0.5, atol=5 * 0.2887 / math.sqrt(4000))
    assert np.allclose(unit.std(axis=0), 0.2887, atol=0.01)
    assert np.abs(np.corrcoef(unit.T) - np.eye(3)).max() < 5 / math.sqrt(4000)


def test_without_automatic_resets_the_end_is_shown_and_a_start_is_asked_for() -> None:
    env = PointMassGateVecEnv(3, seed=0)
    env.auto_reset = False
    env.start(np.arange(3), np.array([[2.5, 0.5], WIDE, WIDE]), [1, 2, 3])
    for _ in range(7):
        observations, _, dones, infos = env.step(np.full((3, 2), [0.0, -1.0]))
    assert dones.tolist() == [True, False, False]
    assert np.allclose(observations[0, :4], 0.0, atol=0.001)  # lies at the wall; x is moved by noise only
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[1] == infos[2] == {}
    with pytest.raises(RuntimeError, match=r"environments \[0\] wait for a task; .*start"):
        env.step(np.zeros((3, 2)))
    first = env.start(np.array([0]), np.array([[1.0, 2.0]]), [7])
    # position 1 of [-4, 4] is 0.25; width 2 of [0.5, 8] is 2 * 1.5 / 7.5 - 1 = -0.6
    assert np.allclose(first, [[0, 0, 0.75, 0, 0.25, -0.6]])
    assert env.reset_infos[0]["task"].tolist() == [1.0, 2.0]
    assert not env.step(np.zeros((3, 2)))[2].any()


def test_with_automatic_resets_the_new_episode_is_shown() -> None:
    env = PointMassGateVecEnv(2, seed=0)
    env.reset()
    env.start(np.array([0]), np.array([[2.5, 0.5]]))
    for _ in range(7):
        observations, _, dones, infos = env.step(np.full((2, 2), [0.0, -1.0]))
    assert dones[0]
    assert observations[0, :4].tolist() == [0, 0, 0.75, 0]
    assert infos[0]["task"].tolist() == [2.5, 0.5]
    assert np.allclose(infos[0]["terminal_observation"][:4], 0.0, atol=0.001)
    assert env.reset_infos[0]["task"].tolist() != [2.5, 0.5]


def test_seeds_and_options_of_sb3_are_used_once() -> None:
    env = PointMassGateVecEnv(4)
    env.seed(10)
    env.set_options({"task": [1.0, 3.0]})
    env.reset()
    assert all(info["task"].tolist() == [1.0, 3.0] for info in env.reset_infos)
    env.seed(10)
    once = env.reset()
    env.seed(10)
    assert np.array_equal(env.reset(), once)
    assert not np.array_equal(env.reset(), once)
    assert np.array_equal(PointMassGateVecEnv(4, seed=3).reset(), PointMassGateVecEnv(4, seed=3).reset())
    assert not np.array_equal(
        PointMassGateVecEnv(4, seed=0).reset(), PointMassGateVecEnv(4, seed=0 + 4).reset()
    )
    assert not np.array_equal(PointMassGateVecEnv(4).reset(), PointMassGateVecEnv(4).reset())  # fresh entropy


@pytest.mark.parametrize("friction", [False, True])
def test_saved_batches_continue_exactly(friction: bool, tmp_path: Any) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (120, 5, 2))
    env = PointMassGateVecEnv(5, friction=friction, seed=0)
    env.reset()
    for action in actions[:50]:
        env.step(action)
    save_state(tmp_path / "env", env.state_dict())
    other = PointMassGateVecEnv(5, friction=friction, seed=99)
    other.load_state_dict(load_state(tmp_path / "env"))
    for action in actions[50:]:
        for a, b in zip(env.step(action)[:3], other.step(action)[:3], strict=True):
            assert np.array_equal(a, b)


def test_states_that_do_not_fit_are_refused() -> None:
    state = PointMassGateVecEnv(2, seed=0).state_dict()
    with pytest.raises(StateError, match="the state has 2 environments, this one 3"):
        PointMassGateVecEnv(3).load_state_dict(state)
    with pytest.raises(StateError, match="same task parameters"):
        PointMassGateVecEnv(2, friction=True).load_state_dict(state)
    with pytest.raises(StateError, match="no state of point-mass"):
        PointMassGateVecEnv(2).load_state_dict({"a": 1})


def test_mistakes_are_named() -> None:
    env = PointMassGateVecEnv(2, seed=0)
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step(np.zeros((2, 2)))
    with pytest.raises(TaskError, match="width = 9"):
        env.start(np.array([0]), np.array([[0.0, 9.0]]))
    with pytest.raises(TaskError, match="1 tasks for 2 environments"):
        env.start(np.array([0, 1]), np.array([[0.0, 4.0]]))
    with pytest.raises(ValueError, match="need at least 1"):
        PointMassGateVecEnv(0)
    one = PointMassGate()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
        one.step(np.zeros(2, dtype=np.float32))
    with pytest.raises(TaskError, match=r"options\['task'\]: width = nan"):
        one.reset(options={"task": [0.0, np.nan]})
    with pytest.raises(TaskError, match="shape"):
        one.reset(options={"task": [0.0, 1.0, 0.0]})


# ---------------------------------------------------------------- tasks and noise


def test_test_sets_are_fixed_and_inside_the_box() -> None:
    assert uniform_test_tasks().shape == (100, 2)
    # cell centres: -4 + 8 * 0.05 = -3.6 and 0.5 + 7.5 * 0.05 = 0.875
    assert np.allclose(uniform_test_tasks()[0], [-3.6, 0.875])
    assert uniform_test_tasks(friction=True).shape == (300, 3)
    assert sorted({round(f, 6) for f in uniform_test_tasks(friction=True)[:, 2]}) == [0.666667, 2.0, 3.333333]
    assert target_test_tasks().shape == (50, 2)
    for friction in (False, True):
        target = target_test_tasks(friction)
        assert task_box(friction).contains(target).all()
        assert np.allclose(target.mean(axis=0), TARGET.mean[: 3 if friction else 2], atol=0.004)
        assert np.array_equal(target_test_tasks(friction, 7), target[:7])
    assert target_test_tasks()[0].tolist() == pytest.approx([2.505041, 0.500837], abs=1e-6)


def test_easy_tasks_have_the_published_mean_and_are_clipped() -> None:
    tasks = EASY.sample(task_box(friction=True), np.random.default_rng(0), 20_000)
    assert task_box(friction=True).contains(tasks).all()
    # symmetric box about the mean, clipped at two standard deviations on either side
    assert np.allclose(tasks.mean(axis=0), [0, 4.25, 2], atol=0.05)
    assert (tasks[:, 0] == 4).mean() == pytest.approx(0.0228, abs=0.005)


def test_noise_streams_are_splitmix64() -> None:
    # first three outputs of SplitMix64 with seed 1234567, as published with its reference implementation
    from tutelage.envs.contract.noise import _outputs

    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert _outputs(np.array([1234567], dtype=np.uint64), 0, 3)[:, 0].tolist() == expected
    assert _outputs(np.array([1234567], dtype=np.uint64), 2, 1).item() == expected[2]


def test_noise_is_normal_and_addressed_by_position() -> None:
    keys = stream_keys(range(1000))
    numbers = normals(keys, 0, 25)
    assert numbers.shape == (100, 1000)
    # 100,000 numbers: standard errors of mean, variance and kurtosis are 1, sqrt(2), sqrt(24) over sqrt(1e5)
    assert abs(numbers.mean()) < 5 / math.sqrt(1e5)
    assert abs(numbers.var() - 1) < 5 * math.sqrt(2 / 1e5)
    assert abs((numbers**4).mean() - 3) < 5 * math.sqrt(96 / 1e5)
    assert np.abs(np.corrcoef(numbers) - np.eye(100)).max() < 6 / math.sqrt(1000)
    # outputs 10 to 14 of all are the same numbers when asked for alone
    assert np.array_equal(normals(keys, 10, 5), numbers.reshape(4, 25, 1000)[:, 10:15].reshape(20, 1000))
    assert np.array_equal(normals(keys[7:8], 3, 2)[:, 0], normals(keys, 3, 2)[:, 7])
    firsts = np.array([1, 4], dtype=np.uint64)
    assert np.array_equal(uniforms(keys[:2], firsts, 1)[0, 1], uniforms(keys[:2], 4, 1)[0, 1])
    assert ((uniforms(keys, 0, 3) >= 0) & (uniforms(keys, 0, 3) < 1)).all()


def test_streams_of_seeds_and_their_successors_differ() -> None:
    keys = [stream_keys([*range(500), 2**64, 2**70 + 1])]
    for _ in range(3):
        keys.append(next_keys(keys[-1]))
    # 2**64 and 0 are the same seed modulo 2**64, as are 2**70 + 1 and 1; all else differs
    assert len(np.unique(np.concatenate(keys))) == 4 * 500


# ---------------------------------------------------------------- other people's checks


@pytest.mark.parametrize("friction", [False, True])
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasium_and_sb3_find_nothing(friction: bool, render_mode: str | None) -> None:
    env = gymnasium.make(
        "tutelage.envs:tutelage/PointMassGate-v0", friction=friction, render_mode=render_mode
    ).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check(env)
        sb3_check(env)


def test_pictures_show_gate_mass_and_way() -> None:
    env = PointMassGate(render_mode="rgb_array")
    env.reset(seed=0, options={"task": [1.0, 2.0]})
    before = env.render()
    assert before is not None
    assert (before.shape, before.dtype) == ((400, 400, 3), np.uint8)
    wall = before[200].mean(axis=-1) < 100  # 50 pixels a unit: the gate is from x = 0 to 2, pixels 200 to 300
    assert wall[:198].all()
    assert not wall[203:297].any()
    assert wall[303:].all()
    for _ in range(4):
        env.step(np.array([1.0, 0.0]))
    after = env.render()
    assert after is not None
    # started at x = 0, y = 3: pixel (50, 200); the way leads to the right
    assert (after[45:56, 215:225] != before[45:56, 215:225]).any()
    assert PointMassGate().render() is None
    many = PointMassGateVecEnv(4, seed=0, render_mode="rgb_array")
    many.reset()
    tiled = many.render()
    assert tiled is not None
    assert tiled.shape == (800, 800, 3)


def test_sb3_learns_on_it_behind_its_wrappers() -> None:
    inner = PointMassGateVecEnv(16, seed=0)
    env = VecNormalize(VecMonitor(inner, info_keywords=("success",)), norm_obs=False, gamma=0.99)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=2, seed=0, device="cpu")
    model.learn(3 * 16 * 64)
    assert model.ep_info_buffer
    for episode in model.ep_info_buffer:
        assert 0 < episode["l"] <= 100
        assert 0 < episode["r"] <= 100
        assert episode["success"] in (True, False)
    assert env.get_attr("task_space") == [inner.task_space] * 16
    assert env.env_is_wrapped(VecMonitor) == [False] * 16


@pytest.mark.parametrize("friction", [False, True])
def test_restored_rows_go_on_bit_for_bit_whatever_their_neighbours_do(friction: bool) -> None:
    original, other = PointMassGateVecEnv(4, friction, seed=3), PointMassGateVecEnv(6, friction, seed=99)
    original.auto_reset = other.auto_reset = False
    original.reset()
    other.reset()
    rng = np.random.default_rng(0)
    for _ in range(7):  # rows of the other have taken other steps, and other numbers of them
        original.step(rng.uniform(-1, 1, (4, 2)))
    other.step(rng.uniform(-1, 1, (6, 2)))
    state = original.save_rows(np.array([2, 0]))
    original_now = original._physics.observations()
    observations = other.restore_rows(np.array([1, 5]), state)
    np.testing.assert_array_equal(observations, original_now[[2, 0]])
    assert other.reset_infos[5]["task"].tolist() == original._physics.tasks[0].tolist()
    for _ in range(40):
        actions, noise = rng.uniform(-1, 1, (4, 2)), rng.uniform(-1, 1, (6, 2))
        noise[[1, 5]] = actions[[2, 0]]
        ours, theirs = original.step(actions), other.step(noise)
        for part in range(3):
            np.testing.assert_array_equal(ours[part][[2, 0]], theirs[part][[1, 5]])
        for venv, result in ((original, ours), (other, theirs)):
            ended = np.flatnonzero(result[2])
            if len(ended):  # next episodes begin from their own streams: the same ones for restored rows
                venv.start(ended, np.tile(venv.task_space.high, (len(ended), 1)))
    np.testing.assert_array_equal(original._physics.keys[[2, 0]], other._physics.keys[[1, 5]])


def test_rows_are_saved_by_value_and_checked() -> None:
    venv = PointMassGateVecEnv(3, seed=0)
    venv.reset()
    state = venv.save_rows(np.array([1]))
    venv.step(np.ones((3, 2)))
    assert state["steps"].tolist() == [0]
    with pytest.raises(StateError, match="the state has 1 environments, this one 2"):
        venv.restore_rows(np.array([0, 1]), state)
    with pytest.raises(StateError, match="same task parameters"):
        PointMassGateVecEnv(3, friction=True).restore_rows(np.array([0]), state)
