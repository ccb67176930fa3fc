"""Canonical frames: turning is undone exactly, and tasks that are alike look alike and go alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.worlds.canonical import (
    PUSH_CUBE,
    REACH,
    CanonicalPushCube,
    CanonicalReach,
    Turning,
    canonical,
)
from tutelage.envs.batched.worlds.push_cube import PushCube
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.envs.batched.worlds.robot_arm import BASE_X
from tutelage.envs.contract.tasks import BoxTasks

# x y z | direction | w x y z | yaw | cos 3a, sin 3a | stays
ALL = Turning(points=(0,), vectors=(3,), quaternions=(6,), yaws=(10,), waves=((11, 3),), origin=(0.5, -1.0))
WIDTH = 14


def values(seed: int, n: int = 20, width: int = WIDTH) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestTurning:
    def test_a_quarter_by_hand(self) -> None:
        half = math.sqrt(0.5)
        row = [1.5, -1.0, 7.0, 0.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.3, 1.0, 0.0, 9.0]
        turned = ALL.turn(
            torch.tensor([row], dtype=torch.float64), torch.tensor([math.pi / 2], dtype=torch.float64)
        )
        # the point is 1 along x from (0.5, -1): it comes to 1 along y; the wave turns thrice as far
        expected = [0.5, 0.0, 7.0, -2.0, 0.0, 3.0, half, 0, 0, half, 0.3 + math.pi / 2, 0.0, -1.0, 9.0]
        np.testing.assert_allclose(turned[0].numpy(), expected, atol=1e-12)

    @given(st.integers(0, 10_000), st.floats(-7, 7))
    @settings(max_examples=50, deadline=None)
    def test_the_inverse_undoes_it_and_turns_add_up(self, seed: int, angle: float) -> None:
        world, theta = values(seed), torch.full((20,), angle, dtype=torch.float64)
        there = ALL.turn(world, theta)
        torch.testing.assert_close(ALL.turn(there, -theta), world, rtol=0, atol=1e-12)
        other = values(seed + 1)[:, 0]
        torch.testing.assert_close(ALL.turn(there, other), ALL.turn(world, theta + other), rtol=0, atol=1e-11)

    def test_quaternions_turn_as_their_axes_do(self) -> None:
        def axes(quats: Tensor) -> Tensor:
            w, x, y, z = (quats / quats.norm(dim=1, keepdim=True)).unbind(1)
            first = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], 1)
            third = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
            return torch.cat([first, third], 1)

        quats, theta = values(3, width=4), values(4)[:, 0]
        turned = axes(Turning(quaternions=(0,)).turn(quats, theta))
        torch.testing.assert_close(turned, Turning(vectors=(0, 3)).turn(axes(quats), theta))

    def test_numbers_that_turn_twice_are_refused(self) -> None:
        with pytest.raises(ValueError, match="turns once"):
            Turning(points=(0,), yaws=(1,))
        with pytest.raises(ValueError, match="count from 0"):
            Turning(vectors=(-2,))


class TestFrames:
    @pytest.mark.parametrize(("task", "frame"), [(Reach, REACH), (PushCube, PUSH_CUBE)])
    def test_world_and_canonical_are_inverse(self, task: type, frame: object) -> None:
        env = task(16, threads=1, seed=1)
        theta = frame.theta(env.views)  # type: ignore[attr-defined]
        seen = frame.canonical_views(env.views, theta)  # type: ignore[attr-defined]
        back = frame.world_views(seen, theta)  # type: ignore[attr-defined]
        assert (theta.abs() > 0.1).any()
        for name, view in env.views.items():
            torch.testing.assert_close(back[name], view, rtol=0, atol=2e-6)
            assert not torch.allclose(seen[name], view, atol=0.01)
        torch.testing.assert_close(frame.theta(seen), torch.zeros(16), rtol=0, atol=1e-5)  # type: ignore[attr-defined]
        actions = torch.rand(16, env.num_actions) * 2 - 1
        there = frame.world_actions(actions, theta)  # type: ignore[attr-defined]
        torch.testing.assert_close(frame.canonical_actions(there, theta), actions)  # type: ignore[attr-defined]

    def test_reach_has_its_goal_straight_ahead(self) -> None:
        env = CanonicalReach(4, threads=1)
        tasks = np.array([[0.5, 1.0, 0.3], [0.5, -1.0, 0.3], [0.3, 0.7, 0.1], [0.3, 0.0, 0.1]])
        obs = env.start(torch.arange(4), tasks, seeds=[5, 5, 6, 6])["obs"]
        goals = [[BASE_X + 0.5, 0, 0.3]] * 2 + [[BASE_X + 0.3, 0, 0.1]] * 2
        torch.testing.assert_close(obs[:, 15:18], torch.tensor(goals), rtol=0, atol=1e-6)
        yaw = env.sim.read("qpos")[:, 0]
        torch.testing.assert_close(obs[:, 0], yaw - torch.tensor([1.0, -1.0, 0.7, 0.0]), rtol=0, atol=1e-6)
        torch.testing.assert_close(obs[:, 18:], obs[:, 15:18] - obs[:, 12:15], rtol=0, atol=1e-6)

    def test_push_cube_has_the_push_along_x_and_turns_actions_back(self) -> None:
        env = CanonicalPushCube(1, threads=1)
        task = [[0.03, 0.1, 0.5, 0.0, -0.1, 0.0, 0.1]]  # the cube is to go along +y
        obs = env.start(torch.arange(1), np.array(task), seeds=[1])["obs"]
        torch.testing.assert_close(obs[0, 26:28], torch.tensor([0.2, 0.0]), rtol=0, atol=1e-6)
        before = env.tip_target.clone()
        env.step(torch.tensor([[1.0, 0.0]]))
        torch.testing.assert_close(env.tip_target - before, torch.tensor([[0.0, 0.025]]), rtol=0, atol=1e-6)


class StartTurned(Reach):
    """Reach whose arm begins turned by as much as its goal is."""

    task_space = BoxTasks({"radius": (0.25, 0.55), "angle": (-1.2, 1.2), "height": (0.05, 0.45)})

    def start_episodes(self, rows: Rows) -> None:
        super().start_episodes(rows)
        joints = rows.take(self.joint_targets).clone()
        joints[:, 0] += rows.take(self.parameter("angle"))
        rows.put(self.joint_targets, joints)
        self.sim.write("qpos", joints, rows)
        self.sim.write("ctrl", joints, rows)


def drive(obs: Tensor) -> Tensor:
    """Any function of what is seen."""
    weights = torch.randn(obs.shape[1], 4, generator=torch.Generator().manual_seed(0))
    return torch.tanh(0.3 * obs @ weights)


def test_tasks_that_differ_by_a_turn_go_alike() -> None:
    """Equivariance: the same canonical views and rewards in every step, the same motion but turned."""
    env = canonical(StartTurned, REACH)(5, threads=1)
    angles = torch.tensor([0.0, 0.4, -0.9, 1.1, -0.2])
    tasks = np.array([[0.45, angle, 0.2] for angle in angles.tolist()])
    obs = env.start(torch.arange(5), tasks, seeds=[7] * 5)["obs"]
    for step in range(40):
        torch.testing.assert_close(obs, obs[:1].expand(5, -1), rtol=0, atol=2e-4)
        tips = env.tip.clone()
        turned = Turning(points=(0,), origin=(BASE_X, 0.0)).turn(tips[:1].expand(5, -1), angles)
        torch.testing.assert_close(tips, turned, rtol=0, atol=2e-4)
        obs_dict, rewards, _, _ = env.step(drive(obs))
        torch.testing.assert_close(rewards, rewards[:1].expand(5), rtol=0, atol=2e-4)
        obs = obs_dict["obs"]
        if step == 0:
            start = tips
    assert (tips - start).norm(dim=1).min() > 0.05  # it did move


def test_without_the_frame_they_do_not() -> None:
    env = StartTurned(2, threads=1)
    obs = env.start(torch.arange(2), np.array([[0.45, 0.0, 0.2], [0.45, 1.1, 0.2]]), seeds=[7, 7])["obs"]
    for _ in range(10):
        obs = env.step(drive(obs))[0]["obs"]
    theta = torch.tensor([1.1])
    turned = Turning(points=(0,), origin=(BASE_X, 0.0)).turn(env.tip[:1], theta)
    assert (env.tip[1] - turned[0]).norm() > 0.02


def test_saving_goes_on_as_if_never_interrupted() -> None:
    whole, resumed = CanonicalPushCube(3, threads=1, seed=2), CanonicalPushCube(3, threads=1, seed=9)
    for _ in range(5):
        whole.step(drive(whole.obs_dict["obs"])[:, :2])
    resumed.load_state_dict(whole.state_dict())
    for _ in range(5):
        expected = whole.step(drive(whole.obs_dict["obs"])[:, :2])[0]["obs"]
        torch.testing.assert_close(
            resumed.step(drive(resumed.obs_dict["obs"])[:, :2])[0]["obs"], expected, rtol=0, atol=0
        )
