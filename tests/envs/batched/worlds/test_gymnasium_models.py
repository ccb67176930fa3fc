"""Hopper and Walker2d against Gymnasium's own environments."""

import gymnasium
import numpy as np
import pytest
import torch

from tutelage.envs.batched.worlds.gymnasium_models import Hopper, Walker2d


@pytest.mark.parametrize(("task_class", "env_id"), [(Hopper, "Hopper-v5"), (Walker2d, "Walker2d-v5")])
def test_same_states_and_actions_give_gymnasiums_observations_rewards_and_ends(task_class, env_id):
    n, rng = 4, np.random.default_rng(0)
    task = task_class(n, integrator="RK4", threads=1)
    task.auto_reset = False
    task.start(torch.arange(n), np.full((n, 1), 9.81), seeds=range(n))
    envs = [gymnasium.make(env_id).unwrapped for _ in range(n)]
    for i, env in enumerate(envs):
        env.reset(seed=0)
        env.set_state(task.sim.batch.bind("qpos")[i].copy(), task.sim.batch.bind("qvel")[i].copy())
    running, ends = np.ones(n, dtype=bool), 0
    for _ in range(60):
        actions = rng.uniform(-1, 1, (n, task.num_actions)).astype(np.float32)
        obs_dict, rewards, resets, _ = task.step(torch.from_numpy(actions))
        for i, env in enumerate(envs):
            if not running[i]:
                continue
            observation, reward, terminated, _, _ = env.step(actions[i])
            np.testing.assert_allclose(obs_dict["obs"][i].numpy(), observation, rtol=1e-4, atol=2e-4)
            assert rewards[i].item() == pytest.approx(reward, abs=2e-3)
            assert bool(resets[i]) == terminated
            running[i] = not terminated
            ends += terminated
    assert ends >= 2  # random actions fall soon; a comparison without ends would prove little


def test_gravity_of_each_environment_is_its_task():
    task = Hopper(3, threads=1)
    task.start(torch.arange(3), np.array([[5.0], [9.81], [15.0]]))
    gravity = task.sim.read_model("opt.gravity")
    torch.testing.assert_close(gravity[:, 2], torch.tensor([-5.0, -9.81, -15.0]))
    torch.testing.assert_close(gravity[:, :2], torch.zeros(3, 2))
