"""The task space of LiftObject: features that tell objects apart, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.envs.batched.worlds.lift_object import LiftObject
from tutelage.envs.batched.worlds.object_families import FEATURES, HELD_OUT_FAMILIES, TRAIN_FAMILIES
from tutelage.envs.batched.worlds.object_tasks import ObjectTasks
from tutelage.envs.contract.described_tasks import task_space_from_json
from tutelage.envs.contract.tasks import BoxTasks

SPACE = ObjectTasks(("box", "cylinder"))
#      family scale aspect mass friction x y yaw
BOX = [0.2, 0.02, 1.0, 0.1, 0.8, 0.01, -0.02, 0.5]


def changed(**values: float) -> list[float]:
    return [values.get(name, BOX[i]) for i, name in enumerate(SPACE.names)]


def test_a_box_by_hand() -> None:
    row = dict(zip((*FEATURES, "gx", "gy", "gz", "width", "x", "y", "cos", "sin"),
                   SPACE.features([BOX])[0], strict=True))  # fmt: skip
    # half sizes 0.02 * (1 + 1.5, 1, 1 + 0.3)
    assert row["reach_0"] == pytest.approx(0.05)
    assert row["reach_90"] == pytest.approx(0.02)
    assert row["reach_up"] == pytest.approx(0.026)
    assert row["solidity"] == pytest.approx(1.0)
    assert row["inertia_z"] ** 2 == pytest.approx((0.05**2 + 0.02**2) / 3)
    assert row["width"] == pytest.approx(0.04)
    assert [row[k] for k in ("gx", "gy", "gz")] == pytest.approx([0, 0, 0])
    assert [row[k] for k in ("x", "y", "cos", "sin")] == pytest.approx(
        [0.01, -0.02, np.cos(0.5), np.sin(0.5)]
    )


def test_only_geometry_and_pose_count() -> None:
    same, *others = SPACE.features(
        [
            changed(mass=0.2, friction=1.0, family=0.9),
            changed(aspect=0.0),
            changed(scale=0.015),
            changed(family=1.0),
            changed(yaw=0.0),
            changed(x=0.0),
        ]
    )
    base = SPACE.features([BOX])[0]
    np.testing.assert_array_equal(same, base)
    assert all(np.abs(other - base).max() > 1e-3 for other in others)


def test_the_upper_border_is_the_last_family() -> None:
    ends = SPACE.features([changed(family=2.0), changed(family=1.0)])
    np.testing.assert_array_equal(*ends)


def test_features_do_not_depend_on_which_families_the_space_has() -> None:
    turned = ObjectTasks(("cylinder", "box"))
    np.testing.assert_array_equal(turned.features([changed(family=1.5)]), SPACE.features([BOX]))


def test_it_is_what_the_student_sees_of_the_shape() -> None:
    lift = LiftObject(16, threads=1, seed=3)
    features = lift.task_space.features(lift.tasks.numpy())
    shape = lift.shape.numpy()
    np.testing.assert_allclose(features[:, :12] * 30, shape[:, :12], rtol=1e-5)
    np.testing.assert_allclose(features[:, 12], shape[:, 12], rtol=1e-5)
    np.testing.assert_allclose(features[:, 13:17] * 30, shape[:, 13:], rtol=1e-5, atol=1e-7)


def test_it_is_a_box_that_names_its_families() -> None:
    spaces = [LiftObject(1, threads=1, families=f).task_space for f in (TRAIN_FAMILIES, HELD_OUT_FAMILIES)]
    assert [space.families for space in spaces] == [TRAIN_FAMILIES, HELD_OUT_FAMILIES]
    described = spaces[1].to_json()
    assert described["families"] == list(HELD_OUT_FAMILIES)
    assert task_space_from_json(described) == spaces[1]
    assert isinstance(spaces[1], BoxTasks)
    with pytest.raises(ValueError, match="did you mean 'mug'"):
        ObjectTasks(("mugg",))


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    SPACE.features(SPACE.sample(np.random.default_rng(0), 100))
    assert torch.equal(before, torch.get_rng_state())
