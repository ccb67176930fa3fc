"""A world of levels, in a user's own file: compared, recorded by id, read back, reported and drawn."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tutelage.envs import check_task_env
from tutelage.envs.contract.described_tasks import DescribedTasks
from tutelage.experiments.compare import CompareConfig, ComparisonError, compare, resolve
from tutelage.experiments.report import ReportConfig, report
from tutelage.experiments.runs.levels import read_levels
from tutelage.experiments.runs.reading import read_grid


@pytest.fixture
def walls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(Path(__file__).with_name("walls_world.py"), tmp_path / "walls_world.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return "walls_world:Walls"


def test_levels_are_compared_recorded_by_id_and_drawn(tmp_path: Path, walls: str, monkeypatch) -> None:
    out = tmp_path / "out"
    config = CompareConfig(env=walls, seeds=1, steps=1500, evaluate_every=1000, clips=False, out=out)
    assert list(resolve(config).task_teachers) == ["random"]  # the one that takes levels
    assert compare(config) == 0

    cell = out / "ppo/random/seed-0"
    episodes, levels = pd.read_parquet(cell / "episodes.parquet"), read_levels(cell)
    assert [name for name in episodes.columns if name.startswith("task/")] == ["task/level"]
    ids = episodes["task/level"].to_numpy()
    assert levels.shape == (ids.max() + 1, 4, 4)
    assert levels.dtype == np.uint8
    assert len(np.unique(levels.reshape(-1, 16), axis=0)) == len(levels)  # each once
    assert np.flatnonzero(np.diff(np.maximum.accumulate(ids))).size == ids.max() - ids[0]  # in their order

    log = EventAccumulator(str(cell), size_guidance={"images": 0}).Reload()
    assert [image.step for image in log.Images("task_space")] == episodes_seen_at(cell)
    assert "could not be drawn" not in (cell / "log.txt").read_text()

    monkeypatch.delitem(__import__("sys").modules, "walls_world", raising=False)
    (tmp_path / "walls_world.py").unlink()  # reading a folder imports nothing that it names
    grid = read_grid(out)
    assert grid.task_space == DescribedTasks("level")
    assert (grid.parameters, grid.bounds.shape) == ((), (0, 2))
    assert grid.test_sets["uniform"].shape == (100, 16)
    np.testing.assert_array_equal(grid.cells[0].training_episodes().tasks[:, 0], ids)
    page = report(ReportConfig(out, resamples=50))
    assert "walls_world:Walls" in page.read_text()
    assert (page.parent / "curves-ppo.png").exists()
    assert not list(page.parent.glob("proposals-*"))


def episodes_seen_at(cell: Path) -> list[int]:
    """Steps of the evaluations, each of which draws once."""
    return [step for step, _ in json.loads((cell / "status.json").read_text())["scores"]]


def test_a_box_task_teacher_refuses_levels_in_words(tmp_path: Path, walls: str) -> None:
    config = CompareConfig(env=walls, teachers=("alp-gmm",), out=tmp_path / "out")
    with pytest.raises(ComparisonError, match=r"ALP-GMM proposes from a box .* which lacks dim, from_unit"):
        resolve(config)


def test_a_level_world_is_a_task_environment(walls: str) -> None:
    from walls_world import Rooms, Walls

    assert check_task_env(Walls()) == []
    space, rng = Rooms(), np.random.default_rng(0)
    tasks = space.sample(rng, 5)
    assert space.contains(space.mutate(rng, tasks)).all()
    np.testing.assert_array_equal(space.decode(space.encode(tasks)), tasks)


def test_a_space_that_says_too_little_of_itself_is_named(tmp_path: Path, walls: str) -> None:
    (tmp_path / "too_little.py").write_text(
        "from walls_world import Rooms, Walls\n"
        "class Sampled:\n    shape, dtype, sample = Rooms.shape, Rooms.dtype, Rooms.sample\n"
        "class Silent(Walls):\n    def __init__(self): self.task_space = Sampled()\n"
    )
    config = CompareConfig(env="too_little:Silent", out=tmp_path / "out")
    with pytest.raises(ComparisonError, match=r"a Sampled, lacks axes, check, .*, to_json; use BoxTasks"):
        resolve(config)
