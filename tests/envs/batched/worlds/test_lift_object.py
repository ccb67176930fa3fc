"""LiftObject: objects are what MuJoCo would compile, rest on the table, and can be lifted."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.worlds.lift_object import LiftObject
from tutelage.envs.batched.worlds.object_families import (
    FAMILIES,
    FEATURES,
    HELD_OUT_FAMILIES,
    SLOTS,
    TRAIN_FAMILIES,
    ObjectMaker,
    Objects,
    family_indices,
)

ALL = tuple(FAMILIES)
USUAL = {"scale": 0.018, "aspect": 0.5, "mass": 0.1, "friction": 0.8, "x": 0.0, "y": 0.0, "yaw": 0.0}


def make(
    *tasks: dict[str, float], families: tuple[str, ...] = ALL, seeds: list[int] | None = None
) -> LiftObject:
    """A batch that runs these tasks, each given by its ``family`` and what differs from `USUAL`."""
    lift = LiftObject(len(tasks), families=families, threads=1)
    lift.auto_reset = False
    vectors = np.array([[task["family"], *({**USUAL, **task}[name] for name in USUAL)] for task in tasks])
    lift.start(torch.arange(len(tasks)), vectors, seeds or list(range(len(tasks))))
    return lift


def make_all(each: int, seed: int = 0) -> LiftObject:
    """A batch of `each` random tasks of every family."""
    lift = LiftObject(each * len(ALL), families=ALL, threads=1)
    lift.auto_reset = False
    tasks = lift.task_space.sample(np.random.default_rng(seed), lift.num_envs)
    tasks[:, 0] = np.repeat(np.arange(len(ALL)), each) + 0.5
    lift.start(torch.arange(lift.num_envs), tasks, list(range(lift.num_envs)))
    return lift


def one_of(family: str, scale: float, aspect: float) -> Objects:
    """One object."""
    return ObjectMaker().make(
        torch.tensor(family_indices([family])), torch.tensor([scale]), torch.tensor([aspect])
    )


def compiled(made: Objects, density: float) -> mujoco.MjModel:
    """The same object as a model of its own: only the parts in use, mass and inertia by MuJoCo's compiler."""
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint()
    for slot, kind in enumerate(SLOTS):
        if made.used[0, slot]:
            body.add_geom(
                type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"),
                size=made.size[0, slot].tolist(),
                pos=made.position[0, slot].tolist(),
                quat=made.quat[0, slot].tolist(),
                density=density,
            )
    return spec.compile()


def matrix(quat: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inertia as a matrix, from principal moments and their axes."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, quat)
    axes = rotation.reshape(3, 3)
    return np.asarray(axes @ np.diag(moments) @ axes.T)


def scripted(lift: LiftObject) -> Tensor:
    """Go above the place to grasp and turn, go down, close, go up."""
    now = lift.progress_buf
    down, close, up = now >= 15, now >= 28, now >= 40
    aim = lift.to_grasp.clone()
    aim[:, 2] = torch.where(down, aim[:, 2], 0.0)
    actions = torch.zeros(lift.num_envs, 5)
    actions[:, :3] = 35 * (aim - (lift.targets[:, :3] - lift.qpos[:, :3]))
    actions[:, 3] = 3 * (torch.remainder(lift.twist + math.pi / 2, math.pi) - math.pi / 2)
    actions[close] = 0.0
    actions[:, 4] = torch.where(close, -1.0, 1.0)
    actions[:, 2] = torch.where(up, 0.5, actions[:, 2])
    return actions.clamp(-1, 1)


def put(lift: LiftObject, hand: list[float], thing: list[float]) -> None:
    """Place gripper (x, y, z, yaw, left, right) and object (position; upright, at yaw 0)."""
    lift.sim.write("qpos", torch.tensor([[*hand, *thing, 1, 0, 0, 0]]).expand(lift.num_envs, -1))
    lift.sim.forward()
    lift.post_physics_step()


# --- families ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aspect", [0.0, 1.0])
@pytest.mark.parametrize("family", ALL)
def test_mass_and_inertia_are_those_of_mujocos_compiler(family: str, aspect: float) -> None:
    made = one_of(family, 0.02, aspect)
    model = compiled(made, density=500.0)
    mass = model.body_mass[1]
    assert 500 * made.volume.item() == pytest.approx(mass, rel=1e-5)
    assert model.body_ipos[1] == pytest.approx(np.zeros(3), abs=1e-7)  # the origin is the centre of mass
    ours = matrix(made.inertia_quat[0].double().numpy(), made.inertia[0].double().numpy() * mass)
    theirs = matrix(model.body_iquat[1], model.body_inertia[1])
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4 * theirs.max())


@pytest.mark.parametrize("aspect", [0.0, 1.0])
@pytest.mark.parametrize("family", ALL)
def test_parts_touch_without_overlap(family: str, aspect: float) -> None:
    made = one_of(family, 0.02, aspect)
    model = compiled(made, density=500.0)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    gaps = np.array(
        [
            [mujoco.mj_geomDistance(model, data, a, b, 1.0, None) for a in range(model.ngeom) if a != b]
            for b in range(model.ngeom)
        ]
    )
    allowed = 0.003 if family == "dumbbell" else 1e-6  # its balls sink into the ends of the bar
    assert (gaps > -allowed).all()
    if model.ngeom > 1:
        assert (gaps.min(axis=1) < 1e-3).all()  # all in one piece


def test_features_in_numbers() -> None:
    box = one_of("box", 0.02, 0.4)
    features = dict(zip(FEATURES, box.features[0].tolist(), strict=True))
    half = 0.02 * np.array([1 + 0.4 * 1.5, 1, 1 + 0.4 * 0.3])
    assert features["reach_0"] == features["reach_180"] == pytest.approx(half[0])
    assert features["reach_90"] == pytest.approx(half[1])
    assert features["reach_45"] == pytest.approx((half[0] + half[1]) * math.sqrt(0.5))
    assert features["reach_up"] == pytest.approx(half[2])
    assert features["inertia_z"] == pytest.approx(math.sqrt((half[0] ** 2 + half[1] ** 2) / 3))
    assert features["solidity"] == pytest.approx(1.0)
    dumbbell = one_of("dumbbell", 0.02, 1.0)
    assert dumbbell.features[0, 0].item() == pytest.approx(0.02 * (2.27 + 0.6 + 0.01 + 1.0))
    assert dumbbell.height.item() == pytest.approx(0.02)
    cylinder = one_of("cylinder", 0.02, 0.0)
    assert cylinder.features[0, 1].item() == pytest.approx(0.02)  # round: the same at 45 degrees
    assert cylinder.features[0, -1].item() == pytest.approx(math.pi / 4)


def test_train_and_held_out_families_are_all_families() -> None:
    assert sorted((*TRAIN_FAMILIES, *HELD_OUT_FAMILIES)) == sorted(FAMILIES)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown family of objects 'cylindre'; did you mean 'cylinder'\?"):
        LiftObject(1, families=("cylindre",))
    with pytest.raises(ValueError, match="at least one family"):
        LiftObject(1, families=())


# --- the task ------------------------------------------------------------------------------------------


def test_views_and_model() -> None:
    lift = LiftObject(2, threads=1)
    assert (lift.model.nq, lift.model.nv, lift.model.nu) == (13, 12, 6)
    sizes = {name: view.shape for name, view in lift.views.items()}
    assert sizes == {"policy": (2, 17), "privileged": (2, 58), "labelled": (2, 70)}
    assert lift.families == TRAIN_FAMILIES
    labels = lift.views["labelled"][:, 58:]
    assert labels.argmax(1).tolist() == lift.family.tolist()
    assert labels.sum(1).tolist() == [1, 1]


def test_task_parameters_reach_each_model() -> None:
    lift = make(
        {"family": 3.5, "mass": 0.2, "friction": 0.6, "x": 0.05, "y": -0.03, "yaw": 0.5}, {"family": 5.0}
    )
    assert [ALL[i] for i in lift.family.tolist()] == ["ell", "dumbbell"]
    for i, family in enumerate(("ell", "dumbbell")):
        made = one_of(family, 0.018, 0.5)
        model, mass = lift.sim.batch.get_model(i), (0.2, 0.1)[i]
        alone = compiled(made, density=mass / made.volume.item())
        assert model.body("object").mass[0] == pytest.approx(mass)
        assert model.body("object").ipos.tolist() == [0, 0, 0]
        ours = matrix(model.body("object").iquat, model.body("object").inertia)
        theirs = matrix(alone.body_iquat[1], alone.body_inertia[1])
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4 * theirs.max())
        assert model.body("object").invweight0[0] == pytest.approx(alone.body_invweight0[1, 0], rel=1e-4)
        parts = [model.geom(f"part{slot}") for slot in range(len(SLOTS)) if made.used[0, slot]]
        assert [part.rbound[0] for part in parts] == pytest.approx(alone.geom_rbound.tolist())
        assert parts[0].friction[0] == pytest.approx((0.6, 0.8)[i])
    assert lift.qpos[0, 6:8].tolist() == pytest.approx([0.05, -0.03])
    assert torch.atan2(lift.rotation[0, 1, 0], lift.rotation[0, 0, 0]).item() == pytest.approx(0.5)


def test_the_family_is_the_whole_part_of_its_parameter() -> None:
    lift = make({"family": 0.0}, {"family": 0.999}, {"family": 1.0}, {"family": 2.0}, families=("mug", "box"))
    assert [ALL[i] for i in lift.family.tolist()] == ["mug", "mug", "box", "box"]


def test_all_objects_rest_on_the_table() -> None:
    lift = make_all(each=12)
    before = lift.qpos.clone()
    speed = torch.zeros(lift.num_envs)
    for step in range(60):
        lift.step(torch.zeros(lift.num_envs, 5))
        if step > 5:
            speed = torch.maximum(speed, lift.qvel[:, 6:].abs().amax(1))
    assert (lift.qpos[:, 6:9] - before[:, 6:9]).abs().max() < 1e-3
    assert speed.max() < 0.04  # nothing stirs again; capsules roll by the slight lean of gravity
    assert (1 - (lift.qpos[:, 9:] * before[:, 9:]).sum(1).abs()).max() < 1e-3  # not toppled


def test_reward_terms() -> None:
    lift = make({"family": 0.5})  # a box: grasped at its centre, 0.036 m wide
    height = one_of("box", 0.018, 0.5).height.item()
    put(lift, [0, 0, 0.17, math.pi / 6, 0.03, 0.03], [0.03, 0, height + 0.06])
    across, down = 0.03, height + 0.06 - 0.17
    distance = math.hypot(across, down)
    near = math.exp(-((distance / 0.03) ** 2))
    aligned = (1 + math.cos(math.pi / 3)) / 2
    lift.actions[:] = 0.5
    terms = {name: term.item() for name, term in lift.compute_rewards().items()}
    assert terms == pytest.approx(
        {
            "approach": 0.5 * (1 - math.tanh(8 * distance)),
            "align": 0.2 * aligned,
            "grasp": 0.5 * near * aligned * (1 - (0.06 - 0.036) / (0.11 - 0.036)),
            "lift": 2 * near * 0.06 / 0.12,
            "hold": 0.0,
            "effort": -0.01 * 5 * 0.25,
        },
        rel=1e-4,
    )


def test_success_is_lifted_and_held() -> None:
    lift = make({"family": 0.5})
    height = one_of("box", 0.018, 0.5).height.item()
    for rise, offset, expected in ((0.11, 0.0, True), (0.09, 0.0, False), (0.11, 0.05, False)):
        put(lift, [offset, 0, height + rise, 0, 0.018, 0.018], [0, 0, height + rise])
        ended, success = lift.compute_outcomes()
        assert not ended.item()
        assert success.item() is expected


def test_the_fingers_can_be_swapped() -> None:
    lift = make({"family": 3.5})
    views = []
    for yaw in (-1.2, -1.2 + math.pi):
        put(lift, [0, 0, 0.1, yaw, 0.05, 0.05], [0.01, 0.02, 0.02])
        views.append(lift.compute_views()["privileged"].clone())
    assert views[0][0, 3] != views[1][0, 3]
    assert torch.allclose(views[0][0, 17:], views[1][0, 17:], atol=1e-5)


def test_a_lost_object_ends_the_episode() -> None:
    lift = make({"family": 0.5}, {"family": 0.5})
    qpos = lift.qpos.clone()
    qpos[0, 6] = 0.31
    lift.sim.write("qpos", qpos)
    _, _, reset, extras = lift.step(torch.zeros(2, 5))
    assert reset.tolist() == [1, 0]
    assert not extras["time_outs"].any()


def test_a_scripted_gripper_lifts_every_family() -> None:
    lift = make_all(each=16, seed=1)
    for _ in range(74):
        assert not lift.step(scripted(lift))[2].any()
    _, _, reset, extras = lift.step(scripted(lift))
    assert reset.all()
    assert extras["time_outs"].all()
    assert lift.num_diverged == 0
    rates = lift.success.float().view(len(ALL), 16).mean(1)
    assert rates.min() >= 15 / 16, dict(zip(ALL, rates.tolist(), strict=True))


def test_an_episode_depends_on_its_task_and_seed_alone() -> None:
    task = {"family": 6.5, "x": 0.03, "yaw": 0.4}
    alone = make(task, seeds=[7])
    among = make({"family": 1.5}, {"family": 4.5}, task, seeds=[1, 2, 7])
    for _ in range(50):
        alone.step(scripted(alone))
        among.step(scripted(among))
    assert torch.equal(alone.obs_buf[0], among.obs_buf[2])


def test_resets_by_mask_as_on_a_gpu_are_resets_by_index() -> None:
    tasks = [LiftObject(6, threads=1, seed=3) for _ in range(2)]
    tasks[1]._rows_of = lambda done: Rows.of_mask(done)  # type: ignore[method-assign]
    for task in tasks:
        task.max_episode_length = 4
        task.progress_buf[:] = torch.arange(6) % 3  # so that they end at different times
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        actions = torch.rand(6, 5, generator=generator) * 2 - 1
        for task in tasks:
            task.step(actions)
        assert torch.equal(tasks[0].obs_buf, tasks[1].obs_buf)
        assert torch.equal(tasks[0].rew_buf, tasks[1].rew_buf)


@pytest.mark.xdist_group("warp")
def test_both_simulators_lift_alike() -> None:
    lift = make_all(each=1)
    warp = LiftObject(lift.num_envs, families=ALL, backend="warp")
    warp.auto_reset = False
    warp.start(torch.arange(lift.num_envs), lift.tasks.numpy(), list(range(lift.num_envs)))
    assert torch.allclose(lift.obs_buf, warp.obs_buf, atol=1e-5)
    for _ in range(75):
        actions = scripted(lift)
        lift.step(actions)
        warp.step(actions)
    assert (lift.qpos - warp.qpos).abs().max() < 0.01
    assert lift.success.all()
    assert warp.success.all()
