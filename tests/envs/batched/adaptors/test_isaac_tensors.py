"""Isaac Gym's layouts, against numbers computed by hand and MuJoCo's own object velocities."""

import math
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from tutelage.envs.batched.adaptors.isaac_tensors import IsaacTensors, rotate, rotate_inverse, wxyz, xyzw
from tutelage.envs.batched.simulators.factory import make_simulator
from tutelage.envs.batched.simulators.simulator import Simulator
from tutelage.envs.batched.task.rows import Rows

XML = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0" integrator="implicitfast"/>
  <worldbody>
    <body name="table" pos="0 0 -1"><geom type="box" size="1 1 .1"/></body>
    <body name="arm" pos="1 0 0">
      <joint name="shoulder" axis="0 0 1"/>
      <geom type="capsule" fromto="0 0 0 .5 0 0" size=".05" mass="1"/>
      <body name="hand" pos=".5 0 0">
        <joint name="wrist" axis="0 1 0"/>
        <joint name="finger" type="slide" axis="1 0 0"/>
        <geom type="box" size=".1 .05 .02" pos=".1 0 0" mass=".5"/>
      </body>
    </body>
    <body name="marker" mocap="true"><geom type="sphere" size=".1" contype="0" conaffinity="0"/></body>
    <body name="cube" pos="0 0 2">
      <freejoint name="cube"/>
      <geom type="box" size=".1 .2 .3" pos=".05 0 0" mass="2"/>
      <body name="flap" pos="0 0 .3">
        <joint name="flap" axis="1 0 0"/>
        <geom type="box" size=".1 .1 .01" pos="0 .1 0" mass=".2"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="50" kv="5" gear="2"/>
    <motor name="finger" joint="finger"/>
    <position name="wrist" joint="wrist" kp="20" kv="2"/>
  </actuator>
</mujoco>
"""
HALF = math.sqrt(0.5)


def simulator(n: int = 3, seed: int | None = None) -> Simulator:
    sim = make_simulator(mujoco.MjModel.from_xml_string(XML), n, threads=1)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        qpos = torch.randn(n, sim.model.nq, generator=generator)
        qpos[:, 6:10] /= qpos[:, 6:10].norm(dim=1, keepdim=True)
        sim.write("qpos", qpos)
        sim.write("qvel", torch.randn(n, sim.model.nv, generator=generator))
        sim.forward()
    return sim


def test_names_and_shapes() -> None:
    isaac = IsaacTensors(simulator())
    assert isaac.actor_names == ["table", "arm", "marker", "cube"]
    assert isaac.dof_names == ["shoulder", "wrist", "finger", "flap"]
    assert isaac.body_names == ["table", "arm", "hand", "marker", "cube", "flap"]
    assert isaac.root_states.shape == (3 * 4, 13)
    assert isaac.dof_state.shape == (3 * 4, 2)
    assert isaac.rigid_body_states.shape == (3 * 6, 13)


def test_quaternions_by_hand() -> None:
    quarter_turn = torch.tensor([HALF, 0, 0, HALF])  # w, x, y, z: a quarter turn about z
    assert xyzw(quarter_turn).tolist() == pytest.approx([0, 0, HALF, HALF])
    assert torch.equal(wxyz(xyzw(quarter_turn)), quarter_turn)
    turned = rotate(xyzw(quarter_turn), torch.tensor([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(turned, [-2, 1, 3], atol=1e-6)
    np.testing.assert_allclose(rotate_inverse(xyzw(quarter_turn), turned), [1, 2, 3], atol=1e-6)


def test_states_by_hand() -> None:
    """The shoulder turns with 2 rad/s; the cube, a quarter turn about z, spins about its own x axis."""
    sim = simulator(1)
    qpos = torch.zeros(1, sim.model.nq)
    qpos[0, 3:10] = torch.tensor([0, 0, 2, HALF, 0, 0, HALF])
    qvel = torch.zeros(1, sim.model.nv)
    qvel[0, 0] = 2.0  # shoulder
    qvel[0, 3:9] = torch.tensor(
        [1.0, 0, 0, 3.0, 0, 0]
    )  # cube: linear in the world's, angular in its own frame
    sim.write("qpos", qpos)
    sim.write("qvel", qvel)
    sim.forward()
    isaac = IsaacTensors(sim)
    root = isaac.root_states.view(1, 4, 13)[0]
    # its x axis points along the world's y
    np.testing.assert_allclose(root[3], [0, 0, 2, 0, 0, HALF, HALF, 1, 0, 0, 0, 3, 0], atol=1e-6)
    np.testing.assert_allclose(root[0], [0, 0, -1, 0, 0, 0, 1, *[0] * 6], atol=1e-6)  # the table stands
    bodies = isaac.rigid_body_states.view(1, 6, 13)[0]
    # the hand, 0.5 m from the shoulder, moves with 2 * 0.5 = 1 m/s along y
    np.testing.assert_allclose(bodies[2], [1.5, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 2], atol=1e-6)
    # the flap, 0.3 m above the cube's origin: 3 rad/s about y gives 0.9 m/s along x, plus the cube's 1
    np.testing.assert_allclose(bodies[5, 7:10], [1.9, 0, 0], atol=1e-6)
    np.testing.assert_allclose(isaac.dof_state[0], [0, 2], atol=1e-6)


def test_body_states_are_mujocos_object_velocities() -> None:
    sim = simulator(3, seed=0)
    isaac = IsaacTensors(sim)
    data, velocity = mujoco.MjData(sim.model), np.zeros(6)
    states = isaac.rigid_body_states.view(3, 6, 13)
    for env in range(3):
        data.qpos, data.qvel = sim.read("qpos")[env].numpy(), sim.read("qvel")[env].numpy()
        mujoco.mj_forward(sim.model, data)
        for body in range(1, sim.model.nbody):
            mujoco.mj_objectVelocity(sim.model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            state = states[env, body - 1].numpy()
            np.testing.assert_allclose(state[:3], data.xpos[body], atol=1e-5)
            np.testing.assert_allclose(state[3:7], np.roll(data.xquat[body], -1), atol=1e-5)
            np.testing.assert_allclose(state[7:10], velocity[3:], atol=2e-5)
            np.testing.assert_allclose(state[10:], velocity[:3], atol=2e-5)
    roots = isaac.root_states.view(3, 4, 13)
    assert torch.equal(roots, states[:, [0, 1, 3, 4]])
    np.testing.assert_array_equal(isaac.dof_state.view(3, 4, 2)[:, :, 0], sim.read("qpos")[:, [0, 1, 2, 10]])
    np.testing.assert_array_equal(isaac.dof_state.view(3, 4, 2)[:, :, 1], sim.read("qvel")[:, [0, 1, 2, 9]])


def test_views_stay_valid_through_refreshes() -> None:
    sim = simulator(3, seed=0)
    isaac = IsaacTensors(sim)
    heights, angles = isaac.root_states.view(3, 4, 13)[:, 3, 2], isaac.dof_state.view(3, 4, 2)[:, 0, 0]
    hands = isaac.rigid_body_states.view(3, 6, 13)[:, 2, :3]
    before = [view.clone() for view in (heights, angles, hands)]
    sim.step(5)
    assert torch.equal(heights, before[0])
    isaac.refresh_actor_root_state()
    isaac.refresh_dof_state()
    isaac.refresh_rigid_body_state()
    for view, old in zip((heights, angles, hands), before, strict=True):
        assert not torch.equal(view, old)


def test_set_actor_roots_of_some() -> None:
    """What is set is read back, free joint and mocap body alike; the others stay, bit for bit."""
    sim = simulator(3, seed=1)
    isaac = IsaacTensors(sim)
    before, saved = isaac.root_states.clone(), sim.save()
    wanted = before.clone().view(3, 4, 13)
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(3, 4, 13, generator=generator)
    new[..., 3:7] /= new[..., 3:7].norm(dim=-1, keepdim=True)
    chosen = torch.tensor([1 * 4 + 3, 2 * 4 + 2], dtype=torch.int32)  # the cube of 1, the marker of 2
    isaac.set_actor_root_state_tensor_indexed(new.view(-1, 13), chosen)
    sim.forward()
    isaac.refresh_actor_root_state()
    wanted[1, 3] = new[1, 3]
    wanted[2, 2] = new[2, 2]
    wanted[2, 2, 7:] = 0  # a mocap body has no velocity
    np.testing.assert_allclose(isaac.root_states.view(3, 4, 13), wanted, atol=2e-6)
    assert torch.equal(sim.save()[0], saved[0])
    assert torch.equal(isaac.root_states[:4], before[:4])


def test_set_dof_states_of_some() -> None:
    sim = simulator(3, seed=1)
    isaac = IsaacTensors(sim)
    before = isaac.dof_state.clone().view(3, 4, 2)
    new = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    isaac.set_dof_state_tensor_indexed(new.view(-1, 2), torch.tensor([0 * 4 + 1, 2 * 4 + 3]))
    sim.forward()
    isaac.refresh_dof_state()
    before[0, :3] = new[0, :3]  # the arm of 0 has shoulder, wrist and finger
    before[2, 3] = new[2, 3]  # the cube of 2 has the flap
    assert torch.equal(isaac.dof_state.view(3, 4, 2), before)


def test_position_targets_are_reached() -> None:
    sim = simulator(2)
    isaac = IsaacTensors(sim)
    targets = torch.tensor([[0.5, -0.3, 9.0, 9.0], [-0.2, 0.4, 9.0, 9.0]])
    isaac.set_dof_position_target_tensor(targets.flatten())
    # shoulder: kp 50 and gear 2, so that the control is a target of the length, 2 * 0.5
    np.testing.assert_allclose(sim.read("ctrl"), [[1.0, 0, -0.3], [-0.4, 0, 0.4]], rtol=1e-6)
    for _ in range(40):
        sim.step(25)
    isaac.refresh_dof_state()
    reached = isaac.dof_state.view(2, 4, 2)[:, :2, 0]
    np.testing.assert_allclose(reached, targets[:, :2], atol=0.02)


def test_position_targets_of_some() -> None:
    sim = simulator(2)
    isaac = IsaacTensors(sim)
    isaac.set_dof_position_target_tensor(torch.full((8,), 0.25))
    arm, cube = torch.tensor([1 * 4 + 1]), torch.tensor([0 * 4 + 3])
    isaac.set_dof_position_target_tensor_indexed(torch.full((8,), 0.5), arm)
    isaac.set_dof_position_target_tensor_indexed(torch.full((8,), 9.0), cube)  # has no servo
    # shoulder with gear 2, finger (a motor), wrist
    assert sim.read("ctrl").tolist() == [[0.5, 0, 0.25], [1.0, 0, 0.5]]


def test_forces_on_some() -> None:
    sim = simulator(2)
    isaac = IsaacTensors(sim)
    isaac.set_dof_actuation_force_tensor(torch.arange(8.0))
    isaac.set_dof_actuation_force_tensor_indexed(-torch.ones(8), torch.tensor([0 * 4 + 1, 1 * 4 + 3]))
    # shoulder, wrist, finger are the arm's, the flap is the cube's, whose free joint has no DoF here
    applied = sim.read("qfrc_applied")[:, [0, 1, 2, 9]]
    assert applied.tolist() == [[-1, -1, -1, 3], [4, 5, 6, -1]]
    assert not sim.read("qfrc_applied")[:, 3:9].any()


def test_forces_accelerate_by_hand() -> None:
    """1 N on the finger (0.5 kg): after one step of 0.01 s it moves with 0.01 / 0.5 = 0.02 m/s."""
    sim = simulator(2)
    isaac = IsaacTensors(sim)
    forces = torch.zeros(2, 4)
    forces[1, 2] = 1.0
    isaac.set_dof_actuation_force_tensor(forces.flatten())
    sim.step(1)
    isaac.refresh_dof_state()
    speeds = isaac.dof_state.view(2, 4, 2)[:, 2, 1]
    np.testing.assert_allclose(speeds, [0, 0.02], rtol=1e-5, atol=1e-9)


def test_models_without_what_is_set_are_named() -> None:
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body name='post'><joint/><geom size='1'/></body></worldbody></mujoco>"
    )
    isaac = IsaacTensors(make_simulator(model, 1, threads=1))
    with pytest.raises(ValueError, match=r"none of the actors \['post'\] has a free joint"):
        isaac.set_actor_root_state_tensor_indexed(isaac.root_states, torch.tensor([0]))
    with pytest.raises(ValueError, match="no position actuator"):
        isaac.set_dof_position_target_tensor(torch.zeros(1))
    with pytest.raises(ValueError, match="no position actuator"):
        isaac.set_dof_position_target_tensor_indexed(torch.zeros(1), torch.tensor([0]))


def test_the_same_tensors_of_a_task(sliding_mass: Any) -> None:
    task = sliding_mass(3, threads=1)
    isaac = IsaacTensors(task.sim)
    task.step(torch.ones(3, 1))
    isaac.refresh_dof_state()
    isaac.refresh_actor_root_state()
    assert torch.equal(isaac.dof_state[:, 0], task.obs_dict["raw"][:, 0])
    np.testing.assert_allclose(isaac.root_states[:, 7], task.obs_dict["obs"][:, 1], rtol=1e-6)
    isaac.set_dof_state_tensor_indexed(torch.full((3, 2), 0.25), torch.tensor([1]))
    task.sim.forward(Rows.of_indices(torch.tensor([1]), 3))
    isaac.refresh_dof_state()
    assert isaac.dof_state[1].tolist() == [0.25, 0.25]
