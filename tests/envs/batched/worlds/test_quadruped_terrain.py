"""The quadruped on rough ground: its model, its terrain, what it sees, and every term of its reward."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.worlds.quadruped_ground import (
    COLUMNS,
    LANES,
    draw_heights,
    ground_height,
    stair_profile,
)
from tutelage.envs.batched.worlds.quadruped_terrain import STAND_HEIGHT, QuadrupedTerrain

FLAT = {"roughness": 0.0, "step_height": 0.0, "slope": 0.0, "friction": 1.0, "command_vx": 0.5}
NOMINAL = [0.0, 0.7, -1.4] * 4


def make(num_envs: int = 1, **parameters: float) -> QuadrupedTerrain:
    """Environments that have all begun the same task, each from a seed of its own."""
    task = QuadrupedTerrain(num_envs, threads=1)
    begin(task, **parameters)
    return task


def begin(task: QuadrupedTerrain, **parameters: float) -> None:
    row = [{**FLAT, **parameters}[name] for name in task.task_space.names]
    task.start(torch.arange(task.num_envs), np.array([row] * task.num_envs), list(range(task.num_envs)))


def put(task: QuadrupedTerrain, qpos: list[float], qvel: list[float] | None = None) -> None:
    """Place all robots, legs in the stance, at a pose of the trunk, and compute what follows from it."""
    speeds = torch.zeros(18)
    if qvel:
        speeds[: len(qvel)] = torch.tensor(qvel)
    task.sim.write("qpos", torch.tensor(qpos + NOMINAL).expand(task.num_envs, 19))
    task.sim.write("qvel", speeds.expand(task.num_envs, 18))
    task.sim.forward()
    task.post_physics_step()


def standing(x: float = 0.0, y: float = 0.0, z: float = STAND_HEIGHT) -> list[float]:
    return [x, y, z, 1.0, 0.0, 0.0, 0.0]


def turned(axis: str, degrees: float, z: float = STAND_HEIGHT) -> list[float]:
    """Turned about an axis of the world."""
    half = math.radians(degrees) / 2
    vector = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1]}[axis]
    return [0.0, 0.0, z, math.cos(half), *(math.sin(half) * v for v in vector)]


def view(task: QuadrupedTerrain) -> Tensor:
    return task.compute_views()["privileged"]


# --- the model ----------------------------------------------------------------------------------------


def test_model_has_twelve_servos_and_the_documented_mass() -> None:
    model = QuadrupedTerrain(1, threads=1).model
    # 6 kg of trunk, four legs of 0.3 kg hip, 0.3 kg thigh, 0.1 kg shin, 0.05 kg foot
    assert model.body_subtreemass[1] == pytest.approx(6 + 4 * (0.3 + 0.3 + 0.1 + 0.05))
    assert (model.nu, model.nq, model.nv) == (12, 19, 18)
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    np.testing.assert_allclose(model.actuator_forcerange, [[-25, 25]] * 12)
    assert math.isclose(STAND_HEIGHT, 0.4 * math.cos(0.7) + 0.025)
    assert QuadrupedTerrain.decimation * model.opt.timestep == pytest.approx(1 / 50)


def test_zero_actions_stand_still_for_a_second() -> None:
    task = make(4)
    for _ in range(50):
        task.step(task.zero_actions())
    qpos = task.sim.read("qpos")
    assert qpos[:, :2].abs().max() < 0.05
    assert (qpos[:, 2] - STAND_HEIGHT).abs().max() < 0.03  # servos give way a little
    assert task.upright.min() > 0.995
    assert task.sim.read("qvel")[:, :3].abs().max() < 0.15  # it still sways a little
    assert not task.terminated.any()


def test_actions_are_offsets_from_the_stance() -> None:
    task = make()
    task.step(torch.tensor([[0.0] * 3 + [1.0, -0.5, 0.25] + [2.0] * 3 + [0.0] * 3]))  # beyond 1 is clipped
    offsets = [0.0] * 3 + [0.4, -0.5 * 0.8, 0.25 * 0.9] + [0.4, 0.8, 0.9] + [0.0] * 3
    np.testing.assert_allclose(task.sim.read("ctrl")[0], np.add(NOMINAL, offsets), atol=1e-6)


def test_cameras_follow_the_robot() -> None:
    task = make()
    front, head = (task.model.camera(name).id for name in ("front", "head"))
    put(task, standing())
    place, axes = task.sim.read("cam_xpos")[0].clone(), task.sim.read("cam_xmat")[0].clone()
    ahead = -axes.view(-1, 3, 3)[head, :, 2]
    distance = task.sim.batch.ray(place[head].double().numpy(), ahead.double().numpy())[0]
    # It looks 34.8 degrees down from 3 cm above the trunk's centre, and the ground is flat here.
    assert distance[0, 0] == pytest.approx((STAND_HEIGHT + 0.03) / math.sin(math.atan2(0.57, 0.82)), rel=1e-4)
    put(task, [2.0, *turned("z", 90)[1:]])
    moved = task.sim.read("cam_xpos")[0] - place
    np.testing.assert_allclose(moved[front], [2, 0, 0], atol=1e-5)
    np.testing.assert_allclose(task.sim.read("cam_xmat")[0, front], axes[front], atol=1e-5)
    np.testing.assert_allclose(moved[head], [2 - 0.24, 0.24, 0], atol=1e-5)


# --- the ground ---------------------------------------------------------------------------------------


def test_heights_are_stairs_plus_a_share_of_the_roughness() -> None:
    uniform = torch.zeros(2, COLUMNS * LANES)
    uniform[1] = 0.5
    heights = draw_heights(uniform, torch.tensor([0.0, 0.04]), torch.tensor([0.1, 0.1]), stair_profile())
    assert heights.shape == (2, (COLUMNS + 2) * LANES)
    by_column = heights.view(2, COLUMNS + 2, LANES)
    # platform, four steps up, flat, down
    np.testing.assert_allclose(
        by_column[0, :12, 2], [0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0, 0], atol=1e-6
    )
    np.testing.assert_allclose(by_column[1, 1:-1] - by_column[0, 1:-1], 0.5 * 0.04, atol=1e-6)
    assert (by_column[:, [0, -1]] == 0).all()


def test_ground_height_finds_the_cell_below_a_point() -> None:
    heights = torch.arange((COLUMNS + 2.0) * LANES)[None]
    # columns begin at x = 0.6 and are 0.3 long; inner lanes lie between y = -0.45 and 0.45
    x = torch.tensor([[-3.0, 0.61, 0.91, 6.59, 7.0, 0.61, 0.61, 0.61]])
    y = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, -0.44, -0.46, 5.0]])
    expected = [
        0 * LANES + 2,
        1 * LANES + 2,
        2 * LANES + 2,
        COLUMNS * LANES + 2,
        (COLUMNS + 1) * LANES + 2,
        1 * LANES + 1,
        1 * LANES + 0,
        1 * LANES + 4,
    ]
    assert ground_height(heights, x, y)[0].tolist() == expected


def test_ground_height_is_what_rays_from_above_hit() -> None:
    task = make(3, roughness=0.06, step_height=0.12)
    count = 200
    rng = np.random.default_rng(0)
    points = np.stack(
        [rng.uniform(-1.5, 8, (3, count)), rng.uniform(-2, 2, (3, count)), np.full((3, count), 3.0)], 2
    )
    put(task, standing(x=20.0))  # out of the way of the rays
    distance, geom = task.sim.batch.ray(points, np.broadcast_to([0.0, 0.0, -1.0], points.shape).copy())[:2]
    assert (geom >= 0).all()
    x, y = torch.tensor(points[..., 0]), torch.tensor(points[..., 1])
    np.testing.assert_allclose(3.0 - distance, ground_height(task.heights, x, y), atol=1e-5)
    assert len(np.unique(task.heights.numpy().round(6))) > COLUMNS * LANES  # and each environment has its own


def test_scan_of_a_turned_robot_reads_the_ground_around_it() -> None:
    task = make(roughness=0.06, step_height=0.12)
    put(task, [2.0, 0.1, 0.8, *turned("z", 90)[3:]])
    scan = (view(task)[0, 47:102] / 5).view(11, 5)  # x from -0.5 to 0.5, y from -0.3 to 0.3 in its own frame
    # Turned to the left, its x is the world's y and its y the world's -x: the corner ahead to the left.
    left_ahead = ground_height(task.heights, torch.tensor([[2.0 - 0.3]]), torch.tensor([[0.1 + 0.5]]))
    behind = ground_height(task.heights, torch.tensor([[2.0]]), torch.tensor([[0.1 - 0.5]]))
    assert scan[10, 4] == pytest.approx(0.8 - STAND_HEIGHT - float(left_ahead), abs=1e-5)
    assert scan[0, 2] == pytest.approx(0.8 - STAND_HEIGHT - float(behind), abs=1e-5)


def test_slope_tilts_gravity_and_the_view_of_it() -> None:
    task = make(slope=20.0)
    sin, cos = math.sin(math.radians(20)), math.cos(math.radians(20))
    gravity = task.sim.read_model("opt.gravity")[0]
    np.testing.assert_allclose(gravity, [-9.81 * sin, 0, -9.81 * cos], rtol=1e-6)
    put(task, standing())
    np.testing.assert_allclose(view(task)[0, :3], [-sin, 0, -cos], atol=1e-6)  # uphill is ahead
    put(task, turned("z", 180))
    np.testing.assert_allclose(view(task)[0, :3], [sin, 0, -cos], atol=1e-6)
    begin(task)
    put(task, turned("y", 30))  # nose down on level ground: down is ahead
    np.testing.assert_allclose(view(task)[0, :3], [0.5, 0, -math.cos(math.radians(30))], atol=1e-6)


def test_friction_decides_whether_the_robot_slips() -> None:
    task = QuadrupedTerrain(2, threads=1)
    names = task.task_space.names
    rows = [[{**FLAT, "friction": friction}[name] for name in names] for friction in (0.5, 1.25)]
    task.start(torch.arange(2), np.array(rows), [0, 0])
    tilt = math.radians(35)  # steeper than any task: tan 35 = 0.70 lies between 0.5 and 1.25
    down = torch.tensor([-math.sin(tilt), 0, -math.cos(tilt)]).expand(2, 3)
    task.sim.write_model("opt.gravity", 9.81 * down)
    crouch = torch.tensor([0.0, 1.2, -2.4] * 4).expand(2, 12)  # low, not to tip over backwards
    low = torch.tensor(standing(z=0.4 * math.cos(1.2) + 0.025)).expand(2, 7)
    task.sim.write("qpos", torch.cat([low, crouch], 1))
    task.sim.write("qvel", torch.zeros(2, 18))
    task.sim.write("ctrl", crouch)
    task.sim.step(100)
    # With 0.5, half a second of sliding at 9.81 (sin 35 - 0.5 cos 35) = 1.61 m/s^2 makes 0.2 m.
    slipped = -task.sim.read("qpos")[:, 0]
    assert slipped[0] - slipped[1] == pytest.approx(0.2, abs=0.04)
    assert slipped[1] < 0.1  # the servos give way


# --- what is seen ---------------------------------------------------------------------------------------


def test_views_have_the_documented_sizes_and_order() -> None:
    task = make(2, friction=0.7, command_vx=0.6)
    assert (task.num_obs, task.views["policy"].shape[1]) == (107, 44)
    velocity = [1.0, 0.5, -0.2, 0.1, 0.2, 0.3, *(0.1 * i for i in range(12))]
    put(task, turned("z", 90), velocity)
    task.actions[:] = torch.arange(12) / 12
    seen = view(task)[0]
    np.testing.assert_allclose(seen[3:6], [0.25 * v for v in (0.1, 0.2, 0.3)], rtol=1e-5)
    np.testing.assert_allclose(seen[6:18], np.zeros(12), atol=1e-6)
    np.testing.assert_allclose(seen[18:30], [0.05 * 0.1 * i for i in range(12)], rtol=1e-5)
    np.testing.assert_allclose(seen[30:42], np.arange(12) / 12, rtol=1e-6)
    assert seen[42] == pytest.approx(0.6)
    # turned to the left, it sees the world's (1, 0.5) as 0.5 ahead and 1 to the right
    np.testing.assert_allclose(seen[44:47], [2 * 0.5, 2 * -1.0, 2 * -0.2], atol=1e-5)
    assert seen[102] == pytest.approx(0.7)
    np.testing.assert_allclose(seen[103:107], np.zeros(4), atol=1e-4)  # the stance has its feet on the ground
    assert torch.equal(task.compute_views()["policy"], seen[None, :44].expand(2, 44))


def test_command_turns_back_to_the_middle_of_the_corridor() -> None:
    task = make()
    put(task, turned("z", 30))
    assert float(task.turn) == pytest.approx(-math.radians(30), abs=1e-5)
    put(task, standing(y=0.6))
    assert float(task.turn) == pytest.approx(-0.5 * 0.6)
    put(task, standing(y=-4.0))
    assert float(task.turn) == 1.0
    assert view(task)[0, 43] == 1.0


# --- rewards and ends -------------------------------------------------------------------------------------


def test_reward_terms_by_hand() -> None:
    task = make(command_vx=0.5)
    put(task, standing(), [0.8, 0.1, 0.2, 0.3, -0.4, 0.6])
    task.compute_outcomes()
    task.actions[:] = 0.5
    task.last_actions[:] = 0.3
    task.air_time[:] = torch.tensor([0.0, 0.33, 0.13, 0.0])
    force = float(task.sim.read("actuator_force").square().sum())
    terms = {name: float(value) for name, value in task.compute_rewards().items()}
    assert terms["speed"] == pytest.approx(math.exp(-(0.3**2 + 0.1**2) / 0.15), rel=1e-4)
    assert terms["turn"] == pytest.approx(0.3 * math.exp(-(0.6**2) / 0.25), rel=1e-4)
    assert terms["bounce"] == pytest.approx(-0.5 * 0.2**2, rel=1e-4)
    assert terms["roll_pitch"] == pytest.approx(-0.01 * (0.3**2 + 0.4**2), rel=1e-4)
    assert terms["effort"] == pytest.approx(-1e-4 * force, rel=1e-4)
    assert terms["action_rate"] == pytest.approx(-0.005 * 12 * 0.2**2, rel=1e-4)
    # Two feet land, after 0.35 s and 0.15 s; the others never left the ground.
    assert terms["air_time"] == pytest.approx(0.5 * ((0.35 - 0.25) + (0.15 - 0.25)), abs=1e-5)
    assert (terms["knees"], terms["fall"]) == (0.0, 0.0)
    assert (task.air_time == 0).all()
    assert (task.last_actions == 0.5).all()


def test_feet_in_the_air_gather_time_and_low_knees_cost() -> None:
    task = make()
    put(task, standing(z=STAND_HEIGHT + 0.1))
    task.compute_outcomes()
    terms = task.compute_rewards()
    np.testing.assert_allclose(task.air_time, 0.02 * np.ones((1, 4)), rtol=1e-5)
    assert float(terms["air_time"]) == 0.0
    # Knees are 0.2 cos 0.7 = 0.153 m below the trunk's centre.
    put(task, standing(z=0.16))
    task.compute_outcomes()
    assert float(task.compute_rewards()["knees"]) == pytest.approx(-0.3 * 4)


def test_falls_end_episodes() -> None:
    task = make()
    for qpos, fallen in (
        (standing(), False),
        (turned("x", 55, z=0.4), False),
        (turned("x", 65, z=0.4), True),
        (turned("y", 65, z=0.4), True),
        (standing(z=0.07), False),
        (standing(z=0.055), True),  # the belly, 0.05 m below the centre, is 5 mm above the ground
    ):
        put(task, qpos)
        ended, success = task.compute_outcomes()
        assert (bool(ended), bool(success)) == (fallen, not fallen)
    assert float(task.compute_rewards()["fall"]) == -5.0
    begin(task, step_height=0.12)
    put(task, standing(x=1.3, z=0.4))  # its front, at 1.52 m, is inside the fourth step, 0.48 m high
    assert bool(task.compute_outcomes()[0])


def test_success_is_seven_tenths_of_the_commanded_way_at_the_time_limit() -> None:
    task = make(3, command_vx=0.5)
    task.auto_reset = False
    task.progress_buf[:] = task.max_episode_length - 1
    qpos = torch.tensor(standing() + NOMINAL).repeat(3, 1)
    # 8 s at 0.5 m/s are 4 m, of which 2.8 m are asked for
    qpos[:, 0] = torch.tensor([2.7, 2.9, 2.9])
    qpos[2, 2] = 0.0
    task.sim.write("qpos", qpos)
    task.step(task.zero_actions())
    assert task.truncated.tolist() == [True, True, False]
    assert task.terminated.tolist() == [False, False, True]
    assert task.success.tolist() == [False, True, False]


# --- whole episodes ---------------------------------------------------------------------------------------


def wiggle(step: int, num_envs: int) -> Tensor:
    return 0.5 * torch.sin(torch.arange(12) + 0.3 * step).expand(num_envs, 12)


def test_an_episode_depends_on_its_task_and_seed_alone() -> None:
    hard = np.array([[0.05, 0.1, 10.0, 0.8, 0.5]])
    lone, crowd = QuadrupedTerrain(1, seed=3, threads=1), QuadrupedTerrain(5, seed=4, threads=1)
    lone.start(torch.tensor([0]), hard, [11])
    crowd.step(wiggle(0, 5))
    crowd.start(torch.tensor([2]), hard, [11])
    for step in range(40):
        alone, together = lone.step(wiggle(step, 1)), crowd.step(wiggle(step, 5))
        assert torch.equal(alone[0]["states"][0], together[0]["states"][2])
        assert alone[1][0] == together[1][2]


def test_saved_episodes_go_on_with_their_ground() -> None:
    task = QuadrupedTerrain(4, seed=1, threads=1)
    for step in range(10):
        task.step(wiggle(step, 4))
    state = task.state_dict()
    expected = [task.step(wiggle(step, 4)) for step in range(10)][-1]
    other = QuadrupedTerrain(4, seed=9, threads=1)
    other.load_state_dict(state)
    for step in range(10):
        obs_dict, rew, _, _ = other.step(wiggle(step, 4))
    assert torch.equal(obs_dict["states"], expected[0]["states"])
    assert torch.equal(rew, expected[1])
