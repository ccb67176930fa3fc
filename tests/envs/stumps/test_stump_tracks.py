"""Stump Tracks and its kin: geometry, lidar, physics, reward, episodes and pictures."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

pytest.importorskip("Box2D", reason="box2d has no wheels for this Python")
from Box2D import b2ContactListener, b2RayCastCallback
from gymnasium.envs.box2d.bipedal_walker import BipedalWalker
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from tutelage.envs.contract.tasks import TaskError
from tutelage.envs.stumps import bipedal_tracks, stump_terrain
from tutelage.envs.stumps.stump_bodies import BODIES, TerrainBuilder, body_named
from tutelage.envs.stumps.stump_lidar import RAYS, Lidar
from tutelage.envs.stumps.stump_terrain import (
    GROUND_HEIGHT,
    START_PAD,
    TERRAIN_STEP,
    Terrain,
    hexagon_track,
    stump_sequence_track,
    stump_track,
)
from tutelage.envs.stumps.stump_tracks import HexagonTracks, StumpSequenceTracks, StumpTracks

STEP = 14 / 30  # a terrain step in world units
PAD = 20 * 14 / 30  # where the first obstacle begins
Y0 = 400 / 30 / 4  # the ground's height
MANY = {
    "stump_height": (0, 9),
    "obstacle_spacing": (0, 6),
    "stump_width": (0, 4),
    "stump_rotation": (0, 6.2),
    "roughness": (0, 10),
}


class Still:
    """A generator without noise: normal draws are their means, uniform draws their upper bounds."""

    def normal(self, loc, scale, size=None):
        return np.array(np.broadcast_to(loc, np.shape(loc) if size is None else size), dtype=float)

    def uniform(self, low, high, size=None):
        return np.full(size, float(high))


def make_many():
    return [
        StumpTracks(parameters=MANY),
        StumpTracks("spider"),
        HexagonTracks(obstacle_spacing=2.0),
        StumpSequenceTracks(obstacle_spacing=3.0),
    ]


def rollout(env, seed, task, actions):
    observation, _ = env.reset(seed=seed, options={"task": task})
    trace = [observation]
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        trace.append(np.append(observation, [reward, terminated, truncated]))
        if terminated or truncated:
            break
    return np.concatenate(trace)


def random_actions(env, n, seed=0):
    size = (n, *env.action_space.shape)
    return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)


def place(env, x, y=0.0):
    """Move the walker to x, and up by y."""
    dx = x - env._hull.position.x
    for part in env._parts:
        part.position = (part.position.x + dx, part.position.y + y)


# Terrain


def test_constants():
    assert pytest.approx((PAD, STEP, Y0)) == (START_PAD, TERRAIN_STEP, GROUND_HEIGHT)
    assert pytest.approx(190 * STEP) == stump_terrain.FINISH


def test_stumps_stand_behind_the_pad_with_flat_ground_between():
    terrain = stump_track(Still(), height=2.0, spacing=1.0)
    second = PAD + STEP + 1.0
    top = Y0 + 2 * STEP
    assert terrain.obstacles[0] == pytest.approx(
        np.array([(PAD, Y0), (PAD + STEP, Y0), (PAD + STEP, top), (PAD, top)]), abs=1e-5
    )
    assert terrain.obstacles[1][0] == pytest.approx((second, Y0), abs=1e-5)
    assert terrain.ground[:4] == pytest.approx(
        np.array([(0, Y0), (PAD, Y0), (PAD + STEP, Y0), (second, Y0)]), abs=1e-5
    )
    # Stumps begin every 1 + 14/30 = 1.4667 units from 9.3333 up to 93.3333: 84 / 1.4667 = 57.3, so 58 of
    # them.
    assert len(terrain.obstacles) == 58


@pytest.mark.parametrize("height", [-3.0, 0.0])
def test_negative_heights_are_all_but_flat(height):
    terrain = stump_track(Still(), height=height, spacing=6.0)
    assert np.ptp(terrain.obstacles[:, :, 1], axis=1) == pytest.approx(0.05 * STEP, abs=1e-5)


def test_height_noise_has_standard_deviation_a_tenth():
    heights = np.ptp(stump_track(np.random.default_rng(0), 2.0, 0.0).obstacles[:, :, 1], axis=1) / STEP
    assert len(heights) == 177  # 84 / (14/30 + 0.01) = 176.2
    assert heights.mean() == pytest.approx(2.0, abs=4 * 0.1 / math.sqrt(177))
    assert heights.std() == pytest.approx(0.1, rel=0.25)


def test_spacing_is_never_less_than_a_hundredth():
    terrain = stump_track(Still(), height=1.0, spacing=0.0)
    assert terrain.obstacles[1, 0, 0] - terrain.obstacles[0, 1, 0] == pytest.approx(0.01, abs=1e-5)


def test_width_counts_terrain_steps():
    terrain = stump_track(Still(), height=1.0, spacing=2.0, width=3.0)
    assert np.ptp(terrain.obstacles[:, :, 0], axis=1) == pytest.approx(3 * STEP, abs=1e-5)
    assert terrain.obstacles[1, 0, 0] == pytest.approx(PAD + 3 * STEP + 2.0, abs=1e-5)


def test_rotation_turns_about_the_middle_of_the_base():
    terrain = stump_track(Still(), height=2.0, spacing=4.0, rotation=math.pi / 2)
    pivot = np.array([PAD + STEP / 2, Y0])
    # Corners relative to the pivot (-s/2, 0), (s/2, 0), (s/2, 2s), (-s/2, 2s); a quarter turn maps (x, y) to
    # (-y, x).
    turned = np.array([(0, -STEP / 2), (0, STEP / 2), (-2 * STEP, STEP / 2), (-2 * STEP, -STEP / 2)])
    assert terrain.obstacles[0] == pytest.approx(pivot + turned, abs=1e-5)


def test_rotation_is_clipped_at_zero():
    terrain = stump_track(Still(), height=2.0, spacing=4.0, rotation=-1.0)
    assert terrain.obstacles[0] == pytest.approx(stump_track(Still(), 2.0, 4.0).obstacles[0], abs=1e-5)


def test_roughness_follows_its_recurrence():
    terrain = stump_track(Still(), height=1.0, spacing=1.0, roughness=3.0)
    # v1 = 0 + 0.01 sign(0) + 3/30 = 0.1; v2 = 0.08 - 0.01 + 0.1 = 0.17; the ground is flat between the
    # stumps.
    levels = [Y0, Y0, Y0 + 0.1, Y0 + 0.1, Y0 + 0.27, Y0 + 0.27]
    assert terrain.ground[:6, 1] == pytest.approx(levels, abs=1e-5)
    assert terrain.obstacles[1, 0, 1] == pytest.approx(Y0 + 0.1, abs=1e-5)


def test_undeformed_hexagon():
    hexagon = hexagon_track(Still(), [0.0] * 12, spacing=8.0).obstacles
    corners = [(-0.5, 0), (0.5, 0), (0.5, 0.25), (0.25, 0.5), (-0.25, 0.5), (-0.5, 0.25)]
    assert hexagon[0] == pytest.approx((PAD, Y0) + STEP * np.array(corners), abs=1e-5)
    assert hexagon[1, 0, 0] - hexagon[0, 0, 0] == pytest.approx(1.0 + 8.0, abs=1e-5)


def test_hexagon_corners_move_by_the_parameters_but_stay_grounded_at_both_ends():
    task = [0, 4, 0, 3, 0.75, 2, 0, 2, 0, 3, 1, 4]  # (x, y) of each corner
    hexagon = hexagon_track(Still(), task, spacing=8.0).obstacles[0]
    # Base (-0.5, 0) and (0.5 + 1, 0); above it (-0.5, 3.25), (-0.25 + 0.75, 2.5), (0.25, 2.5), (0.5, 3.25),
    # of which the two at height 2.5 lie inside the hull of the others.
    corners = [(-0.5, 0), (1.5, 0), (0.5, 3.25), (-0.5, 3.25)]
    assert hexagon[:4] == pytest.approx((PAD, Y0) + STEP * np.array(corners), abs=1e-5)
    assert (hexagon[4:] == hexagon[3]).all()


def test_stump_sequence_repeats_adjacent_boxes():
    terrain = stump_sequence_track(Still(), [1.0, 0.5, 2.0, 1.5, 1, 1, 1, 1, 1, 1], spacing=4.0)
    second = np.array([(0.5, 0), (2.0, 0), (2.0, 2 * STEP), (0.5, 2 * STEP)])
    assert terrain.obstacles[1] == pytest.approx(second + np.array([PAD, Y0]), abs=1e-5)
    # One sequence is 0.5 + 1.5 + 3 = 5 wide, and 4 more separate it from the next.
    assert terrain.obstacles[5, 0, 0] == pytest.approx(PAD + 9.0, abs=1e-5)


@pytest.mark.parametrize("env", make_many(), ids=lambda env: type(env).__name__)
def test_ground_reaches_past_the_finish_and_obstacles_are_ordered(env):
    for seed in range(20):
        env.reset(seed=seed)
        assert env.terrain.ground[-1, 0] > stump_terrain.FINISH + 4
        assert (np.diff(env.terrain.ground[:, 0]) >= 0).all()
        assert (np.diff(env.terrain.obstacles[:, :, 0].min(axis=1)) >= 0).all()


# Lidar


class NearestHit(b2RayCastCallback):
    def ReportFixture(self, fixture, point, normal, fraction):
        if fixture.filterData.categoryBits & 0x1 == 0:
            return -1
        self.fraction = fraction
        return fraction


def test_lidar_equals_ray_casts_of_box2d():
    compared = 0
    rng = np.random.default_rng(0)
    for env in make_many():
        for seed in range(8):
            env.reset(seed=seed)
            env._terrain_builder.extend(200.0)
            for _ in range(10):
                x, y = np.float32(rng.uniform(0, 88)), np.float32(rng.uniform(Y0 + 0.1, Y0 + 5))
                wanted = []
                for dx, dy in RAYS:
                    callback = NearestHit()
                    callback.fraction = 1.0
                    origin = (float(x), float(y))
                    env.world.RayCast(callback, origin, (float(x + dx), float(y + dy)))
                    wanted.append(callback.fraction)
                assert env._lidar(float(x), float(y)) == pytest.approx(np.array(wanted), abs=1e-5)
                compared += sum(fraction < 1.0 for fraction in wanted)
    assert compared > 1000


def test_lidar_by_hand():
    square = np.array([[(2.0, 0.0), (3.0, 0.0), (3.0, 4.0), (2.0, 4.0)]])
    lidar = Lidar(Terrain(np.array([(0.0, 0.0), (50.0, 0.0)]), square))
    fractions = lidar(1.0, 2.0)
    assert fractions[0] == pytest.approx(2.0 / (160 / 30))  # straight down to the ground
    # Ray 9 leaves at 1.35 rad from the vertical: one unit to the right after 1 / sin(1.35) units.
    assert fractions[9] == pytest.approx(1 / math.sin(1.35) / (160 / 30))
    assert lidar(10.0, 5.4).tolist() == [1.0] * 10  # 160/30 = 5.33 units above the ground
    inside = lidar(2.5, 1.0)  # an obstacle is not seen from inside
    assert inside[0] == pytest.approx(1.0 / (160 / 30))


# Bodies and physics


@pytest.mark.parametrize(
    ("body", "observations", "actions"),
    [
        ("classic-bipedal", 24, 4),
        ("small_bipedal", 24, 4),
        ("spider", 42, 12),
        ("old-classic-bipedal", 24, 4),
    ],
)
def test_spaces(body, observations, actions):
    env = StumpTracks(body)
    observation, info = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (observations,)
    assert observation.dtype == np.float32
    assert env.action_space.shape == (actions,)
    assert info["task"].shape == (2,)


@pytest.mark.parametrize("body", ["classic_bipedal", "small_bipedal", "spider"])
def test_hinges_fit_at_the_start(body):
    env = StumpTracks(body)
    env._apply = lambda action: 0.0  # no first step
    env.reset(seed=0)
    for joint in env._joints:
        assert tuple(joint.anchorA) == pytest.approx(tuple(joint.anchorB), abs=1e-5)
        assert joint.angle == pytest.approx(0.0, abs=1e-6)
    lowest = min(
        part.GetWorldPoint(corner)[1] for part in env._parts for corner in part.fixtures[0].shape.vertices
    )
    assert lowest == pytest.approx(Y0, abs=0.15)  # feet on the ground, or just above
    assert lowest > Y0 - 1e-5


@pytest.mark.parametrize("body", list(BODIES))
def test_masses(body):
    env = StumpTracks(body)
    env.reset(seed=0)
    # Hull of the bipeds: bounding box 64 x 17 less the triangle 28 x 8 / 2 = 976 px^2, density 5, 900 px^2 a
    # unit^2.
    hull = 976 / 900 * 5 if "bipedal" in body else 400 / 900 * 5
    sizes = [link.size for link in BODIES[body].links]
    assert env._hull.mass == pytest.approx(hull, rel=1e-3)
    total = hull + sum(width * height for width, height in sizes) / 900
    assert sum(part.mass for part in env._parts) == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_old_body_moves_as_gymnasiums_walker_does(seed, monkeypatch):
    theirs = BipedalWalker()
    wanted, _ = theirs.reset(seed=seed)
    twin = BipedalWalker()
    super(BipedalWalker, twin).reset(seed=seed)
    twin._generate_terrain(False)
    twin._generate_clouds()
    push = twin.np_random.uniform(-5, 5)

    ours = StumpTracks("old_classic_bipedal")
    ground = np.stack([theirs.terrain_x, theirs.terrain_y], axis=1)
    ours._generate = lambda values: Terrain(ground, np.zeros((0, 4, 2)))
    ours.reset(seed=0)
    monkeypatch.setattr(ours, "_np_random", type("Push", (), {"uniform": lambda self, low, high: push})())
    got, _ = ours.reset(options={"task": [0, 6]})
    feet = [8, 13]  # ours stay in contact while any contact lasts
    same = np.delete(np.arange(24), feet)
    assert got[same] == pytest.approx(wanted[same], abs=1e-6)
    for action in random_actions(ours, 150, seed):
        wanted, wanted_reward, wanted_end, _, _ = theirs.step(action)
        got, reward, terminated, _, _ = ours.step(action)
        assert got[same] == pytest.approx(wanted[same], abs=1e-6)
        assert reward == pytest.approx(wanted_reward, abs=1e-5)
        assert terminated == wanted_end
        if terminated:
            break


def test_contacts_agree_with_a_contact_listener():
    class Listener(b2ContactListener):
        def __init__(self):
            super().__init__()
            self.touching = []

        def BeginContact(self, contact):
            self.touching += [contact.fixtureA.body, contact.fixtureB.body]

        def EndContact(self, contact):
            for body in (contact.fixtureA.body, contact.fixtureB.body):
                if body in self.touching:  # contacts of the place where the walker stood before are unknown
                    self.touching.remove(body)

    env = StumpTracks()
    listener = Listener()
    hits = feet = 0
    for seed in range(4):
        env.reset(seed=seed, options={"task": [0.5, 0.2]})
        place(env, 12.0, y=3.0)
        listener.touching.clear()
        env.world.contactListener = listener
        for action in random_actions(env, 150, seed):
            observation, _, terminated, _, _ = env.step(action)
            assert terminated == (env._hull in listener.touching)
            wanted = [env._parts[2] in listener.touching, env._parts[4] in listener.touching]
            assert [observation[8], observation[13]] == wanted
            feet += int(observation[8] + observation[13])
            hits += terminated
            if terminated:
                break
        env.world.contactListener = None
    assert hits > 0
    assert feet > 0


def test_making_terrain_piece_by_piece_changes_nothing(monkeypatch):
    env = StumpTracks()
    actions = random_actions(env, 250)
    task = [0.3, 1.0]

    def run():
        env.reset(seed=0, options={"task": task})
        for part in env._parts:
            part.linearVelocity = (6.0, 3.0)
        return np.concatenate([env.step(action)[0] for action in actions])

    pieces = run()
    assert env._terrain_builder.end > START_PAD / 2 + TerrainBuilder.PIECE  # more than one piece
    monkeypatch.setattr(TerrainBuilder, "REACH", 200.0)
    assert run() == pytest.approx(pieces, abs=1e-6)


def test_bounds_hold_when_the_simulation_blows_up():
    env = StumpTracks()
    env.reset(seed=0)
    for part in env._parts:
        part.linearVelocity = (1e6, 1e6)
        part.angularVelocity = -1e6
    for action in random_actions(env, 20):
        assert env.observation_space.contains(env.step(action)[0])


# Reward and ends of episodes


def test_reward_of_one_step():
    env = StumpTracks("classic_bipedal")
    env.reset(seed=3, options={"task": [1.0, 3.0]})
    for action in random_actions(env, 5):
        env.step(action)
    x, angle = env._hull.position.x, env._hull.angle
    _, reward, _, _, info = env.step(np.array([0.5, -1.0, 3.0, 0.0]))
    progress = 130 / 30 * (env._hull.position.x - x)
    leaning = 5 * (abs(env._hull.angle) - abs(angle))
    effort = 0.00035 * 80 * (0.5 + 1.0 + 1.0 + 0.0)
    assert reward == pytest.approx(progress - leaning - effort, abs=1e-6)
    assert "success" not in info


def test_effort_of_the_spider_counts_half():
    assert body_named("spider").torque_penalty == pytest.approx(0.00035 / 2 * 80)


def test_motors_get_sign_and_size_of_the_action():
    env = StumpTracks("spider")
    env.reset(seed=0)
    env.step([0.5, -0.25, 2.0] + [0.0] * 9)
    assert [joint.motorSpeed for joint in env._joints[:4]] == [4.0, -4.0, 6.0, 0.0]
    assert [joint.GetMaxMotorTorque() for joint in env._joints[:4]] == [50.0, 25.0, 100.0, 0.0]


def test_a_fall_ends_the_episode():
    env = StumpTracks("small-bipedal")
    env.reset(seed=0, options={"task": [1.0, 3.0]})
    total, steps, terminated = 0.0, 0, False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(np.zeros(4))
        total, steps = total + reward, steps + 1
    assert reward == -100.0
    assert not truncated
    assert info["success"] is False
    assert 10 < steps < 200
    assert -150 < total < -90


def test_leaving_to_the_left_is_a_failure():
    env = StumpTracks()
    env.reset(seed=0)
    place(env, -0.1, y=5.0)
    _, reward, terminated, _, info = env.step(np.zeros(4))
    assert (reward, terminated, info["success"]) == (-100.0, True, False)


def test_arriving_ends_the_episode_without_penalty():
    env = StumpTracks()
    env.reset(seed=0, options={"task": [0.0, 6.0]})
    start = env._hull.position.x
    place(env, 190 * STEP + 0.1, y=5.0)
    _, reward, terminated, truncated, info = env.step(np.zeros(4))
    assert terminated
    assert not truncated
    assert reward == pytest.approx(130 / 30 * (190 * STEP + 0.1 - start), abs=1.0)  # 364 for the whole way
    assert info["success"] is True


@pytest.mark.parametrize(("earlier", "success"), [(0.0, False), (1e-3, True)])
def test_success_means_a_return_above_230(earlier, success, monkeypatch):
    env = StumpTracks(max_steps=1)
    env.reset(seed=0)
    monkeypatch.setattr(env, "_return", 330.0 + earlier)
    place(env, -0.1, y=5.0)  # -100 makes it 230 or just more
    assert env.step(np.zeros(4))[4]["success"] is success


def test_the_cap_truncates():
    env = StumpTracks(max_steps=5)
    for _ in range(2):
        env.reset(seed=0)
        ends = [env.step(np.zeros(4))[2:] for _ in range(5)]
        assert [end[1] for end in ends] == [False] * 4 + [True]
        assert not any(end[0] for end in ends)
        assert ends[-1][2]["success"] is False


def test_a_fall_at_the_cap_is_no_truncation():
    env = StumpTracks(max_steps=1)
    env.reset(seed=0)
    place(env, -0.1, y=5.0)
    _, _, terminated, truncated, _ = env.step(np.zeros(4))
    assert terminated
    assert not truncated


# Seeds and tasks


@pytest.mark.parametrize(
    "make", [StumpTracks, lambda: StumpTracks("spider"), HexagonTracks, StumpSequenceTracks]
)
def test_a_used_environment_repeats_a_fresh_one_exactly(make):
    fresh, used = make(), make()
    task = fresh.task_space.sample(np.random.default_rng(5), 1)[0]
    actions = random_actions(fresh, 120)
    rollout(used, 9, used.task_space.high, random_actions(used, 70, seed=4))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = rollout(fresh, 0, task, actions)
    assert (first == rollout(used, 0, task, actions)).all()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    other = rollout(used, 1, task, actions)
    assert len(other) != len(first) or (other != first).any()


def test_without_a_task_one_is_drawn_uniformly_and_repeatably():
    env = StumpTracks()
    tasks = [env.reset(seed=0)[1]["task"]] + [env.reset()[1]["task"] for _ in range(60)]
    assert env.task_space.contains(tasks).all()
    again = [env.reset(seed=0)[1]["task"]] + [env.reset()[1]["task"] for _ in range(60)]
    assert np.array_equal(tasks, again)
    assert np.mean(tasks, axis=0) == pytest.approx([1.5, 3.0], abs=4 * 6 / math.sqrt(12 * 61))
    assert (env.reset(options={})[1]["task"] <= env.task_space.high).all()


def test_float32_tasks_work():
    env = StumpTracks(parameters={"stump_height": (0, 0.1), "obstacle_spacing": (0, 6)})
    task = np.array([0.1, 5.0], dtype=np.float32)  # 0.1 in float32 is above 0.1 in float64
    info = env.reset(seed=0, options={"task": task})[1]
    assert info["task"].dtype == np.float64
    assert info["task"] == pytest.approx([0.1, 5.0])
    assert np.array_equal(env.step(np.zeros(4, np.float32))[4]["task"], info["task"])
    hexagons = HexagonTracks()
    hexagons.reset(seed=0, options={"task": np.full(12, 4, np.float32)})


@pytest.mark.parametrize(
    "task",
    [
        [3.1, 3.0],
        [1.0, -0.1],
        [math.nan, 1.0],
        [1.0],
        [[1.0, 1.0]],
        1.0,
        "high",
        np.array([9, 9], np.float32),
    ],
)
def test_a_bad_task_is_refused(task):
    env = StumpTracks()
    with pytest.raises(TaskError):
        env.reset(seed=0, options={"task": task})


@pytest.mark.parametrize("name", list(MANY))
def test_each_parameter_changes_the_track(name):
    env = StumpTracks(parameters=MANY)
    task = np.array([2.0, 3.0, 1.0, 0.5, 1.0])

    def terrain():
        env.reset(seed=0, options={"task": task})
        return env.terrain.ground[:4], env.terrain.obstacles[:2]

    before = terrain()
    task[env.task_space.names.index(name)] += 0.7
    after = terrain()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_parameters_that_do_not_vary_have_their_fixed_values():
    env = StumpTracks(parameters={"stump_height": (0, 3)}, obstacle_spacing=2.0)
    env.reset(seed=0, options={"task": [1.0]})
    widths = np.ptp(env.terrain.obstacles[:, :, 0], axis=1)
    assert widths == pytest.approx(STEP, abs=1e-5)
    assert env.terrain.obstacles[1, 0, 0] - PAD == pytest.approx(STEP + 2.0, abs=1e-5)


def test_test_tasks_are_the_grid_of_the_literature():
    tasks = StumpTracks().test_tasks()
    assert tasks.shape == (100, 2)
    assert tasks[:3] == pytest.approx(np.array([(0, 0), (1 / 3, 0), (2 / 3, 0)]))
    assert tasks[-1] == pytest.approx([3.0, 6.0])
    assert len(np.unique(tasks, axis=0)) == 100
    hard = StumpTracks(parameters={"stump_height": (0, 9), "obstacle_spacing": (0, 6)})
    assert np.array_equal(hard.test_tasks(), tasks)
    turned = StumpTracks(parameters={"obstacle_spacing": (0, 6), "stump_height": (-3, 3)})
    assert set(map(tuple, turned.test_tasks()[:, ::-1])) == set(map(tuple, tasks))
    low = StumpTracks(parameters={"stump_height": (0, 1), "obstacle_spacing": (1, 6)}).test_tasks()
    assert low[0] == pytest.approx([0, 1])
    assert low[-1] == pytest.approx([1, 6])


@pytest.mark.parametrize("make", [HexagonTracks, StumpSequenceTracks, lambda: StumpTracks(parameters=MANY)])
def test_other_test_tasks_are_uniform_and_fixed(make):
    tasks = make().test_tasks()
    assert tasks.shape == (100, make().task_space.dim)
    assert make().task_space.contains(tasks).all()
    assert np.array_equal(tasks, make().test_tasks())
    assert make().task_space.to_unit(tasks).mean() == pytest.approx(0.5, abs=0.06)


# Mistakes


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'spider'"):
        StumpTracks("spyder")
    with pytest.raises(ValueError, match="did you mean 'stump_height'"):
        StumpTracks(parameters={"stump_hight": (0, 3)})
    with pytest.raises(ValueError, match="did you mean 'height1'"):
        StumpSequenceTracks(parameters={"hight1": (0, 3)})


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match="rgb_array"):
        StumpTracks(render_mode="human")
    with pytest.raises(ValueError, match="at least one step"):
        StumpTracks(max_steps=0)
    env = StumpTracks(render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(4))
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="NaN"):
        env.step([math.nan, 0, 0, 0])
    with pytest.raises(ValueError, match="has 3 values"):
        env.step(np.zeros(3))
    env.step(np.zeros(4))


# Checkers and pictures


@pytest.mark.parametrize("make", [StumpTracks, lambda **k: StumpTracks("spider", **k), HexagonTracks])
def test_checkers_have_no_complaints(make):
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Gymnasium remarks that an environment made by hand has no registration to make its likes from.
        warnings.filterwarnings("ignore", message=".*(spec|render mode).*")
        gymnasium_check_env(make(render_mode="rgb_array"))
        sb3_check_env(make())


@pytest.mark.parametrize(
    "env", [StumpTracks(render_mode="rgb_array"), HexagonTracks("spider", render_mode="rgb_array")]
)
def test_pictures_show_walker_and_ground(env):
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (400, 600, 3)
    assert picture.dtype == np.uint8
    y = env._hull.position.y
    assert tuple(picture[round(400 - 30 * y), 120]) == (127, 102, 229)  # the hull
    assert tuple(picture[390, 300]) == (111, 153, 92)
    assert tuple(picture[5, 300]) == (226, 235, 248)
    env.step(env.action_space.sample() * 0 + 1)
    assert (env.render() != picture).any()
    env.close()


def test_stumps_are_drawn_where_they_stand():
    env = StumpTracks(render_mode="rgb_array")
    env.reset(seed=0, options={"task": [3.0, 6.0]})
    picture = env.render()
    column = round((PAD + STEP / 2 - (env._hull.position.x - 4.0)) * 30)
    row = round(400 - 30 * (Y0 + STEP))
    assert tuple(picture[row, column]) == (150, 144, 140)


def test_no_picture_without_a_render_mode():
    env = StumpTracks()
    env.reset(seed=0)
    assert env.render() is None


def test_module_figures():
    assert bipedal_tracks.MASTERED_RETURN == 230
    assert BODIES["classic_bipedal"].torque == 80
    assert BODIES["spider"].torque == 100
