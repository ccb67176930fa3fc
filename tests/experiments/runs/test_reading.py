import json

import numpy as np
import pandas as pd
import pytest

from tutelage.envs.contract.tasks import BoxTasks
from tutelage.experiments.runs.reading import GridError, read_grid

LINE = BoxTasks({"height": (0, 1)})


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def small(make_grid):
    return make_grid(seeds=2, steps=4000, every=2000)


def test_a_grid_reads_as_it_was_written(small):
    grid = read_grid(small)
    assert grid.task_teachers == ("target", "random", "alp-gmm")
    assert grid.students == ("ppo",)
    assert list(grid.test_sets) == ["target", "uniform"]  # the primary one first
    assert grid.baseline == "target"
    assert grid.parameters == ("gate_position", "gate_width")
    np.testing.assert_array_equal(grid.bounds, [[-4, 4], [0.5, 8]])
    assert len(grid.cells) == 1 * 3 * 2
    assert {cell.state for cell in grid.cells} == {"finished"}
    cell = grid.cells_of("ppo", "random")[1]
    assert (cell.name, cell.steps, cell.last_log_line) == ("ppo/random/seed-1", 4000, "finished")

    table = pd.read_parquet(small / "ppo/random/seed-1/evaluations.parquet")
    row = table[(table["step"] == 2000) & (table["test_set"] == "uniform") & (table["task_index"] == 17)]
    scores = grid.scores("ppo", "uniform", "return")
    np.testing.assert_array_equal(scores.steps, [0, 2000, 4000])
    assert scores.values["random"].shape == (2, 3, 64)
    assert scores.values["random"][1, 1, 17] == row["return"].item()
    assert grid.scores("ppo", "uniform").values["random"][1, 1, 17] == row["success"].item()
    assert scores.seconds["random"][1, 1] == row["seconds"].item()

    episodes = pd.read_parquet(small / "ppo/random/seed-1/episodes.parquet")
    read = cell.training_episodes()
    np.testing.assert_array_equal(read.tasks, episodes[["task/gate_position", "task/gate_width"]])
    np.testing.assert_array_equal(read.returns, episodes["return"])


def test_missing_and_broken_cells_are_named_and_the_rest_is_used(small):
    import shutil

    cells = small / "ppo"
    shutil.rmtree(cells / "random/seed-0")
    edit(cells / "random/seed-1/status.json", state="failed", step=2000, message="ValueError: NaN returns")
    (cells / "random/seed-1/log.txt").write_text("start\nValueError: NaN returns at step 2000\n\n")
    data = (cells / "alp-gmm/seed-0/evaluations.parquet").read_bytes()
    (cells / "alp-gmm/seed-0/evaluations.parquet").write_bytes(data[: len(data) // 2])
    (cells / "alp-gmm/seed-1/status.json").write_text('{"state": "fini')
    (cells / "target/seed-1/timings.json").write_text("{")
    (cells / "target/seed-1/episodes.parquet").write_bytes(b"PAR1")
    grid = read_grid(small)
    state = {cell.name: (cell.state, cell.message) for cell in grid.cells}
    assert state["ppo/random/seed-0"] == ("missing", "there is no such run folder")
    assert state["ppo/random/seed-1"] == ("failed", "ValueError: NaN returns")
    assert grid.cells_of("ppo", "random")[1].last_log_line == "ValueError: NaN returns at step 2000"
    assert state["ppo/alp-gmm/seed-0"][0] == "damaged"
    assert "evaluations.parquet cannot be read" in state["ppo/alp-gmm/seed-0"][1]
    assert state["ppo/alp-gmm/seed-1"][0] == "damaged"
    broken = grid.cells_of("ppo", "target")[1]
    assert (broken.state, broken.timings, broken.training_episodes()) == ("finished", {}, None)
    values = grid.scores("ppo", "target").values
    assert np.isnan(values["random"][0]).all()
    assert np.isfinite(values["random"][1]).all()  # what a failed run evaluated is there
    assert np.isnan(values["alp-gmm"][0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="success"), "lacks the column.*success"),
        (lambda t: t.assign(task_index=t["task_index"] + 40), "task .* of 'target', which has 30"),
    ],
)
def test_evaluations_of_another_making_are_damaged(small, change, message):
    path = small / "ppo/target/seed-0/evaluations.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    cell = read_grid(small).cells_of("ppo", "target")[0]
    assert cell.state == "damaged"
    assert pd.Series([cell.message]).str.contains(message).item()


def test_evaluations_at_other_steps_are_aligned(make_grid):
    folder = make_grid(seeds=2, steps=4000, every=1000, space=LINE)
    path = folder / "ppo/random/seed-1/evaluations.parquet"
    table = pd.read_parquet(path)
    table = table[table["step"] <= 3000].assign(step=table["step"] + 100)  # at 100, 1100, 2100, 3100
    table["return"] = table["step"] * 1.0
    table.to_parquet(path)
    scores = read_grid(folder).scores("ppo", "uniform", "return")
    np.testing.assert_array_equal(scores.steps, [0, 1000, 2000, 3000, 4000])
    # 0 is within half an interval of 100 and takes its value; 1000 lies between; 4000 is too far from 3100
    np.testing.assert_allclose(scores.values["random"][1, :, 0], [100, 1000, 2000, 3000, np.nan])


def test_an_evaluation_cut_in_the_middle_does_not_count(small):
    path = small / "ppo/random/seed-0/evaluations.parquet"
    table = pd.read_parquet(path)
    table[~((table["step"] == 4000) & (table["task_index"] > 20))].to_parquet(path)
    values = read_grid(small).scores("ppo", "target").values["random"][0]
    assert np.isfinite(values[:2]).all()
    assert np.isnan(values[2]).all()


def test_wrong_folders_are_told_apart(small, tmp_path):
    with pytest.raises(GridError, match="is not a folder"):
        read_grid(tmp_path / "nowhere")
    with pytest.raises(GridError, match=r"lies inside a grid; give .*grid"):
        read_grid(small / "ppo" / "random")
    with pytest.raises(GridError, match=r"holds 1 grid\(s\); give one of them: grid"):
        read_grid(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GridError, match=r"has no grid\.json and no distill\.json; give the folder that"):
        read_grid(tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"command": "tute', "cannot be read as JSON"),
        ("{}", "lacks 'env'"),
        ("[1, 2]", "not as expected"),
        ('{"env": {"task_space": {"kind": "box"}}}', "lacks 'bounds'"),
        ('{"env": {"task_space": {}}}', "lacks 'kind'"),
    ],
)
def test_damaged_descriptions_are_named(small, content, message):
    (small / "grid.json").write_text(content)
    with pytest.raises(GridError, match=message):
        read_grid(small)


def test_unknown_names_suggest_the_nearest(small):
    with pytest.raises(GridError, match="unknown test set 'targt'; did you mean 'target'"):
        read_grid(small).scores("ppo", "targt")
    edit(small / "grid.json", baseline="randon")
    with pytest.raises(GridError, match="unknown baseline 'randon'; did you mean 'random'"):
        read_grid(small)
