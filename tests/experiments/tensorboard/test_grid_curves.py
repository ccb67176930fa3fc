import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as ServerAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from tutelage.experiments.runs.statistics import bootstrap, iqm
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.tensorboard.grid_curves import (
    GridCurves,
    at_common_steps,
    band_layout,
    iqm_band,
)
from tutelage.experiments.tensorboard.grid_log import CELL_LAYOUT, GridLog

NAN = float("nan")


def write(folder: Path, tag: str, points: dict[int, float], purge_step: int | None = None) -> None:
    with RunLog(folder, purge_step) as log:
        for step, value in points.items():
            log.scalars({tag: value}, step)


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    seen = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}


def categories(folder: Path) -> dict[str, dict[str, str]]:
    """Category -> chart -> tag of its band, or its expressions; folded ones in parentheses."""
    event = ServerAccumulator(str(folder / "_grid")).Reload().Tensors("custom_scalars__config__")[-1]
    layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
    return {
        f"({box.title})" if box.closed else box.title: {
            chart.title: chart.margin.series[0].value if chart.margin.series else chart.multiline.tag[0]
            for chart in box.chart
        }
        for box in layout.category
    }


def test_curves_meet_at_the_steps_of_the_densest() -> None:
    steps, values = at_common_steps(
        [
            ([0, 10, 20, 30], [0.0, 1.0, 2.0, 3.0]),  # the densest
            ([5, 15, 25], [1.0, 3.0, 5.0]),  # at 10: 2, at 20: 4; not before 5, not after 25
            ([12, 40], [0.0, 28.0]),  # reaches further than all; slope 1
        ]
    )
    assert steps.tolist() == [0, 10, 20, 30, 40]
    np.testing.assert_allclose(
        values, [[0, 1, 2, 3, NAN], [NAN, 2, 4, NAN, NAN], [NAN, NAN, 8, 18, 28]], equal_nan=True
    )


def test_means_are_of_the_seeds_that_reach_a_step() -> None:
    values = np.array(
        [[8.0, 1.0, NAN, NAN], [2.0, 3.0, 5.0, NAN], [100.0, 5.0, NAN, NAN], [4.0, NAN, NAN, NAN]]
    )
    band = iqm_band(np.array([0, 1, 2, 3]), values)
    assert band.seeds.tolist() == [4, 3, 1, 0]
    # the middle two of 2, 4, 8, 100; all of 1, 3, 5; one
    np.testing.assert_allclose(band.value, [6.0, 3.0, 5.0, NAN], equal_nan=True)
    assert band.low[2] == band.high[2] == 5.0
    assert np.all(band.low[:2] < band.value[:2])
    assert np.all(band.high[:2] > band.value[:2])


@pytest.mark.parametrize("n", [2, 5, 10])
def test_intervals_are_those_of_the_reports(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 3))
    band = iqm_band(np.arange(3), values)
    for column in range(3):
        wanted = bootstrap([values[:, column]], iqm, np.random.default_rng(1), resamples=20_000)
        width = float(wanted.high - wanted.low)
        assert band.value[column] == pytest.approx(float(wanted.value))
        assert band.low[column] == pytest.approx(float(wanted.low), abs=0.06 * width)
        assert band.high[column] == pytest.approx(float(wanted.high), abs=0.06 * width)


def test_every_curve_of_the_cells_is_logged_over_its_seeds(tmp_path: Path) -> None:
    for seed, offset in enumerate((0.0, 3.0, 9.0)):
        write(tmp_path / f"riac/seed-{seed}", "task_teacher/regions", {s: s + offset for s in (10, 20, 30)})
        with RunLog(tmp_path / f"riac/seed-{seed}", purge_step=21) as log:  # resumed after step 20
            log.scalars({"task_teacher/regions": 50 + offset, "time/fps": 100.0}, 40 if seed else 30)
    cells = {f"riac/seed-{seed}": ("riac", seed) for seed in range(3)}
    log = GridLog(tmp_path, {"score": "score"}, ["riac"], cell_groups=cells)
    log.update(20, "riac", {"score": {0: 1.0, 1: 5.0}})
    log.close()
    found = logged(tmp_path / "_grid" / "riac")
    # seed 0 ends at 30 with 50; the others pass 30 at (20 + 50) / 2 + offset
    assert found["grid/task_teacher/regions"] == [
        (10, 14.0),
        (20, 24.0),
        (30, pytest.approx((50 + 38 + 44) / 3)),
        (40, 56.0),
    ]
    assert found["grid/time/fps"] == [(30, 100.0), (40, 100.0)]
    assert found["grid/score"] == [(20, 3.0)]
    assert found["grid/seeds"] == [(10, 3.0), (20, 2.0), (30, 3.0), (40, 2.0)]
    assert [len(found[f"grid/task_teacher/regions/{end}"]) for end in ("lower", "upper")] == [4, 4]


def test_scores_are_the_same_with_and_without_curves(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((4, 7))
    found = []
    for name in ("with", "without"):
        cells = {f"riac/seed-{seed}": ("riac", seed) for seed in range(7)} if name == "with" else {}
        for cell in cells:
            write(tmp_path / name / cell, "score", {100: 0.5, 200: 0.6, 250: 1.0})
        log = GridLog(tmp_path / name, {"score": "score"}, ["riac"], cell_groups=cells)
        for seed in range(7):
            for step in range(4):
                log.update(100 * step, "riac", {"score": {seed: scores[step, seed]}})
        log.close()
        curves = logged(tmp_path / name / "_grid" / "riac")
        found.append({tag: [p for p in curve if p[0] % 100 == 0] for tag, curve in curves.items()})
    assert found[0] == found[1]


def test_charts_are_filled_with_bands_once_tags_are_known(tmp_path: Path) -> None:
    log = GridLog(tmp_path, {"score": "the score"}, cell_groups={"riac/seed-0": ("riac", 0)})
    assert categories(tmp_path)["Student"]["return in training"] == "^rollout/ep_rew_mean$"
    with RunLog(tmp_path / "riac/seed-0") as cell:
        tags = ["rollout/ep_rew_mean", "task_teacher/a", "task_teacher/b", "time/fps", "train/loss", "lone"]
        cell.scalars(dict.fromkeys(tags, 1.0), 1)
    log.close()
    found = categories(tmp_path)
    assert found["Comparison over seeds"] == {"the score": "grid/score"}
    assert found["Student"] == {"return in training": "grid/rollout/ep_rew_mean"}
    assert list(found["Task teacher"].items()) == [  # shown in reverse
        ("task_teacher/b", "grid/task_teacher/b"),
        ("task_teacher/a", "grid/task_teacher/a"),
    ]
    assert found["Throughput"] == {"environment steps per second": "grid/time/fps"}
    assert found["train"] == {"train/loss": "grid/train/loss"}
    assert found["Others"] == {"lone": "grid/lone"}
    assert found["(Run by run: Student)"]["return in training"] == "^rollout/ep_rew_mean$"
    bands = {tag for name, box in found.items() if name[0] != "(" for tag in box.values() if "^" not in tag}
    assert bands <= {*logged(tmp_path / "_grid" / "riac"), "grid/score"}


def test_band_layout_without_tags_is_empty() -> None:
    assert band_layout([], CELL_LAYOUT) == {}


def test_cells_are_followed_while_they_grow_within_their_share_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = GridLog(tmp_path, {}, cell_groups={f"{g}/seed-0": (g, 0) for g in "ab"}, write_seconds=1.0)
    assert not log.refresh()  # nothing is there yet
    write(tmp_path / "a/seed-0", "x", {1: 1.0})
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    took = [0.0]
    points = log.curves.points

    def slow_points(group: str) -> dict[int, dict[str, float]]:
        clock[0] += took[0]
        return points(group)

    monkeypatch.setattr(log.curves, "points", slow_points)
    clock[0] += 10.0
    assert sum(log.refresh() for _ in range(5)) == 1
    assert logged(tmp_path / "_grid/a")["grid/x"] == [(1, 1.0)]
    write(tmp_path / "a/seed-0", "x", {2: 2.0}, purge_step=2)
    assert not any(log.refresh() for _ in range(5))  # too soon
    clock[0] += 4.0
    took[0] = 2.0
    assert sum(log.refresh() for _ in range(5)) == 1
    assert logged(tmp_path / "_grid/a")["grid/x"] == [(1, 1.0), (2, 2.0)]
    write(tmp_path / "a/seed-0", "x", {3: 3.0}, purge_step=3)
    clock[0] += 37.0  # two seconds of forty are a twentieth
    assert not log.refresh()
    clock[0] += 2.0
    assert log.refresh() or log.refresh()
    assert logged(tmp_path / "_grid/a")["grid/x"][-1] == (3, 3.0)


def test_cells_may_come_later_and_twice(tmp_path: Path) -> None:
    curves = GridCurves(tmp_path, {"a_1": ("a", 1)})
    curves.add({"a_1": ("a", 1), "a_2": ("a", 2)})
    for seed in (1, 2):
        write(tmp_path / f"a_{seed}", "x", {0: float(seed)})
    assert curves.update("a")
    assert not curves.update("a")
    assert curves.bands("a")["x"].seeds.tolist() == [2]
    assert curves.points("a") == {
        0: {
            "grid/x": 1.5,
            "grid/x/lower": pytest.approx(1.0),
            "grid/x/upper": pytest.approx(2.0),
            "grid/seeds": 2,
        }
    }
    assert curves.bands("unknown") == {}
