"""BallBalance: its model follows the task, its physics is that of rolling balls, memory is needed."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.worlds.ball_balance import BallBalance

GRAVITY = 9.81
EVERYTHING = {"target_x": 0.0, "target_y": 0.0, "ball_x": 0.0, "ball_y": 0.0, "speed": 0.0,
              "radius": 0.03, "mass": 0.05, "friction": 0.1}  # fmt: skip


def make(*tasks: dict[str, float], seeds: list[int] | None = None) -> BallBalance:
    """A batch that runs these tasks, each given by what differs from `EVERYTHING`."""
    balance = BallBalance(len(tasks), threads=1)
    balance.auto_reset = False
    vectors = np.array([list({**EVERYTHING, **task}.values()) for task in tasks])
    balance.start(torch.arange(len(tasks)), vectors, seeds or list(range(len(tasks))))
    return balance


def place(balance: BallBalance, position: list[float], velocity: list[float]) -> None:
    """Put all balls here, on a level plate at rest."""
    n = balance.num_envs
    qpos = torch.tensor([0, 0, *position, 0.04, 1, 0, 0, 0]).expand(n, 9)
    balance.sim.write("qpos", qpos)
    balance.sim.write("qvel", torch.tensor([0, 0, *velocity, 0, 0, 0, 0]).expand(n, 8))
    balance.sim.forward()
    balance.post_physics_step()


def towards_target(balance: BallBalance, damping: float = 5.0) -> Tensor:
    """The tilts that accelerate the ball as spring and damper would; it rolls at 5/7 g sin(tilt)."""
    wanted = 9 * balance.to_target - damping * balance.velocity
    tilt = torch.stack([-wanted[:, 1], wanted[:, 0]], 1) / (GRAVITY * 5 / 7)
    return (tilt / 0.2).clamp(-1, 1)


def play(balance: BallBalance, damping: float) -> float:
    """Success rate of the spring-and-damper law over one episode."""
    balance.auto_reset = False
    balance.reset()
    for _ in range(60):
        balance.step(towards_target(balance, damping))
    return balance.success.float().mean().item()


def test_views_and_model() -> None:
    balance = BallBalance(2, threads=1)
    assert (balance.model.nq, balance.model.nv, balance.model.nu) == (9, 8, 2)
    assert balance.views["policy"].shape == (2, 6)
    assert balance.views["privileged"].shape == (2, 17)
    assert balance.num_obs == 17
    target = balance.model.geom("target").id
    assert balance.model.geom_contype[target] == balance.model.geom_conaffinity[target] == 0


def test_the_policy_view_knows_nothing_of_the_ball() -> None:
    balance = make({"ball_x": -0.2, "speed": 0.5}, {"ball_x": 0.2, "target_y": 0.1})
    assert torch.equal(balance.views["policy"][0], balance.views["policy"][1])
    assert not torch.equal(balance.views["privileged"][0], balance.views["privileged"][1])


def test_privileged_view_in_numbers() -> None:
    balance = make({"target_x": 0.1, "radius": 0.03, "mass": 0.1, "friction": 0.01})
    place(balance, [0.2, -0.1], [0.3, 0.0])
    view = balance.compute_views()["privileged"][0]
    # ball, target (/ 0.2), difference (/ 0.1), velocity (/ 0.5), radius, mass, friction in [0, 1]
    expected = [1.0, -0.5, 0.5, 0.0, -1.0, 1.0, 0.6, 0.0, 0.5, 1.0, 0.0]
    assert view[6:].tolist() == pytest.approx(expected, abs=1e-5)


def test_reward_terms() -> None:
    balance = make({})
    place(balance, [0.1, 0.0], [0.0, 0.3])
    balance.action_change[:] = torch.tensor([1.0, -2.0])
    terms = {name: term.item() for name, term in balance.compute_rewards().items()}
    assert terms == pytest.approx(
        {
            "distance": -3 * 0.1,
            "speed": -0.2 * math.exp(-1) * 0.3,  # at 0.1 m
            "close": math.exp(-4),  # (0.1 / 0.05)**2
            "effort": -0.01 * (1 + 4),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize(
    ("position", "speed", "expected"),
    [(0.04, 0.1, True), (0.06, 0.1, False), (0.04, 0.2, False)],
)
def test_success_is_near_and_slow(position: float, speed: float, expected: bool) -> None:
    balance = make({})
    place(balance, [position, 0.0], [0.0, speed])
    ended, success = balance.compute_outcomes()
    assert not ended.item()
    assert success.item() is expected


def test_a_ball_off_the_plate_ends_the_episode_without_success() -> None:
    balance = make({}, {})
    balance.sim.write(
        "qpos", torch.tensor([[0, 0, 0.4, 0, 0.1, 1, 0, 0, 0], [0, 0, 0, 0, 0.04, 1, 0, 0, 0.0]])
    )
    _, _, reset, extras = balance.step(torch.zeros(2, 2))
    assert reset.tolist() == [1, 0]
    assert not extras["time_outs"].any()
    assert not balance.success.any()


def test_an_episode_lasts_60_steps() -> None:
    balance = make({})
    for _ in range(59):
        assert balance.step(torch.zeros(1, 2))[2].item() == 0
    _, _, reset, extras = balance.step(torch.zeros(1, 2))
    assert reset.item() == 1
    assert extras["time_outs"].item()
    assert balance.success.item()  # it lay on the target, at rest


def test_task_parameters_reach_each_model() -> None:
    balance = make(
        {"radius": 0.02, "mass": 0.1, "friction": 0.03, "target_x": 0.1, "target_y": -0.2},
        {"radius": 0.04, "mass": 0.02, "ball_x": 0.15, "ball_y": -0.05, "speed": 0.4},
    )
    small, large = (balance.sim.batch.get_model(i) for i in range(2))
    assert small.geom("ball").size[0] == pytest.approx(0.02)
    assert large.geom("ball").size[0] == pytest.approx(0.04)
    assert small.geom("ball").friction[0] == pytest.approx(0.03)
    assert small.geom("target").pos == pytest.approx([0.1, -0.2, 0.01])
    assert large.body("ball").mass[0] == pytest.approx(0.02)
    assert small.body("ball").inertia == pytest.approx([0.4 * 0.1 * 0.02**2] * 3)  # 2/5 m r^2
    assert large.body("ball").invweight0[0] == pytest.approx(1 / 0.02)
    assert balance.ball[1].tolist() == pytest.approx([0.15, -0.05])
    assert balance.speed.tolist() == pytest.approx([0.0, 0.4])


def test_the_ball_begins_rolling_without_slip() -> None:
    balance = make({"speed": 0.5, "radius": 0.025})
    velocity, spin = balance.sim.read("qvel")[0, 2:5], balance.sim.read("qvel")[0, 5:8]
    touching = velocity + torch.linalg.cross(spin, torch.tensor([0.0, 0.0, -0.025]))
    assert touching.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_directions_at_first_are_random() -> None:
    balance = make(*[{"speed": 0.5}] * 64)
    angles = torch.atan2(balance.velocity[:, 1], balance.velocity[:, 0])
    assert torch.histc(angles, bins=4, min=-math.pi, max=math.pi).min() >= 6  # 16 expected, sd 3.5


@pytest.mark.parametrize(
    ("friction", "factor"),
    [(0.1, 5 / 7), (0.065, 5 / 7), (0.04, None), (0.01, None)],
    ids=["rolls", "barely-rolls", "slides", "slides-freely"],
)
def test_acceleration_on_a_tilted_plate(friction: float, factor: float | None) -> None:
    balance = make({"friction": friction, "ball_x": -0.15, "speed": 0.0})
    for _ in range(10):  # the plate reaches its angle
        balance.step(torch.tensor([[0.0, 1.0]]))
    before, angle = balance.velocity[0, 0].item(), balance.qpos[0, 1].item()
    for _ in range(5):
        balance.step(torch.tensor([[0.0, 1.0]]))
    acceleration = (balance.velocity[0, 0].item() - before) / (5 * 0.04)
    slope = GRAVITY * math.sin(angle)
    expected = slope * factor if factor else slope - friction * GRAVITY * math.cos(angle)
    assert acceleration == pytest.approx(expected, rel=0.04)


def test_velocity_on_the_plate_is_the_change_of_position() -> None:
    balance = make({})
    generator = torch.Generator().manual_seed(0)
    qpos = torch.cat([torch.tensor([[0.2, -0.15, 0.1, 0.05, 0.06]]), torch.tensor([[1.0, 0, 0, 0]])], 1)
    qvel = torch.randn(1, 8, generator=generator)
    positions = []
    for step in (-1e-3, 1e-3):
        moved = qpos.double().numpy()[0]
        mujoco.mj_integratePos(balance.model, moved, qvel.double().numpy()[0], step)
        balance.sim.write("qpos", torch.from_numpy(moved[None]).float())
        balance.sim.forward()
        balance.post_physics_step()
        positions.append(balance.ball[0].clone())
    balance.sim.write("qpos", qpos)
    balance.sim.write("qvel", qvel)
    balance.sim.forward()
    balance.post_physics_step()
    change = (positions[1] - positions[0]) / 2e-3
    assert balance.velocity[0].tolist() == pytest.approx(change.tolist(), abs=2e-3)


def test_a_law_that_knows_the_velocity_balances_and_one_that_does_not_fails() -> None:
    balance = BallBalance(200, threads=1)
    assert play(balance, damping=5.0) > 0.97
    assert play(balance, damping=0.0) < 0.3


def test_an_episode_depends_on_its_task_and_seed_alone() -> None:
    task = {"speed": 0.4, "ball_x": 0.1, "friction": 0.04}
    alone = make(task, seeds=[7])
    among = make({"mass": 0.1}, {"speed": 0.1}, task, seeds=[1, 2, 7])
    for _ in range(40):
        alone.step(towards_target(alone))
        among.step(towards_target(among))
    assert torch.equal(alone.obs_buf[0], among.obs_buf[2])


def test_resets_by_mask_as_on_a_gpu_are_resets_by_index() -> None:
    tasks = [BallBalance(6, threads=1, seed=3) for _ in range(2)]
    tasks[1]._rows_of = lambda done: Rows.of_mask(done)  # type: ignore[method-assign]
    for task in tasks:
        task.max_episode_length = 4
        task.progress_buf[:] = torch.arange(6) % 3  # so that they end at different times
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        actions = torch.rand(6, 2, generator=generator) * 2 - 1
        for task in tasks:
            task.step(actions)
        assert torch.equal(tasks[0].obs_buf, tasks[1].obs_buf)
        assert torch.equal(tasks[0].rew_buf, tasks[1].rew_buf)
