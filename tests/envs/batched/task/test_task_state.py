"""Saved episodes of batched tasks: what is refused, and that nothing is changed then."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tutelage.envs.contract.state import StateError
from tutelage.envs.contract.tasks import BoxTasks

Change = Callable[[dict[str, Any]], Any]


def remove(*path: str) -> Change:
    def change(state: dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        del state[path[-1]]

    return change


def put(value: Any, *path: str) -> Change:
    def change(state: dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        state[path[-1]] = value(state.get(path[-1])) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict.clear, "the state lacks 'buffers', 'class', .*'term_sums'$"),
        (remove("keys"), "the state lacks 'keys'$"),
        (put(1, "other"), "the state has unknown 'other'"),
        (put("Reach", "class"), "of the task Reach; these environments are SlidingMass"),
        (put(["goal"], "task_parameters"), r"parameters \['goal'\]; these .* \['goal', 'mass'\]"),
        (
            remove("model", "body_mass"),
            "'model' of the state lacks 'body_mass'; make them with the same model",
        ),
        (put(np.zeros(3), "model", "geom_rgba"), "'model' of the state has unknown 'geom_rgba'"),
        (put(None, "model"), "'model' of the state is a NoneType"),
        (
            put(lambda a: a[:, :1], "buffers", "tasks"),
            r"'buffers/tasks' .* \(3, 1\), not float64 .* \(3, 2\)",
        ),
        (put(lambda a: a.astype(np.float32), "buffers", "tasks"), "'buffers/tasks' of the state is float32"),
        (put([1, 2, 3], "buffers", "progress_buf"), "'buffers/progress_buf' of the state is a list"),
        (remove("buffers", "reset_buf"), "'buffers' of the state lacks 'reset_buf'"),
        (
            put(lambda a: a[:, :3], "physics"),
            "'physics' of the state .*the model or the simulator is another",
        ),
        (put(lambda a: a[:2], "positions"), "'positions' of the state"),
        (put(lambda a: a[:2], "keys"), "of 2 environments; expected 3 of SlidingMass"),
        (put(np.zeros(1, np.float32), "term_sums", "goal"), "'term_sums/goal'"),
        (put("many", "num_diverged"), "'num_diverged' of the state is 'many'"),
    ],
)
def test_damaged_states_are_refused_with_nothing_changed(
    sliding_mass: Any, change: Change, message: str
) -> None:
    task, other = (sliding_mass(3, threads=1, seed=seed) for seed in (0, 1))
    for each in (task, other):
        each.step(each.zero_actions())
    before, state = task.state_dict(), other.state_dict()
    change(state)
    with pytest.raises(StateError, match=message):
        task.load_state_dict(state)
    np.testing.assert_equal(task.state_dict(), before)


def test_states_of_others_are_refused(sliding_mass: Any) -> None:
    class Coloured(sliding_mass):  # type: ignore[misc]
        model_fields = ("body_mass", "geom_rgba")

    class Renamed(sliding_mass):  # type: ignore[misc]
        task_space = BoxTasks({"aim": (0.5, 1.5), "mass": (1.0, 4.0)})

        def parameter(self, name: str) -> Any:
            return super().parameter("aim" if name == "goal" else name)

    Coloured.__name__ = Renamed.__name__ = "SlidingMass"
    task = sliding_mass(3, threads=1)
    for other, message in (
        (sliding_mass(2, threads=1), "of 2 environments; expected 3 of SlidingMass"),
        (sliding_mass(3, threads=1, view_noise={"policy": 0.1}), "unknown 'policy'; .* the same view_noise"),
        (Coloured(3, threads=1), "unknown 'geom_rgba'; make them with the same model fields"),
        (Renamed(3, threads=1), r"\['aim', 'mass'\]; these environments are \['goal', 'mass'\]"),
    ):
        with pytest.raises(StateError, match=message):
            task.load_state_dict(other.state_dict())


def test_means_of_before_are_forgotten(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    state = task.state_dict()
    for _ in range(12):
        task.step(task.zero_actions())
    assert task.extras["log"]["episode/count"] == 2
    task.load_state_dict(state)
    log = task.log.means(task.reset_buf.bool(), task.progress_buf, task.success)
    assert log["episode/count"] == 0
    assert log["episode/length"].isnan()
