"""Reach: kinematics, reach of the task box, rewards by hand, a scripted policy, and what ends episodes."""

import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.worlds import reach, robot_arm
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.envs.contract.tasks import TaskError


def make(num_envs: int, seed: int = 0) -> Reach:
    return Reach(num_envs, seed=seed, threads=1)


def toward(tips: Tensor, joints: Tensor, limit: float = math.inf) -> Tensor:
    """One step of damped least squares from `joints` to `tips`; no joint moves more than `limit`."""
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda q: robot_arm.tip_position(q[None])[0]))(joints)
    error = tips - robot_arm.tip_position(joints)
    square = jacobian @ jacobian.transpose(1, 2) + 1e-3 * torch.eye(3)
    return (jacobian.transpose(1, 2) @ torch.linalg.solve(square, error)[..., None])[..., 0].clamp(
        -limit, limit
    )


def put(task: Reach, joints: list[float], goal: list[float]) -> None:
    """Bring every environment to chosen joint positions and a chosen goal."""
    rows = Rows.all(task.num_envs)
    task.sim.write("qpos", torch.tensor([joints]).expand(task.num_envs, -1), rows)
    task.goal.copy_(torch.tensor(goal))
    task.sim.forward()
    task.post_physics_step()


class TestArm:
    def test_upright_and_bent_forward(self) -> None:
        joints = torch.tensor(
            [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, math.pi / 2, math.pi / 2], [math.pi / 2, 0.0, math.pi / 2, 0.0]]
        )
        tips = robot_arm.tip_position(joints)
        expected = torch.tensor([
            [-0.35, 0.0, 0.12 + 0.32 + 0.28 + 0.14],
            [-0.35 + 0.28, 0.0, 0.12 + 0.32 - 0.14],
            [-0.35, 0.28 + 0.14, 0.12 + 0.32],
        ])  # fmt: skip
        torch.testing.assert_close(tips, expected, atol=1e-6, rtol=0)

    def test_kinematics_are_those_of_the_model(self) -> None:
        task = make(32)
        low, high = torch.tensor(robot_arm.JOINT_LOW), torch.tensor(robot_arm.JOINT_HIGH)
        joints = low + (high - low) * torch.rand(32, 4, generator=torch.Generator().manual_seed(0))
        task.sim.write("qpos", joints)
        task.sim.forward()
        torch.testing.assert_close(
            task.sim.read("site_xpos")[:, 0], robot_arm.tip_position(joints), atol=1e-6, rtol=0
        )

    def test_joints_are_in_radians_and_limits_are_the_models(self) -> None:
        model = make(1).model
        np.testing.assert_allclose(model.jnt_range[:, 0], robot_arm.JOINT_LOW)
        np.testing.assert_allclose(model.jnt_range[:, 1], robot_arm.JOINT_HIGH)
        np.testing.assert_allclose(model.actuator_ctrlrange, model.jnt_range)

    def test_servos_hold_the_arm_against_gravity(self) -> None:
        task = make(4)
        before = task.sim.read("qpos").clone()
        for _ in range(20):
            task.step(task.zero_actions())
        torch.testing.assert_close(task.sim.read("qpos"), before, atol=1e-4, rtol=0)

    def test_cameras(self) -> None:
        model = make(1).model
        assert {model.camera(i).name for i in range(model.ncam)} == {"front", "wrist"}
        hand = model.body("hand").id
        assert model.camera("wrist").bodyid[0] == hand
        assert model.camera("front").bodyid[0] == 0

    def test_camera_looks_at_its_target_upright(self) -> None:
        spec = mujoco.MjSpec()
        robot_arm.add_camera(spec, "c", (1.0, 2.0, 3.0), (0.0, 0.5, 1.0), fovy=40)
        model = spec.compile()
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        right, up, back = data.cam_xmat[0].reshape(3, 3).T
        np.testing.assert_allclose(back, np.array([1.0, 1.5, 2.0]) / math.sqrt(1 + 2.25 + 4), atol=1e-9)
        assert right[2] == pytest.approx(0.0, abs=1e-9)
        assert up[2] > 0


class TestTask:
    def test_goal_is_where_the_task_says(self) -> None:
        task = make(2)
        task.start(torch.arange(2), np.array([[0.5, 0.0, 0.3], [0.4, 0.5, 0.1]]))
        expected = torch.tensor(
            [[-0.35 + 0.5, 0.0, 0.3], [-0.35 + 0.4 * math.cos(0.5), 0.4 * math.sin(0.5), 0.1]]
        )
        torch.testing.assert_close(task.goal, expected)
        torch.testing.assert_close(task.sim.read("mocap_pos")[:, 0], expected)

    def test_task_outside_the_box_is_refused(self) -> None:
        with pytest.raises(TaskError, match="radius"):
            make(1).start(torch.arange(1), np.array([[0.7, 0.0, 0.3]]))

    def test_every_corner_and_the_inside_are_within_reach(self) -> None:
        space = Reach.task_space
        corners = space.from_unit(np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3))
        tasks = torch.tensor(np.concatenate([corners, space.grid(6)]), dtype=torch.float32)
        radius, angle, height = tasks.unbind(1)
        goals = torch.stack([-0.35 + radius * angle.cos(), radius * angle.sin(), height], 1)
        low, high = torch.tensor(robot_arm.JOINT_LOW), torch.tensor(robot_arm.JOINT_HIGH)
        joints = torch.tensor(reach.HOME).expand(len(goals), 4)
        for _ in range(200):
            joints = (joints + toward(goals, joints, 0.1)).clamp(low, high)
        misses = (robot_arm.tip_position(joints) - goals).norm(dim=1)
        assert misses.max() < 1e-3

    def test_views(self) -> None:
        task = make(3)
        assert task.num_obs == task.num_states == 21
        assert task.obs_dict["policy"].shape == (3, 15)
        task.start(torch.arange(3), np.tile([0.5, 0.0, 0.3], (3, 1)), seeds=[1, 2, 3])
        policy = task.obs_dict["policy"].clone()
        task.start(torch.arange(3), np.tile([0.3, 1.0, 0.1], (3, 1)), seeds=[1, 2, 3])
        torch.testing.assert_close(task.obs_dict["policy"], policy)  # knows nothing of the goal
        obs = task.obs_dict["obs"]
        torch.testing.assert_close(obs[:, :4], task.sim.read("qpos"))
        torch.testing.assert_close(obs[:, 15:18], task.goal)
        torch.testing.assert_close(obs[:, 18:], task.goal - obs[:, 12:15])

    def test_rewards_by_hand(self) -> None:
        task = make(2)
        put(task, [0.0, 0.0, math.pi / 2, math.pi / 2], [-0.07, 0.0, 0.33])  # tip at (-0.07, 0, 0.3)
        terms = task.compute_rewards()
        assert terms["distance"][0].item() == pytest.approx(-0.03, abs=1e-6)
        assert terms["precision"][1].item() == pytest.approx(0.5 * math.exp(-1), abs=1e-5)

    def test_success_is_to_be_near_at_the_end(self) -> None:
        task = make(2)
        put(task, [0.0, 0.0, math.pi / 2, math.pi / 2], [-0.07, 0.0, 0.339])
        ended, succeeding = task.compute_outcomes()
        assert not ended.any()
        assert succeeding.all()
        put(task, [0.0, 0.0, math.pi / 2, math.pi / 2], [-0.07, 0.041, 0.3])
        assert not task.compute_outcomes()[1].any()

    def test_episodes_last_50_steps(self) -> None:
        task = make(2)
        for step in range(1, 51):
            _, _, reset, extras = task.step(task.zero_actions())
            assert reset.tolist() == [int(step == 50)] * 2
        assert extras["time_outs"].all()
        assert not task.terminated.any()

    def test_actions_move_targets_within_the_joints_range(self) -> None:
        task = make(1)
        start = task.joint_targets.clone()
        task.step(torch.tensor([[1.0, -0.5, 0.0, 2.0]]))  # 2 is clipped to 1
        torch.testing.assert_close(task.joint_targets - start, torch.tensor([[0.15, -0.075, 0.0, 0.15]]))
        for _ in range(30):
            task.step(torch.ones(1, 4))
        torch.testing.assert_close(task.joint_targets[0], torch.tensor(robot_arm.JOINT_HIGH))

    def test_scripted_policy_reaches_the_goal(self) -> None:
        task = make(200)
        for _ in range(50):
            task.step(toward(task.goal, task.joint_targets) / reach.JOINT_STEP)
        assert task.success.float().mean() >= 0.95

    def test_doing_nothing_fails(self) -> None:
        task = make(200)
        for _ in range(50):
            task.step(task.zero_actions())
        assert task.success.float().mean() <= 0.1

    def test_episode_depends_on_task_seed_and_actions_alone(self) -> None:
        actions = torch.rand(20, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
        chosen = np.array([[0.3, 0.2, 0.1]])
        alone, among = make(1, seed=5), make(4, seed=9)
        alone.start(torch.tensor([0]), chosen, seeds=[7])
        among.start(torch.tensor([2]), chosen, seeds=[7])
        for action in actions:
            first = alone.step(action[None])[0]["obs"]
            crowd = torch.rand(4, 4, generator=torch.Generator().manual_seed(2))
            crowd[2] = action
            second = among.step(crowd)[0]["obs"]
            assert torch.equal(first[0], second[2])

    def test_resumes_exactly(self) -> None:
        one, other = make(3, seed=1), make(3, seed=2)
        actions = torch.rand(60, 3, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1
        for action in actions[:10]:
            one.step(action)
        other.load_state_dict(one.state_dict())
        for action in actions[10:]:
            ours, theirs = one.step(action), other.step(action)
            assert torch.equal(ours[0]["obs"], theirs[0]["obs"])
            assert torch.equal(ours[1], theirs[1])
