"""GeoCurriculum: the tasks of each level by hand, and when the next one begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.teachers.continuous.geo_curriculum import (
    GeoCurriculum,
    GeoCurriculumConfig,
    hierarchy,
    k_means,
    standardized,
    task_features,
)

SPACE = BoxTasks({"a": (0.0, 1.0), "b": (-2.0, 2.0)})


def build(seed: int = 0, space: BoxTasks = SPACE, **settings: Any) -> GeoCurriculum:
    config = GeoCurriculumConfig(**{"tasks": 200, "splits": (4, 3), "episodes": 10, "patience": 3} | settings)
    return GeoCurriculum(space, np.random.default_rng(seed), config)


def attempt(geo: GeoCurriculum, n: int, success: float) -> None:
    tasks = geo.propose(n)
    geo.observe(Episodes.of(tasks, np.zeros(n), successes=np.full(n, success)))


class TestHierarchy:
    def test_levels_by_hand(self) -> None:
        # Four groups of three on a line, the middle of each at 0, 10, 20, 30 but for one far-off centre task
        line = np.array([-1, 0, 1, 9, 10, 11, 19, 20, 21, 29, 30, 31, 14.9])[:, None]
        rows, sizes = hierarchy(line, (4,))
        # The mean is (180 + 14.9) / 13 = 14.99; groups: {14.9, 9, 10, 11} has the mean 11.225, nearest: 11
        assert sizes == [1, 5]
        assert line[rows, 0].tolist()[0] == 14.9
        assert sorted(line[rows[1:], 0].tolist()) == [0, 11, 20, 30]

    def test_levels_are_nested_and_each_task_comes_once(self) -> None:
        points = np.random.default_rng(0).random((300, 3))
        rows, sizes = hierarchy(points, (5, 4, 2))
        assert sizes[0] == 1
        assert sizes == sorted(sizes)
        assert len(set(rows.tolist())) == len(rows) == sizes[-1]
        # at most 1 + 5 + 5 * 4 + 5 * 4 * 2, less what was there before
        assert sizes[1] <= 6
        assert sizes[2] <= 26
        assert 40 <= sizes[3] <= 66

    def test_each_level_covers_the_space_better(self) -> None:
        points = np.random.default_rng(1).random((500, 2))
        rows, sizes = hierarchy(points, (6, 6))
        gaps = []
        for size in sizes:
            apart = np.linalg.norm(points[:, None] - points[rows[:size]], axis=2)
            gaps.append(apart.min(axis=1).max())
        assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2]

    def test_equal_tasks_and_fewer_tasks_than_clusters(self) -> None:
        rows, sizes = hierarchy(np.ones((7, 2)), (3, 3))
        assert (rows.tolist(), sizes) == ([0], [1, 1, 1])
        rows, sizes = hierarchy(np.array([[0.0], [1.0], [5.0]]), (10,))
        assert sorted(rows.tolist()) == [0, 1, 2]

    def test_k_means_finds_groups(self) -> None:
        rng = np.random.default_rng(2)
        groups = np.concatenate([rng.normal(centre, 0.1, (20, 2)) for centre in (0, 3, 9)])
        labels, centres = k_means(groups, 3)
        assert len({tuple(labels[i : i + 20]) for i in (0, 20, 40)}) == 3
        assert all(len(set(labels[i : i + 20])) == 1 for i in (0, 20, 40))
        np.testing.assert_allclose(np.sort(centres[:, 0]), [0, 3, 9], atol=0.1)


class TestFeatures:
    def test_the_spaces_own_decide_what_is_near(self) -> None:
        class Folded(BoxTasks):
            """Tasks at both ends are the same thing."""

            def features(self, tasks: Any) -> Any:
                return np.abs(np.asarray(tasks)[:, :1] - 0.5)

        space = Folded({"a": (0.0, 1.0)})
        np.testing.assert_allclose(task_features(space, np.array([[0.0], [1.0], [0.5]])), [[0.5], [0.5], [0]])
        first = build(space=space).propose(1)
        assert abs(abs(first[0, 0] - 0.5) - 0.25) < 0.02  # the mean of the feature is 0.25

    def test_a_plain_box_has_its_unit_cube(self) -> None:
        np.testing.assert_allclose(task_features(SPACE, np.array([[0.5, -2.0]])), [[0.5, 0.0]])

    def test_columns_that_do_not_vary_say_nothing(self) -> None:
        features = standardized(np.array([[1.0, 5.0], [3.0, 5.0]]))
        np.testing.assert_allclose(features, [[-1, 0], [1, 0]])


class TestLevels:
    def test_it_goes_from_one_to_some_to_all(self) -> None:
        geo = build()
        counts = []
        for level in range(3):
            assert geo.metrics()["level"] == level
            counts.append(len(np.unique(geo.propose(2000), axis=0)))
            assert counts[-1] == geo.metrics()["tasks"]
            attempt(geo, 40, 1.0)
        assert counts[0] == 1
        assert counts[1] in (4, 5)
        assert 12 <= counts[2] <= 17
        assert geo.metrics() == {"level": 3.0, "tasks": 0.0, "success": 1.0}
        assert len(np.unique(geo.propose(2000), axis=0)) == 2000

    def test_a_whole_batch_of_one_level_raises_it_once(self) -> None:
        geo = build()
        attempt(geo, 1000, 1.0)  # 990 episodes of level 0 end after level 1 has begun
        assert geo.level == 1

    def test_success_below_the_threshold_waits_and_patience_ends_that(self) -> None:
        geo = build(success_threshold=0.6)
        tasks = geo.propose(10)
        for successes, level in (([1] * 5 + [0] * 5, 0), ([1] * 6 + [0] * 4, 1)):
            geo.observe(Episodes.of(tasks, np.zeros(10), successes=successes))
            assert geo.level == level
        assert geo.metrics()["success"] == 0.6
        impatient = build()
        for level in (0, 0, 1):
            attempt(impatient, 10, 0.0)
            assert impatient.level == level
        new = impatient._new[np.zeros(10, dtype=int)]
        for level in (1, 1, 2):  # and as much patience with the next
            impatient.observe(Episodes.of(new, np.zeros(10), successes=np.zeros(10)))
            assert impatient.level == level

    def test_what_is_not_new_does_not_count(self) -> None:
        geo = build()
        old = geo.propose(10)
        attempt(geo, 10, 1.0)
        for _ in range(20):
            geo.observe(Episodes.of(old, np.zeros(10), successes=np.ones(10)))
        assert geo.level == 1
        assert geo.metrics()["success"] == 1.0

    def test_returns_stand_in_for_success_only_if_told(self) -> None:
        told, untold = build(mastered_return=5.0), build()
        for geo, level in ((told, 1), (untold, 0)):
            tasks = geo.propose(10)
            geo.observe(Episodes.of(tasks, np.r_[np.full(7, 5.0), np.full(3, 4.9)]))
            assert geo.level == level

    @pytest.mark.parametrize(
        "wrong", [{"success_threshold": 1.1}, {"episodes": 0}, {"splits": (3, 0)}, {"tasks": 0}]
    )
    def test_wrong_settings_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"share from 0 to 1|at least 1"):
            build(**wrong)

    @pytest.mark.parametrize("windows", [1, 2, 4, 6])
    def test_it_goes_on_as_if_never_interrupted(self, windows: int) -> None:
        """From any level, within an average; the contract's task teachers see no second level."""

        def go(geo: GeoCurriculum, batches: int) -> list[float]:
            seen = []
            for _ in range(batches):
                tasks = geo.propose(5)
                seen += [*tasks.flatten(), *geo.metrics().values()]
                geo.observe(Episodes.of(tasks, np.zeros(5), successes=tasks[:, 0] > 0.3))
            return seen

        whole = build(splits=(4, 3), patience=2, success_threshold=0.9)
        go(whole, 2 * windows + 1)
        resumed = build(seed=9, splits=(4, 3), patience=2, success_threshold=0.9)
        resumed.load_state_dict(whole.state_dict())
        assert go(resumed, 12) == go(whole, 12)

    def test_a_toy_that_needs_its_like_is_learnt(self) -> None:
        """A student that learns a task only near one that it knows: random tasks are lost on it."""
        rng = np.random.default_rng(0)
        geo = build(tasks=400, splits=(20, 10), episodes=40, patience=50)
        known = geo.propose(1)

        def learn(tasks: Any) -> Any:
            nonlocal known
            apart = np.linalg.norm(SPACE.to_unit(tasks)[:, None] - SPACE.to_unit(known), axis=2).min(axis=1)
            learnt = (apart < 0.3) & (rng.random(len(tasks)) < 0.5)
            known = np.concatenate([known, tasks[learnt]])
            return (apart < 0.1) * 1.0

        levels = []
        for _ in range(150):
            tasks = geo.propose(20)
            geo.observe(Episodes.of(tasks, np.zeros(20), successes=learn(tasks)))
            levels.append(geo.level)
        assert levels[-1] == geo.last_level
        assert np.diff(levels).max() == 1
