"""Batched tasks as environments of rsl_rl, whose own runner trains on them."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

rsl_rl_runners = pytest.importorskip("rsl_rl.runners")

from tutelage.envs.batched.adaptors.rsl_rl import RslRlVecTask  # noqa: E402
from tutelage.envs.batched.worlds.stump_walker import StumpWalker  # noqa: E402
from tutelage.envs.contract.episodes import Episodes  # noqa: E402
from tutelage.envs.contract.proposals import Proposals  # noqa: E402


def train_cfg(**actor: Any) -> dict[str, Any]:
    return {
        "num_steps_per_env": 8,
        "save_interval": 1000,
        "obs_groups": {"actor": ["policy"], "critic": ["privileged"]},
        "algorithm": {"class_name": "PPO", "num_learning_epochs": 2, "num_mini_batches": 2},
        "actor": {
            "class_name": "MLPModel",
            "hidden_dims": [16],
            "obs_normalization": True,
            "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 0.5},
            **actor,
        },
        "critic": {"class_name": "MLPModel", "hidden_dims": [16]},
    }


def learn(env: RslRlVecTask, cfg: dict[str, Any], iterations: int = 2) -> Any:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        runner = rsl_rl_runners.OnPolicyRunner(env, cfg, log_dir=None)
        before = [parameter.clone() for parameter in runner.alg.actor.parameters()]
        runner.learn(iterations, init_at_random_ep_len=True)
    assert any(not torch.equal(a, b) for a, b in zip(before, runner.alg.actor.parameters(), strict=True))
    return runner


def test_interface(sliding_mass: Any) -> None:
    env = RslRlVecTask(sliding_mass(3, threads=1))
    assert (env.num_envs, env.num_actions, env.max_episode_length) == (3, 1, 12)
    assert env.device == torch.device("cpu")
    observations = env.get_observations()
    assert observations.batch_size == (3,)
    assert set(observations.keys()) == {"policy", "privileged", "raw"}
    observations, rewards, dones, extras = env.step(torch.zeros(3, 1))
    assert observations["privileged"].shape == (3, 4)
    assert rewards.shape == dones.shape == extras["time_outs"].shape == (3,)
    assert set(RslRlVecTask(sliding_mass(1, threads=1), views=["raw"]).get_observations().keys()) == {"raw"}
    with pytest.raises(ValueError, match="did you mean 'privileged'"):
        RslRlVecTask(sliding_mass(1, threads=1), views=["privilege"])


def test_time_outs_and_logs(sliding_mass: Any) -> None:
    env = RslRlVecTask(sliding_mass(3, threads=1))
    env.vec_task.start(torch.arange(3), [[0.5, 1.0]] * 3, [0, 1, 2])
    env.episode_length_buf = torch.tensor([0, 8, 0])
    for step in range(1, 5):
        assert env.episode_length_buf.tolist() == [step - 1, 7 + step, step - 1]
        _, _, dones, extras = env.step(torch.tensor([[1.0], [0.0], [0.0]]))
        assert ("log" in extras) == (step == 4)
    # the first reaches its goal in the 4th step, the second's time is over after 8 + 4 of 12
    assert dones.tolist() == [1, 1, 0]
    assert extras["time_outs"].tolist() == [False, True, False]
    assert extras["log"]["episode/success"] == 0.5
    assert env.episode_length_buf.tolist() == [0, 0, 4]


class Recorder:
    """A task teacher that proposes one task, for at most 5 steps, and keeps what it observes."""

    def __init__(self, task: list[float]) -> None:
        self.task = np.array([task])
        self.proposed = 0
        self.seen: list[Episodes] = []

    def propose(self, n: int) -> Proposals:
        self.proposed += n
        return Proposals(np.repeat(self.task, n, 0), horizon=np.full(n, 5))

    def observe(self, episodes: Episodes) -> None:
        self.seen.append(episodes)


def test_a_task_teacher_drives_the_runner() -> None:
    """16 steps of 4 environments are 3 episodes of 5 in each, and one that goes on."""
    env = RslRlVecTask(StumpWalker(4, threads=1))
    recorder = Recorder([0.1] * env.vec_task.task_space.dim)
    env.vec_task.teach(recorder)  # type: ignore[arg-type]
    env.vec_task.reset()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        rsl_rl_runners.OnPolicyRunner(env, train_cfg(), log_dir=None).learn(2)
    assert recorder.proposed == 4 + 12
    assert [episodes.ids.tolist() for episodes in recorder.seen] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    for number, episodes in enumerate(recorder.seen):
        assert set(episodes.lengths) == {5}
        assert set(episodes.started) == {5 * 4 * number}
        assert (episodes.tasks == 0.1).all()
        assert np.isfinite(episodes.returns).all()
    assert env.episode_length_buf.tolist() == [1] * 4


def test_returns_are_sums_of_rewards(sliding_mass: Any) -> None:
    env, recorder = RslRlVecTask(sliding_mass(2, threads=1)), Recorder([0.5, 1.0])
    env.vec_task.teach(recorder)  # type: ignore[arg-type]
    env.vec_task.reset()
    sums = torch.zeros(2, dtype=torch.float64)
    for _ in range(5):
        _, rewards, dones, _ = env.step(torch.tensor([[0.3], [-0.2]]))
        sums += rewards
    assert dones.tolist() == [1, 1]
    np.testing.assert_array_equal(recorder.seen[0].returns, sums)


def test_results_are_kept_by_later_steps(sliding_mass: Any) -> None:
    env = RslRlVecTask(sliding_mass(3, threads=1))
    first = env.get_observations()  # its "raw" would be the simulator's own memory
    kept = [first["raw"], first["policy"], *env.step(torch.ones(3, 1))[1:3]]
    copies = [tensor.clone() for tensor in kept]
    for _ in range(3):
        env.step(torch.ones(3, 1))
    env.vec_task.reset_buf.fill_(1)
    for now, then in zip(kept, copies, strict=True):
        assert torch.equal(now, then)


def test_the_task_can_be_used_after_inference_mode(sliding_mass: Any) -> None:
    env = RslRlVecTask(sliding_mass(3, threads=1))
    with torch.inference_mode():
        for _ in range(15):
            observations, *_ = env.step(torch.ones(3, 1))
    assert not observations["policy"].is_inference()
    for _ in range(15):
        env.vec_task.step(torch.ones(3, 1))
    env.vec_task.load_state_dict(env.vec_task.state_dict())


def test_it_resets_whatever_another_adaptor_left(sliding_mass: Any) -> None:
    env = RslRlVecTask(sliding_mass(2, threads=1))
    env.vec_task.auto_reset = False
    for _ in range(13):
        env.step(torch.zeros(2, 1))
    assert env.episode_length_buf.tolist() == [1, 1]  # of 12 steps


def test_runner_trains_on_stump_walker() -> None:
    env = RslRlVecTask(StumpWalker(16, threads=1))
    runner = learn(env, train_cfg())
    actions = runner.get_inference_policy()(env.get_observations())
    assert actions.shape == (16, 4)
    assert bool(torch.isfinite(actions).all())
    assert runner.alg.critic.obs_dim == env.vec_task.num_states
    # 2 iterations of 8 steps: only those that began at a random length can be older than 16
    assert 16 < int(env.episode_length_buf.max()) <= env.max_episode_length


class Images:
    """Pictures of which every number is known."""

    rgb = torch.arange(3 * 40 * 40 * 3).reshape(3, 40, 40, 3).to(torch.uint8)
    depth = torch.full((3, 40, 40), torch.inf)
    segmentation = torch.arange(-1, 3 * 40 * 40 - 1, dtype=torch.int32).reshape(3, 40, 40)

    def render(self, rows: Any = None) -> dict[str, torch.Tensor]:
        self.depth[:, 0, 0] = 2.5
        return {"front/rgb": self.rgb, "front/depth": self.depth, "front/segmentation": self.segmentation}


def test_images_become_channels_and_train(sliding_mass: Any) -> None:
    task = sliding_mass(3, threads=1)
    task.cameras = Images()
    task.reset()
    env = RslRlVecTask(task, views=("policy", "privileged", "front/rgb", "front/depth"), far=5.0)
    observations = env.get_observations()
    assert observations["front/rgb"].shape == (3, 3, 40, 40)
    assert observations["front/rgb"][1, 2, 3, 4] == int(Images.rgb[1, 3, 4, 2]) / 255
    assert observations["front/depth"].shape == (3, 1, 40, 40)
    assert observations["front/depth"][0, 0, 0, :2].tolist() == [2.5, 5.0]
    ids = RslRlVecTask(task, views=("front/segmentation",), far=5.0).get_observations()["front/segmentation"]
    assert torch.equal(ids[:, 0], Images.segmentation.float())  # ids are no distances: `far` is not theirs
    cnn = {"output_channels": [4, 4], "kernel_size": 3, "stride": 2}
    cfg = train_cfg(class_name="CNNModel", cnn_cfg=cnn)
    cfg["obs_groups"]["actor"] = ["policy", "front/rgb", "front/depth"]
    learn(env, cfg, iterations=1)
