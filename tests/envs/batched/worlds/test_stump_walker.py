"""StumpWalker: its course, its rewards, its ends."""

import mujoco
import numpy as np
import pytest
import torch

from tutelage.envs.batched.worlds.stump_walker import COLUMNS, FINISH, FIRST, REST, START, WIDTH, StumpWalker

ALL = ("height", "spacing", "gap", "stair", "slope")


def walker(tasks, parameters=("height", "spacing"), **options):
    task = StumpWalker(len(tasks), parameters=parameters, threads=1, **options)
    task.auto_reset = False
    task.start(torch.arange(len(tasks)), np.array(tasks, dtype=float), seeds=range(len(tasks)))
    return task


def heights_from_rays(task, env, places):
    """Ground under `places` as MuJoCo's rays find it, without the walker; NaN where there is none."""
    start = np.stack([places, np.zeros_like(places), np.full_like(places, 5.0)], 1)
    # the walker's bodies are all below the trunk; hide them by lifting it out of the rays' way
    qpos = task.sim.read("qpos").clone()
    qpos[:, 0] = -20.0
    task.sim.write("qpos", qpos)
    task.sim.forward()
    distance, _ = task.sim.batch.ray(start, np.array([0.0, 0.0, -1.0]), ids=[env])
    return 5.0 - distance[0]


@pytest.mark.parametrize(
    ("parameters", "values"),
    [
        (("height", "spacing"), [(0.0, 3.0), (1.0, 0.0), (2.5, 1.3), (0.4, 6.0)]),
        (ALL, [(1.0, 2.0, 1.0, 0.5, 0.0), (0.0, 4.0, 2.0, 0.0, 5.0), (2.0, 0.5, 0.0, 1.0, -15.0)]),
    ],
)
def test_scan_of_the_ground_is_what_mujocos_rays_hit(parameters, values):
    task = walker(values, parameters)
    rng = np.random.default_rng(0)
    for env in range(len(values)):
        places = np.sort(rng.uniform(-1.0, FINISH + 0.3, 300))
        scanned = task.ground(torch.from_numpy(places).float().expand(len(values), -1))[env].numpy()
        period = float(task.period[env])
        edges = FIRST + period * np.arange(COLUMNS)[:, None] + [0.0, WIDTH, WIDTH + float(task.spacing[env])]
        inside = np.abs(places[:, None] - edges.ravel()).min(axis=1) > 1e-4  # off the edges
        hit = heights_from_rays(task, env, places)
        holes = hit < -0.9  # the plane below the holes; the scan reads 1 m below the base
        np.testing.assert_allclose(scanned[inside & ~holes], hit[inside & ~holes], atol=1e-4)
        base = np.clip(np.floor((places - FIRST) / period), -1, COLUMNS - 1) + 1
        np.testing.assert_allclose(scanned[holes], base[holes] * float(task.rise[env]) - 1.0, atol=1e-4)
        assert holes.any() == ("gap" in parameters and values[env][2] > 0)


def test_course_has_the_tasks_heights_and_spacing():
    task = walker([(2.0, 3.0), (1.0, 1.5)])
    # A period is one stump and one space: (1 + 3) 0.3 m = 1.2 m and (1 + 1.5) 0.3 m = 0.75 m.
    torch.testing.assert_close(task.period, torch.tensor([1.2, 0.75]))
    # Heights scatter around 2 units = 0.6 m and 1 unit = 0.3 m by 0.03 m.
    assert task.heights.mean(1).tolist() == pytest.approx([0.6, 0.3], abs=0.03 * 3 / np.sqrt(COLUMNS))
    assert task.heights.std(1).min() > 0.01
    assert task.heights.std(1).max() < 0.06


def test_a_walker_stands_on_a_stump_that_is_there_and_not_on_one_that_is_not():
    task = walker([(1.0, 0.0), (0.0, 0.0)])  # a platform of stumps without space between, and flat ground
    qpos = task.sim.read("qpos").clone()
    qpos[:, 0] = FIRST + 1.5
    qpos[:, 1] = 0.6
    task.sim.write("qpos", qpos)
    task.sim.forward()
    for _ in range(25):
        task.pre_physics_step(task.zero_actions())
        task.sim.step(4)
    feet = task.sim.read("site_xpos")[:, :, 2].min(1).values
    assert feet[0] > 0.2  # m; stumps are about 0.3 m
    assert abs(feet[1]) < 0.05


def test_standing_still_falls_neither_at_once_nor_gets_anywhere():
    task = walker([(0.0, 3.0)])
    for _ in range(10):
        _, _, reset, _ = task.step(task.zero_actions())
    assert not reset.any()
    assert abs(float(task.x[0])) < 0.2


def test_joints_move_through_their_range_in_radians():
    task = walker([(0.0, 3.0)])
    torch.testing.assert_close(
        torch.tensor(task.model.jnt_range[3:5]), torch.tensor([[-2.0, 1.0], [0.0, 2.4]], dtype=torch.float64)
    )
    for _ in range(10):
        task.step(torch.tensor([[0.5, 0.5, -0.5, -0.5]]))
    # Targets: REST + 0.9 action = 0.1, 1.15, -0.8, 0.25 rad; gravity and the ground pull a little
    torch.testing.assert_close(task.qpos[0, 3:], torch.tensor([0.1, 1.15, -0.8, 0.25]), atol=0.3, rtol=0)


def test_reward_terms_by_hand():
    task = walker([(0.0, 3.0), (0.0, 3.0)])
    qpos = torch.zeros(2, 7)
    qpos[:, 0] = torch.tensor([0.5, 1.0])
    qpos[:, 2] = torch.tensor([0.2, -1.5])  # the second is tilted beyond 1.2 rad
    qpos[:, 3:] = torch.tensor(REST)
    task.x_before.copy_(torch.tensor([0.4, 1.0]))
    task.sim.write("qpos", qpos)
    task.sim.forward()
    task.post_physics_step()
    terms = task.compute_rewards()
    torch.testing.assert_close(terms["progress"], torch.tensor([1.0, 0.0]))  # 10 (0.5 - 0.4)
    torch.testing.assert_close(terms["upright"], torch.tensor([-0.01, -0.075]))  # 0.05 * 0.2, 0.05 * 1.5
    torch.testing.assert_close(terms["fall"], torch.tensor([0.0, -1.0]))


def test_passing_the_finish_is_success_and_low_hips_are_a_fall():
    task = walker([(0.0, 3.0), (0.0, 3.0), (0.0, 3.0)])
    qpos = task.sim.read("qpos").clone()
    qpos[0, 0] = FINISH + 0.1
    qpos[1, 1] = 0.39 - START  # hips at 0.39 m
    task.sim.write("qpos", qpos)
    task.sim.forward()
    task.post_physics_step()
    ended, success = task.compute_outcomes()
    assert ended.tolist() == [True, True, False]
    assert success.tolist() == [True, False, False]


def test_slope_tilts_gravity():
    task = walker([(10.0,), (-10.0,), (0.0,)], parameters=("slope",))
    gravity = task.sim.read_model("opt.gravity")
    # 9.81 sin 10 deg = 1.7035, 9.81 cos 10 deg = 9.6610
    expected = torch.tensor([[-1.7035, 0, -9.6610], [1.7035, 0, -9.6610], [0, 0, -9.81]])
    torch.testing.assert_close(gravity, expected, atol=1e-4, rtol=0)


def test_views_have_their_sizes_and_feet_their_clearance():
    task = walker([(0.0, 3.0)])
    assert (task.num_obs, task.num_states) == (28, 32)
    data = task.sim.batch.get_data(0)
    mujoco.mj_kinematics(task.model, data)
    sole = data.site("left_foot").xpos[2]
    assert float(task.views["privileged"][0, 28]) == pytest.approx(sole, abs=1e-5)


def test_unknown_parameters_are_refused():
    with pytest.raises(ValueError, match="unknown parameter 'hight'"):
        StumpWalker(2, parameters=("hight",))
