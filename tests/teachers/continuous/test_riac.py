"""RIAC's progress and splits by hand."""

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.teachers import RIAC, RIACConfig
from tutelage.teachers.continuous.riac import Region, split_progress

SPACE = BoxTasks({"x": (0.0, 1.0), "y": (0.0, 1.0)})


def region_of(*returns, limit=100):
    region = Region(np.zeros(1), np.ones(1))
    for value in returns:
        region.add([0.5], float(value), limit)
    return region


def test_progress_by_hand():
    # older 1, 2, 3 mean 2; newer 5, 9 mean 7
    assert region_of(1, 2, 3, 5, 9).progress(100) == 5.0
    # the last 4: older 2, 3 mean 2.5; newer 5, 9 mean 7
    assert region_of(1, 2, 3, 5, 9).progress(4) == 4.5
    assert region_of(9, 1).progress(100) == 0.0
    assert region_of(4, 4, 0, 0).progress(100) == 4.0


def test_a_region_keeps_its_latest_episodes():
    region = region_of(*range(50), limit=10)
    assert region.returns[-10:] == list(range(40, 50))
    assert len(region.returns) < 20
    np.testing.assert_allclose(np.diff(region.totals), region.returns)


def test_progress_of_subsets_equals_that_of_their_regions():
    rng = np.random.default_rng(0)
    returns, members = rng.random(41), rng.random((30, 41)) < 0.3
    members[0], members[1] = False, True
    expected = [region_of(*returns[m]).progress(100) for m in members]
    np.testing.assert_allclose(split_progress(returns, members), expected, atol=1e-12)


def test_splits_where_progress_differs():
    """Progress only at x > 0.6: the first split is across x, near there, and proposals go to the right."""
    config = RIACConfig(max_region_size=200, split_attempts=400, region_ratio=1.0, random_ratio=0.0)
    task_teacher = RIAC(SPACE, np.random.default_rng(0), config)
    tasks = np.random.default_rng(1).random((201, 2))
    time = np.arange(201) / 201
    task_teacher.observe(Episodes.of(tasks, np.where(tasks[:, 0] > 0.6, time, 0.0)))
    root = task_teacher.regions[0]
    assert root.axis == 0
    assert root.threshold == pytest.approx(0.6, abs=0.05)
    low, high = task_teacher.regions[1:]
    assert (low.high[0], high.low[0]) == (root.threshold, root.threshold)
    assert len(low.tasks) == (tasks[:, 0] <= root.threshold).sum()
    assert len(low.tasks) + len(high.tasks) == 201
    assert (task_teacher.propose(500)[:, 0] >= root.threshold).mean() > 0.9
    assert task_teacher.metrics()["regions"] == 2


def test_limits_of_a_split():
    config = RIACConfig(max_region_size=40, min_extent=0.3)
    task_teacher = RIAC(SPACE, np.random.default_rng(0), config)
    rng = np.random.default_rng(1)
    for _ in range(60):
        tasks = rng.random((50, 2))
        task_teacher.observe(Episodes.of(tasks, rng.random(50)))
    extents = np.stack([r.high - r.low for r in task_teacher.regions])
    assert extents.min() >= 0.3 - 1e-12
    leaves = [r for r in task_teacher.regions if r.children is None]
    assert sum(np.prod(r.high - r.low) for r in leaves) == pytest.approx(1.0)
    assert all(len(r.tasks) <= 40 for r in leaves)
    assert len(leaves) > 4


def test_a_leaf_that_cannot_be_split_forgets_its_oldest_quarter():
    task_teacher = RIAC(SPACE, np.random.default_rng(0), RIACConfig(max_region_size=40, max_regions=1))
    tasks = np.random.default_rng(1).random((41, 2))
    task_teacher.observe(Episodes.of(tasks, np.arange(41.0)))
    assert task_teacher.regions[0].tasks == tasks[10:].tolist()


def test_mutations_surround_the_least_rewarded_task():
    config = RIACConfig(region_ratio=0.0, random_ratio=0.0, mutation_std=0.02)
    task_teacher = RIAC(SPACE, np.random.default_rng(0), config)
    tasks = np.array([[0.2, 0.2], [0.5, 0.7], [0.9, 0.1]])
    task_teacher.observe(Episodes.of(tasks, [3.0, 1.0, 2.0]))
    mutants = task_teacher.propose(500)
    np.testing.assert_allclose(mutants.mean(axis=0), [0.5, 0.7], atol=0.005)
    np.testing.assert_allclose(mutants.std(axis=0), 0.02, rtol=0.15)


def test_inner_boxes_take_part_if_asked():
    for leaves_only in (True, False):
        task_teacher = RIAC(SPACE, np.random.default_rng(0), RIACConfig(leaves_only=leaves_only))
        tasks = np.random.default_rng(1).random((500, 2))
        task_teacher.observe(Episodes.of(tasks, tasks[:, 0] * np.arange(500)))
        everything, leaves = len(task_teacher.regions), task_teacher.picture()["boxes"]["weights"].size
        assert everything == 2 * leaves - 1
        assert task_teacher.metrics()["regions"] == (leaves if leaves_only else everything)


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ValueError, match="max_region_size"):
        RIAC(SPACE, np.random.default_rng(0), RIACConfig(max_region_size=3))
    with pytest.raises(ValueError, match="region_ratio"):
        RIAC(SPACE, np.random.default_rng(0), RIACConfig(region_ratio=0.9))
