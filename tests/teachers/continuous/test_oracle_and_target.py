"""The hand-made curriculum and the target-only baseline by hand."""

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.teachers import Oracle, OracleConfig, TargetOnly, TargetOnlyConfig, TaskKnowledge

SPACE = BoxTasks({"height": (0.0, 3.0), "spacing": (0.0, 6.0)})
KNOWLEDGE = TaskKnowledge((0.0, 6.0), (0.3, 0.6), (2.5, 1.0), (0.1, 0.2), 230.0, (-150.0, 350.0))


def window(task_teacher):
    boxes = task_teacher.picture()["boxes"]
    return [*boxes["low"][0], *boxes["high"][0]]


def test_the_oracle_slides_from_easy_to_hard():
    config = OracleConfig.for_environment(KNOWLEDGE)
    assert config.direction == (1.0, -1.0)
    oracle = Oracle(SPACE, np.random.default_rng(0), config)
    # A sixth of each range: [0, 0.5] and [5, 6].
    np.testing.assert_allclose(window(oracle), [0.0, 5.0, 0.5, 6.0])
    oracle.observe(Episodes.of(oracle.propose(50), np.full(50, 229.0)))
    np.testing.assert_allclose(window(oracle), [0.0, 5.0, 0.5, 6.0])
    oracle.observe(Episodes.of(oracle.propose(49), np.full(49, 231.0)))
    np.testing.assert_allclose(window(oracle), [0.0, 5.0, 0.5, 6.0])
    # The fiftieth: the steps are those of the paper, 0.1 in height and -0.2 in spacing.
    oracle.observe(Episodes.of(oracle.propose(1), [231.0]))
    np.testing.assert_allclose(window(oracle), [0.1, 4.8, 0.6, 5.8])
    oracle.observe(Episodes.of(oracle.propose(3000), np.full(3000, 300.0)))
    np.testing.assert_allclose(window(oracle), [2.5, 0.0, 3.0, 1.0], atol=1e-12)
    assert oracle.metrics() == {"position": pytest.approx(1.0), "mean_return": 300.0}


def test_a_parameter_without_direction_spans_its_range():
    oracle = Oracle(SPACE, np.random.default_rng(0), OracleConfig((0.0, 1.0), 230.0))
    np.testing.assert_allclose(window(oracle), [0.0, 0.0, 3.0, 1.0])
    with pytest.raises(ValueError, match="direction"):
        Oracle(SPACE, np.random.default_rng(0), OracleConfig((0.0, 0.0), 230.0))


def test_target_only_draws_the_target_distribution():
    target = TargetOnly(SPACE, np.random.default_rng(0), TargetOnlyConfig.for_environment(KNOWLEDGE))
    tasks = target.propose(20_000)
    np.testing.assert_allclose(tasks.mean(axis=0), [2.5, 1.0], atol=0.01)
    np.testing.assert_allclose(tasks.std(axis=0), [0.1, 0.2], rtol=0.03)


def test_a_target_at_the_border_is_clipped_and_a_point_is_allowed():
    target = TargetOnly(SPACE, np.random.default_rng(0), TargetOnlyConfig((3.0, 1.0), (0.1, 0.0)))
    tasks = target.propose(2000)
    assert (tasks[:, 0] == 3.0).mean() == pytest.approx(0.5, abs=0.05)
    assert (tasks[:, 1] == 1.0).all()
    with pytest.raises(ValueError, match="std"):
        TargetOnly(SPACE, np.random.default_rng(0), TargetOnlyConfig((3.0, 1.0), (0.1, -0.1)))
