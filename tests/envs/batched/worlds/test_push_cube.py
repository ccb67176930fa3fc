"""PushCube: cubes as the task says, inverse kinematics, rewards by hand, a scripted policy."""

import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.worlds import push_cube, robot_arm
from tutelage.envs.batched.worlds.push_cube import PushCube

#            half_size, mass, friction, cube_x, cube_y, goal_x, goal_y
LIGHT = [0.02, 0.05, 0.3, 0.0, 0.05, 0.1, -0.05]
HEAVY = [0.035, 0.3, 0.8, 0.05, -0.1, 0.05, 0.1]


def make(num_envs: int, seed: int = 0) -> PushCube:
    return PushCube(num_envs, seed=seed, threads=1)


def start(tasks: list[list[float]], seed: int = 0) -> PushCube:
    task = make(len(tasks))
    task.start(torch.arange(len(tasks)), np.array(tasks), seeds=[seed] * len(tasks))
    return task


def scripted(task: PushCube) -> Tensor:
    """Go round the cube to the side away from the goal, then push, steering across the line to the goal."""
    direction, half, along, across = task.direction, task.parameter("half_size"), task.along, task.across
    sideways = torch.stack([-direction[:, 1], direction[:, 0]], 1)
    clear = 1.5 * half + 0.035
    side = torch.where(across >= 0, clear, -clear)[:, None] * sideways
    beside = task.cube + side - 1.2 * half[:, None] * direction
    behind = task.cube - clear[:, None] * direction
    push = task.tip[:, :2] + 0.03 * direction - across[:, None] * sideways
    target = torch.where((along > -half)[:, None], beside, behind)
    target = torch.where(((along < -half) & (across.abs() < 0.012))[:, None], push, target)
    target = torch.where((task.distance < 0.015)[:, None], task.tip_target, target)
    return ((target - task.tip_target) / push_cube.TIP_STEP).clamp(-1, 1)


def put(task: PushCube, tip: list[float], cube: list[float], goal: list[float]) -> None:
    """Bring the fingertip, the cube and the goal to chosen places on the table, everywhere."""
    n = task.num_envs
    task.goal.copy_(torch.tensor(goal))
    joints = robot_arm.joints_pointing_down(torch.tensor([[*tip, push_cube.TIP_HEIGHT]]))
    pose = torch.tensor([[*cube, 0.03, 1.0, 0.0, 0.0, 0.0]])
    task.sim.write("qpos", torch.cat([joints, pose], 1).expand(n, -1), Rows.all(n))
    task.sim.forward()
    task.post_physics_step()


class TestHand:
    def test_inverse_kinematics_by_hand(self) -> None:
        # The wrist is straight above the tip; choose it on the circle of a right-angled elbow.
        reach, height = math.hypot(0.32, 0.28), robot_arm.SHOULDER_HEIGHT - robot_arm.HAND
        joints = robot_arm.joints_pointing_down(torch.tensor([[-0.35 + reach, 0.0, height]]))[0]
        shoulder = math.pi / 2 - math.atan2(0.28, 0.32)
        expected = torch.tensor([0.0, shoulder, math.pi / 2, math.pi - shoulder - math.pi / 2])
        torch.testing.assert_close(joints, expected)

    def test_inverse_undoes_forward_kinematics_within_the_joints_range(self) -> None:
        radius, angle = torch.meshgrid(
            torch.linspace(*push_cube.REACH, 9), torch.linspace(-1.5, 1.5, 9), indexing="ij"
        )
        x, y = (-0.35 + radius * angle.cos()).flatten(), (radius * angle.sin()).flatten()
        tips = torch.stack([x, y, torch.full_like(x, push_cube.TIP_HEIGHT)], 1)
        joints = robot_arm.joints_pointing_down(tips)
        torch.testing.assert_close(robot_arm.tip_position(joints), tips, atol=1e-5, rtol=0)
        assert (joints >= torch.tensor(robot_arm.JOINT_LOW)).all()
        assert (joints <= torch.tensor(robot_arm.JOINT_HIGH)).all()

    def test_hand_can_go_round_every_cube(self) -> None:
        # corners of the box of cubes and goals, half a diagonal of the largest cube, fingertip, clearance
        low, high = PushCube.task_space.low, PushCube.task_space.high
        margin = math.sqrt(2) * 0.035 + 0.02
        farthest = math.hypot(high[3] + 0.35, high[4]) + margin
        nearest = low[3] + 0.35 - margin
        assert farthest <= push_cube.REACH[1] + 0.01
        assert nearest >= push_cube.REACH[0]

    def test_target_stays_within_reach(self) -> None:
        for action in ([1.0, 1.0], [-1.0, 0.3], [0.2, -1.0]):
            task = make(4)
            for _ in range(40):
                task.step(torch.tensor([action]).expand(4, 2))
                from_base = task.tip_target - torch.tensor([-0.35, 0.0])
                assert (from_base[:, 0] >= push_cube.REACH[0] - 1e-6).all()
                assert (from_base.norm(dim=1) <= push_cube.REACH[1] + 1e-6).all()
            assert (task.tip[:, 2] - push_cube.TIP_HEIGHT).abs().max() < 0.015

    def test_an_action_moves_the_target_by_2_5_cm(self) -> None:
        task = make(1)
        before = task.tip_target.clone()
        task.step(torch.tensor([[1.0, -0.5]]))
        torch.testing.assert_close(task.tip_target - before, torch.tensor([[0.025, -0.0125]]))
        task.sim.write("ctrl", task.joint_targets)
        for _ in range(20):
            task.step(task.zero_actions())
        torch.testing.assert_close(task.tip[:, :2], task.tip_target, atol=1e-3, rtol=0)


class TestCube:
    def test_model_has_the_tasks_cube(self) -> None:
        task = start([LIGHT, HEAVY])
        geom, body = task.cube_geom, task.cube_body
        size, friction = task.sim.read_model("geom_size"), task.sim.read_model("geom_friction")
        torch.testing.assert_close(size[:, geom], torch.tensor([[0.02] * 3, [0.035] * 3]))
        torch.testing.assert_close(friction[:, geom, 0], torch.tensor([0.3, 0.8]))
        torch.testing.assert_close(task.sim.read_model("body_mass")[:, body], torch.tensor([0.05, 0.3]))
        # uniform cube of edge a: m a^2 / 6
        inertia = torch.tensor([0.05 * 0.04**2 / 6, 0.3 * 0.07**2 / 6])
        torch.testing.assert_close(task.sim.read_model("body_inertia")[:, body, 1], inertia)
        # nothing but the cube differs
        assert torch.equal(size[0, :geom], size[1, :geom])

    def test_bounding_volumes_hold_the_largest_cube(self) -> None:
        task = make(1)
        largest = PushCube.task_space.high[0]
        assert task.model.geom_rbound[task.cube_geom] == pytest.approx(math.sqrt(3) * largest)
        np.testing.assert_allclose(task.model.geom_aabb[task.cube_geom, 3:], largest)

    def test_cubes_rest_where_the_task_says(self) -> None:
        task = start([LIGHT, HEAVY])
        for _ in range(25):
            task.step(task.zero_actions())
        cube = task.sim.read("qpos")[:, 4:7]
        torch.testing.assert_close(
            cube, torch.tensor([[0.0, 0.05, 0.02], [0.05, -0.1, 0.035]]), atol=2e-3, rtol=0
        )

    def test_friction_stops_a_sliding_cube(self) -> None:
        # v^2 / (2 mu g): 0.6 m/s slides 6.1 cm at mu = 0.3, 2.3 cm at 0.8
        task = start([LIGHT, [*LIGHT[:2], 0.8, *LIGHT[3:]]])
        velocity = torch.zeros(2, 10)
        velocity[:, 4] = 0.6
        task.sim.write("qvel", velocity, Rows.all(2))
        before = task.cube.clone()
        for _ in range(20):
            task.step(task.zero_actions())
        slid = (task.cube - before).norm(dim=1)
        assert slid[0].item() == pytest.approx(0.6**2 / (2 * 0.3 * 9.81), rel=0.25)
        assert slid[1].item() == pytest.approx(0.6**2 / (2 * 0.8 * 9.81), rel=0.25)

    def test_mass_makes_it_slower_to_move(self) -> None:
        """The same force, 0.6 N for 0.04 s, less friction: a = F / m - mu g."""
        task = start([[0.03, 0.05, 0.3, *LIGHT[3:]], [0.03, 0.1, 0.3, *LIGHT[3:]]])
        force = torch.zeros(2, task.model.nbody, 6)
        force[:, task.cube_body, 0] = 0.6
        task.sim.write("xfrc_applied", force, Rows.all(2))
        task.step(task.zero_actions())
        speed = task.sim.read("qvel")[:, 4]
        assert speed[0].item() == pytest.approx(0.04 * (0.6 / 0.05 - 0.3 * 9.81), rel=0.15)
        assert speed[1].item() == pytest.approx(0.04 * (0.6 / 0.1 - 0.3 * 9.81), rel=0.15)

    def test_only_fingertip_and_table_touch_the_cube(self) -> None:
        model = make(1).model
        pairs = {
            frozenset((model.geom(i).name, model.geom(j).name))
            for i in range(model.ngeom)
            for j in range(i)
            if model.geom_contype[i] & model.geom_conaffinity[j]
            or model.geom_contype[j] & model.geom_conaffinity[i]
        }
        assert pairs == {frozenset(("cube", "table")), frozenset(("cube", "fingertip"))}
        assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST


class TestTask:
    def test_rewards_by_hand(self) -> None:
        task = start([[0.03, *LIGHT[1:]]])
        # goal 0.1 m ahead; the push begins 0.03 + 0.02 + 0.01 m behind the cube; the tip 0.08 m beside that
        put(task, tip=[-0.06, 0.08], cube=[0.0, 0.0], goal=[0.1, 0.0])
        terms = {name: term.item() for name, term in task.compute_rewards().items()}
        assert terms["distance"] == pytest.approx(-5 * 0.1, abs=1e-5)
        assert terms["approach"] == pytest.approx(-1.5 * 0.08, abs=3e-3)  # direction is 1 % short of unit
        assert terms["precision"] == pytest.approx(0.5 * math.exp(-4), abs=1e-4)
        assert task.along.item() == pytest.approx(-0.06, abs=2e-3)
        assert task.across.item() == pytest.approx(0.08, abs=2e-3)

    def test_approach_fades_near_the_goal(self) -> None:
        task = start([[0.03, *LIGHT[1:]]])
        put(task, tip=[-0.06, 0.08], cube=[0.0, 0.0], goal=[0.025, 0.0])
        assert task.compute_rewards()["approach"].item() == pytest.approx(-1.5 * 0.5 * 0.08, abs=5e-3)

    def test_success_is_to_be_near_at_the_end(self) -> None:
        task = start([LIGHT])
        put(task, tip=[-0.15, 0.0], cube=[0.0, 0.0], goal=[0.03, 0.039])  # 0.0492 m
        ended, succeeding = task.compute_outcomes()
        assert succeeding.all()
        assert not ended.any()
        put(task, tip=[-0.15, 0.0], cube=[0.0, 0.0], goal=[0.03, 0.041])  # 0.0508 m
        assert not task.compute_outcomes()[1].any()

    def test_episodes_last_60_steps(self) -> None:
        task = make(2)
        for step in range(1, 61):
            _, _, reset, extras = task.step(task.zero_actions())
            assert reset.tolist() == [int(step == 60)] * 2
        assert extras["time_outs"].all()

    def test_views(self) -> None:
        task = start([LIGHT, HEAVY])
        assert task.num_obs == task.num_states == 37
        obs, policy = task.obs_dict["obs"], task.obs_dict["policy"]
        assert torch.equal(policy[0], policy[1])  # knows nothing of cube and goal: same seed, other task
        torch.testing.assert_close(obs[:, 15:17], torch.tensor([[0.0, 0.05], [0.05, -0.1]]))
        torch.testing.assert_close(obs[:, 26:28], torch.tensor([[0.1, -0.1], [0.0, 0.2]]))
        torch.testing.assert_close(obs[:, 34:], torch.tensor([[0.02, 0.05, 0.3], [0.035, 0.3, 0.8]]))
        quaternion = task.sim.read("qpos")[0, 7:11]
        yaw = 2 * math.atan2(quaternion[3], quaternion[0])
        assert obs[0, 19].item() == pytest.approx(math.cos(4 * yaw), abs=1e-5)
        assert obs[0, 20].item() == pytest.approx(math.sin(4 * yaw), abs=1e-5)

    def test_cube_colour_can_be_a_look(self) -> None:
        task = make(1)
        assert task.model.geom_matid[task.cube_geom] == -1  # its colour is geom_rgba, which can be randomised
        assert "geom_rgba" not in task.sim.model_fields

    def test_scripted_policy_solves_it(self) -> None:
        task = make(200, seed=3)
        for _ in range(60):
            task.step(scripted(task))
        assert task.success.float().mean() >= 0.95
        assert not task.diverged.any()

    def test_doing_nothing_succeeds_in_trivial_tasks_alone(self) -> None:
        task = make(400)
        trivial = task.distance < 0.05
        for _ in range(60):
            task.step(task.zero_actions())
        assert torch.equal(task.success, trivial)
        assert trivial.float().mean() < 0.15

    def test_episode_depends_on_task_seed_and_actions_alone(self) -> None:
        alone, among = make(1, seed=5), make(4, seed=9)
        alone.start(torch.tensor([0]), np.array([HEAVY]), seeds=[7])
        among.start(torch.tensor([2]), np.array([HEAVY]), seeds=[7])
        for _ in range(40):
            action = scripted(alone)
            first = alone.step(action)[0]["obs"]
            crowd = torch.ones(4, 2)
            crowd[2] = action[0]
            second = among.step(crowd)[0]["obs"]
            assert torch.equal(first[0], second[2])

    def test_resumes_exactly(self) -> None:
        one, other = make(8, seed=1), make(8, seed=2)
        for _ in range(30):
            one.step(scripted(one))
        other.load_state_dict(one.state_dict())
        for _ in range(40):
            ours, theirs = one.step(scripted(one)), other.step(scripted(other))
            assert torch.equal(ours[0]["obs"], theirs[0]["obs"])
            assert torch.equal(ours[1], theirs[1])
