"""ADR's moves of its box by hand."""

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks, TaskError
from tutelage.teachers import ADR, ADRConfig, TaskKnowledge

SPACE = BoxTasks({"x": (0.0, 10.0), "y": (0.0, 1.0)})
CONFIG = ADRConfig(start=(5.0, 0.2), grow_return=8.0, shrink_return=2.0, queue=3)


def box(task_teacher):
    boxes = task_teacher.picture()["boxes"]
    return [*boxes["low"][0], *boxes["high"][0]]


def observe(task_teacher, task, *returns):
    task_teacher.observe(Episodes.of(np.tile(task, (len(returns), 1)), list(returns)))


def test_begins_with_one_task_and_grows_on_every_face():
    task_teacher = ADR(SPACE, np.random.default_rng(0), CONFIG)
    np.testing.assert_array_equal(task_teacher.propose(20), np.tile([5.0, 0.2], (20, 1)))
    observe(task_teacher, [5.0, 0.2], 8.0, 8.0)
    assert box(task_teacher) == [5.0, 0.2, 5.0, 0.2]
    observe(task_teacher, [5.0, 0.2], 8.0)  # mean 8 >= 8: a tenth of each range
    np.testing.assert_allclose(box(task_teacher), [4.0, 0.1, 6.0, 0.3])


def test_faces_move_one_by_one():
    task_teacher = ADR(SPACE, np.random.default_rng(0), CONFIG)
    observe(task_teacher, [5.0, 0.2], 9.0, 9.0, 9.0)
    observe(task_teacher, [6.0, 0.25], 9.0, 7.5, 7.5)  # upper face of x, mean 8
    np.testing.assert_allclose(box(task_teacher), [4.0, 0.1, 7.0, 0.3])
    observe(task_teacher, [6.5, 0.1], 1.0, 2.0, 3.0)  # lower face of y, mean 2: inwards
    np.testing.assert_allclose(box(task_teacher), [4.0, 0.2, 7.0, 0.3])
    observe(task_teacher, [6.5, 0.25], 9.0, 9.0, 9.0)  # inside: nothing
    observe(task_teacher, [6.0, 0.25], 9.0, 9.0, 9.0)  # where the face was before: nothing
    observe(task_teacher, [7.0, 0.25], 5.0, 5.0, 5.0)  # between the thresholds: nothing
    np.testing.assert_allclose(box(task_teacher), [4.0, 0.2, 7.0, 0.3])


def test_faces_never_cross_nor_leave_the_space():
    task_teacher = ADR(SPACE, np.random.default_rng(0), CONFIG)
    observe(task_teacher, [5.0, 0.2], 0.0, 0.0, 0.0)
    assert box(task_teacher) == [5.0, 0.2, 5.0, 0.2]
    for _ in range(40):
        tasks = task_teacher.propose(50)
        task_teacher.observe(Episodes.of(tasks, np.full(50, 9.0)))
    assert box(task_teacher) == [0.0, 0.0, 10.0, 1.0]
    assert task_teacher.metrics() == {"log_volume": 0.0, "extent": 1.0}


def test_a_face_at_the_end_leaves_its_share_to_the_opposite_one():
    task_teacher = ADR(SPACE, np.random.default_rng(0), ADRConfig((0.0, 0.5), 8.0, 2.0, boundary_ratio=1.0))
    observe(task_teacher, [0.0, 0.5], *[9.0] * 10)  # box [0, 1] x [0.4, 0.6]; x cannot fall below 0
    tasks = task_teacher.propose(4000)
    np.testing.assert_allclose((tasks[:, 0] == 1.0).mean(), 0.5, atol=0.03)
    assert (tasks[:, 0] == 0.0).sum() == 0
    for face in (0.4, 0.6):
        np.testing.assert_allclose(np.isclose(tasks[:, 1], face).mean(), 0.25, atol=0.03)


def test_knowledge_gives_start_and_thresholds():
    knowledge = TaskKnowledge((5.0, 0.2), (1.0, 0.1), (9.0, 0.9), (1.0, 0.1), 230.0, (-150.0, 350.0))
    config = ADRConfig.for_environment(knowledge)
    assert (config.start, config.grow_return, config.shrink_return) == ((5.0, 0.2), 230.0, 40.0)


def test_settings_that_cannot_work_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(TaskError, match="start"):
        ADR(SPACE, rng, ADRConfig((11.0, 0.2), 8.0, 2.0))
    with pytest.raises(ValueError, match="shrink_return"):
        ADR(SPACE, rng, ADRConfig((5.0, 0.2), 2.0, 8.0))
    with pytest.raises(ValueError, match="boundary_ratio"):
        ADR(SPACE, rng, ADRConfig((5.0, 0.2), 8.0, 2.0, boundary_ratio=1.5))
