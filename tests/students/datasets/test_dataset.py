"""Datasets on disk: what goes in comes out, a kill costs a chunk, damage is named, learning is the same."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.students.datasets import dataset_cloning
from tutelage.students.datasets.dataset import Dataset, DatasetWriter
from tutelage.students.datasets.dataset_chunks import repair
from tutelage.students.datasets.dataset_cloning import CloningConfig, clone_from
from tutelage.students.datasets.dataset_files import DTYPES, DatasetError, write_text
from tutelage.students.datasets.dataset_recording import RecordingConfig, record
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import Learner, LearningConfig

ENVS, CHUNK = 3, 4  # environments, and steps of a chunk, of `write`
FIELDS = {"obs/x": torch.zeros(ENVS, 2), "ended": torch.zeros(ENVS, dtype=torch.bool)}
FIELDS |= {
    "success": torch.zeros(ENVS, dtype=torch.bool),
    "obs/camera/rgb": torch.zeros(ENVS, 5, 4, 3).byte(),
}


def frames(step: int) -> dict[str, torch.Tensor]:
    """Step, environment and pixel can be told from every value; episodes of 5 steps, those of 1 succeed."""
    env = torch.arange(ENVS)
    ended = (torch.arange(ENVS) + step) % 5 == 4
    return {
        "obs/x": torch.stack([torch.full((ENVS,), float(step)), env.float()], 1),
        "obs/camera/rgb": (step + 10 * env).byte()[:, None, None, None]
        + torch.arange(60).byte().view(5, 4, 3),
        "ended": ended,
        "success": ended & (env % 2 == 1),
    }


def write(folder: Path, first: int, last: int, **metadata: Any) -> DatasetWriter:
    with DatasetWriter(folder, FIELDS, {"task": "counting", **metadata}, ENVS * CHUNK) as writer:
        for step in range(first, last):
            writer.add(frames(step), torch.zeros(ENVS, dtype=torch.bool))
    return writer


def numbers(dataset: Dataset) -> list[int]:
    """The steps in a dataset; makes sure that all fields are of the same."""
    values = dataset.read(0, dataset.steps)
    found = values["obs/x"][:, 0, 0].int().tolist()
    for i, step in enumerate(found):
        for name, value in frames(step).items():
            torch.testing.assert_close(values[name][i], value, rtol=0, atol=0)
    return found


# --- round trip ----------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "a-b", "obs/c", "obs/d e", "deep/er/f", "äß"])
SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@given(
    kinds=st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(sorted(DTYPES))), min_size=1, max_size=4),
    envs=st.integers(1, 3),
    chunk=st.integers(1, 4),
    sessions=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: dict[str, tuple[tuple[int, ...], str]],
    envs: int,
    chunk: int,
    sessions: list[int],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """Any bits at all: NaN, infinities, denormal numbers."""
        kind = np.dtype(dtype)
        if dtype == "bool":
            return torch.from_numpy(rng.random((envs, *shape)) < 0.5)
        data = rng.bytes(envs * math.prod(shape) * kind.itemsize)
        return torch.from_numpy(np.frombuffer(data, kind).reshape(envs, *shape).copy())

    example = {name: torch.zeros(envs, *shape, dtype=DTYPES[kind]) for name, (shape, kind) in kinds.items()}
    kept: list[dict[str, torch.Tensor]] = []
    for steps in sessions:
        with DatasetWriter(folder, example, {}, chunk * envs) as writer:
            added = [{name: draw(*kind) for name, kind in kinds.items()} for _ in range(steps)]
            for fields in added:
                writer.add(fields, torch.zeros(envs, dtype=torch.bool))
        kept += added[: steps - steps % chunk]
    dataset = Dataset(folder, cache_bytes=0)
    assert dataset.steps == len(kept)
    if not kept:
        return
    values = dataset.read(0, len(kept))
    for name, (shape, kind) in kinds.items():
        # Depth: float32 of three axes and more is kept in half the bits.
        stored = torch.float16 if len(shape) > 1 and kind == "float32" else DTYPES[kind]
        expected = torch.stack([fields[name] for fields in kept]).to(stored)
        assert values[name].dtype == stored
        as_bytes = (
            (lambda x: x.numpy().tobytes()) if stored == DTYPES[kind] else (lambda x: x.nan_to_num().tolist())
        )
        assert as_bytes(values[name]) == as_bytes(expected)


def test_counts_and_cache(tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 11)  # the last three steps fill no chunk
    chunk = CHUNK * ENVS * 2 * 4  # bytes of obs/x
    dataset = Dataset(tmp_path / "d", cache_bytes=chunk)
    assert (dataset.chunks, dataset.steps, dataset.frames) == (2, 8, 24)
    # Ends at (env + step) % 5 == 4: steps 4; 3; 2 and 7 of environments 0, 1, 2. Environment 1 succeeds.
    assert (dataset.episodes, dataset.success) == (4, 1 / 4)
    assert numbers(dataset) == list(range(8))
    dataset.read(0, 8, ["obs/x"])
    assert [key[1] for key in dataset._cache] == [1]
    assert dataset._cached == chunk
    assert dataset.read(3, 6, ["obs/x"])["obs/x"][:, 0, 0].tolist() == [3, 4, 5]
    assert dataset.raw_bytes("obs/x") == 8 * ENVS * 2 * 4
    path = tmp_path / "d" / "obs" / "x"
    assert dataset.stored_bytes("obs/x") == sum(file.stat().st_size for file in path.glob("c.*"))
    with pytest.raises(ValueError, match="unknown field 'obs/y'; did you mean 'obs/x'"):
        dataset.read(0, 1, ["obs/y"])
    with pytest.raises(IndexError, match="steps 5 to 9 were asked for"):
        dataset.read(5, 9)


@pytest.mark.filterwarnings("ignore:Object at commits.jsonl")
def test_others_can_read_it(tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 8)
    group = zarr.open_group(tmp_path / "d", mode="r")
    array = group["obs/camera/rgb"]
    assert isinstance(array, zarr.Array)
    assert array.shape == (8, ENVS, 5, 4, 3)
    np.testing.assert_array_equal(array[6], frames(6)["obs/camera/rgb"].numpy())
    assert {"obs", "obs/x", "obs/camera", "obs/camera/rgb"} <= {
        name for name, _ in group.members(max_depth=None)
    }


# --- appending, and kills ------------------------------------------------------------------------------


def test_appending_begins_new_episodes(tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 6)
    assert write(tmp_path / "d", 4, 8, created="later", versions={"zarr": "4"}).steps == 8
    dataset = Dataset(tmp_path / "d")
    assert numbers(dataset) == list(range(8))
    started = dataset.read(0, 8, ["started"])["started"]
    assert started[:, 0].tolist() == [True, False, False, False, True, False, False, False]


@pytest.mark.parametrize("left", ["whole", "part", "cut", "torn log"])
def test_what_a_kill_leaves_is_overwritten(left: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write(folder, 0, 8)
    log = folder / "commits.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    # Killed after the files of the second chunk, amid them, or while its line was written.
    log.write_bytes(lines[0] + (lines[1][:-9] if left == "torn log" else b""))
    if left == "part":
        (folder / "started" / "c.1.0").unlink()
    if left == "cut":
        file = folder / "obs" / "x" / "c.1.0.0"
        file.write_bytes(file.read_bytes()[:-5])
    part_of_file = folder / "obs" / "x" / "c.1.0.0123abcd.partial"
    part_of_file.write_bytes(b"first bytes")
    assert numbers(Dataset(folder)) == [0, 1, 2, 3]
    write(folder, 20, 28)
    assert not part_of_file.exists()
    assert numbers(Dataset(folder)) == [0, 1, 2, 3, *range(20, 28)]


def test_killed_before_the_first_chunk(tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 2)
    assert Dataset(tmp_path / "d").steps == 0
    (tmp_path / "d" / "zarr.json").unlink()  # killed while it was made
    write(tmp_path / "d", 0, 4)
    assert numbers(Dataset(tmp_path / "d")) == [0, 1, 2, 3]


def test_sigkill(tmp_path: Path) -> None:
    script = f"""
import torch
from tutelage.students.datasets.dataset import DatasetWriter
x = torch.zeros({ENVS}, 2)
with DatasetWriter({str(tmp_path / "d")!r}, {{"x": x}}, {{}}, {ENVS * CHUNK}) as writer:
    for step in range(writer.steps, 1_000_000):
        writer.add({{"x": x + step}}, torch.zeros({ENVS}, dtype=torch.bool))
        if (step + 1) % {CHUNK} == 0:
            print(writer.steps, flush=True)
"""
    there = 0
    for lines in (3, 7):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(lines)]
            os.kill(process.pid, signal.SIGKILL)
            told += map(int, process.stdout.read().split())
            assert process.wait() == -signal.SIGKILL
        assert told[0] == there + CHUNK
        steps = Dataset(tmp_path / "d").steps
        # What was told is there; a chunk more may be, killed between its line and the telling.
        assert steps in (told[-1], told[-1] + CHUNK)
        values = Dataset(tmp_path / "d").read(0, steps)
        assert values["x"][:, -1, -1].tolist() == list(range(steps))
        assert values["started"][:, 0].nonzero().flatten().tolist() == ([0, there] if there else [0])
        there = steps


# --- damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_chunk_is_named_and_the_others_kept(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write(folder, 0, 16)
    file = folder / "obs" / "camera" / "rgb" / "c.1.0.0.0.0"
    size = file.stat().st_size
    if damage == "missing":
        file.unlink()
        told = f"{file} is missing"
    else:
        file.write_bytes(file.read_bytes()[:-1])
        told = f"{file} has {size - 1:,} of {size:,} bytes"
    for opening in (lambda: Dataset(folder), lambda: write(folder, 0, 4)):
        with pytest.raises(DatasetError) as caught:
            opening()
        message = str(caught.value)
        assert message.startswith(
            f"{told}; 12 of 16 steps of {folder} are intact; `tutelage data repair {folder}`"
        )
    assert repair(folder) == (12, 4)
    write(folder, 30, 34)
    dataset = Dataset(folder)
    assert numbers(dataset) == [*range(4), *range(8, 16), *range(30, 34)]
    assert (folder / "commits-before-repair.jsonl").exists()
    # Over the gap nothing is stacked: environments begin anew, though in the file they did not.
    begins = [bool(started[0]) for _, started in dataset.stream(range(4), ["obs/x"])]
    assert begins == [True, *[False] * 3, True, *[False] * 7, True, *[False] * 3]


def test_what_a_repair_sets_aside_stays_when_more_is_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write(folder, 0, 16)
    files = [folder / "obs" / "x" / f"c.{chunk}.0.0" for chunk in (2, 3)]
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert repair(folder) == (8, 8)
    write(folder, 30, 34)
    assert numbers(Dataset(folder)) == [*range(8), *range(30, 34)]
    # With the files from a copy, nothing is lost.
    for file, data in zip(files, whole, strict=True):
        file.write_bytes(data)
    last = (folder / "commits.jsonl").read_bytes().splitlines(keepends=True)[-1]
    (folder / "commits.jsonl").write_bytes((folder / "commits-before-repair.jsonl").read_bytes() + last)
    assert numbers(Dataset(folder)) == [*range(16), *range(30, 34)]


def test_a_second_repair_keeps_the_log_that_the_first_one_kept(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write(folder, 0, 16)
    logs = []
    for chunk, kept in ((1, 12), (2, 8), (3, 4)):
        logs.append((folder / "commits.jsonl").read_bytes())
        (folder / "obs" / "x" / f"c.{chunk}.0.0").unlink()
        assert repair(folder) == (kept, 4)
    names = [f"commits-before-repair{number}.jsonl" for number in ("", "-2", "-3")]
    assert [(folder / name).read_bytes() for name in names] == logs
    assert len(logs[0].splitlines()) == 4
    write(folder, 30, 34)  # behind all that was set aside
    assert numbers(Dataset(folder)) == [*range(4), *range(30, 34)]


def test_small_files_are_on_disk_before_they_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the name can be on disk before what is in the file, after a loss of power."""
    events: list[tuple[str, int]] = []
    sync, rename = os.fsync, os.replace

    def fsync(file: int) -> None:
        events.append(("sync", os.fstat(file).st_ino))
        sync(file)

    def replace(source: Any, target: Any) -> None:
        events.append((Path(target).name, Path(source).stat().st_ino))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(tmp_path / "zarr.json", "{}")
    assert [name for name, _ in events] == ["sync", "zarr.json"]
    assert events[0][1] == events[1][1]
    assert (tmp_path / "zarr.json").read_text() == "{}"


def test_a_flipped_bit_is_found_when_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write(folder, 0, 12)
    file = folder / "obs" / "x" / "c.1.0.0"
    data = file.read_bytes()
    for position in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(DatasetError, match=r"obs/x/c\.1\.0\.0 is damaged .*tutelage data repair"):
            Dataset(folder).read(0, 12)
    assert repair(folder) == (8, 4)
    assert numbers(Dataset(folder)) == [*range(4), *range(8, 12)]


def test_a_damaged_log(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write(folder, 0, 12)
    log = folder / "commits.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    for wrong in (b"{}\n", lines[2], lines[0].replace(b'"chunk": 0', b'"chunk": "0"'), b"\xff\n"):
        log.write_bytes(lines[0] + wrong + lines[2])
        with pytest.raises(
            DatasetError, match=r"line [23] of .*commits.jsonl is damaged; `tutelage data repair"
        ):
            Dataset(folder)
    few = json.loads(lines[1])
    few["sizes"].pop()
    log.write_bytes(lines[0] + json.dumps(few).encode() + b"\n" + lines[2])
    with pytest.raises(DatasetError, match=r"tells of 4 files of chunk 1; 8 of 12 steps .*data repair"):
        Dataset(folder)
    log.unlink()
    (folder / "obs" / "x" / "c.1.0.0123abcd.partial").write_bytes(b"first bytes")
    with pytest.raises(DatasetError, match=r"commits.jsonl is missing; `tutelage data repair"):
        Dataset(folder)
    assert repair(folder) == (12, 0)
    assert log.read_bytes() == b"".join(lines)


def test_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no dataset at"):
        Dataset(tmp_path / "nowhere")
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match=r"is no dataset of tutelage: it has no zarr\.json"):
        Dataset(folder)
    with pytest.raises(DatasetError, match="holds something else; choose another folder"):
        write(folder, 0, 4)
    assert [file.name for file in folder.iterdir()] == ["thesis.tex"]
    (folder / "thesis.tex").rename(folder / "notes")
    (tmp_path / "mine" / "obs").mkdir(parents=True)  # named as a field is
    (folder / "notes").rename(tmp_path / "mine" / "obs" / "notes")
    with pytest.raises(DatasetError, match="holds something else; choose another folder"):
        write(tmp_path / "mine", 0, 4)
    assert (tmp_path / "mine" / "obs" / "notes").read_text() == "years of work"
    with pytest.raises(ValueError, match=r"'\.\./x' cannot be the name of a field"):
        DatasetWriter(tmp_path / "new", {"../x": torch.zeros(1)}, {})
    zarr.create_group(tmp_path / "zarr")
    with pytest.raises(DatasetError, match="belongs to no dataset of tutelage"):
        Dataset(tmp_path / "zarr")


def test_a_dataset_without_its_description_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 4)
    group = (tmp_path / "d" / "zarr.json").read_text()
    (tmp_path / "d" / "zarr.json").unlink()
    with pytest.raises(DatasetError, match=r"without its zarr\.json; take that from a copy"):
        write(tmp_path / "d", 0, 4)
    (tmp_path / "d" / "zarr.json").write_text(group)
    assert numbers(Dataset(tmp_path / "d")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "was written in schema 2 of datasets, and this version of tutelage reads schema 1"),
        ({"num_envs": 0}, "describes an impossible dataset"),
        ({"fields": {"../x": {"shape": [3], "dtype": "bool"}}}, r"'\.\./x' cannot be the name of a field"),
        ({"fields": {"x": {"shape": [3], "dtype": "object"}}}, "'x' is of object"),
        ({"fields": {"x": {"shape": [2], "dtype": "bool"}}}, r"shape \(2,\), not \(3, ...\)"),
        (
            {"fields": {"started": {"shape": [3, 7], "dtype": "bool"}}},
            r"started/zarr.json is missing, damaged",
        ),
    ],
)
def test_other_schemas_and_layouts(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 2)
    path = tmp_path / "d" / "zarr.json"
    group = json.loads(path.read_text())
    group["attributes"]["tutelage_dataset"].update(change)
    path.write_text(json.dumps(group))
    with pytest.raises(DatasetError, match=message):
        Dataset(tmp_path / "d")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DatasetError, match=r"zarr.json is damaged"):
        Dataset(tmp_path / "d")


def test_codecs_that_we_did_not_write_are_not_run(tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 4)
    path = tmp_path / "d" / "obs" / "x" / "zarr.json"
    array = json.loads(path.read_text())
    array["codecs"][2] = {"name": "numcodecs.pickle", "configuration": {}}
    path.write_text(json.dumps(array))
    with pytest.raises(DatasetError, match=r"obs/x/zarr.json is missing, damaged"):
        Dataset(tmp_path / "d")


def test_other_data_are_not_mixed_in(tmp_path: Path) -> None:
    write(tmp_path / "d", 0, 4, looks="strong")
    with pytest.raises(DatasetError, match=r"holds other data \(different: looks\)"):
        write(tmp_path / "d", 0, 4, looks="mild")
    with pytest.raises(DatasetError, match=r"different: field obs/x, field obs/z\)"):
        DatasetWriter(
            tmp_path / "d",
            {**FIELDS, "obs/x": torch.zeros(ENVS, 3), "obs/z": torch.zeros(ENVS)},
            {"task": "counting", "looks": "strong"},
        )
    assert numbers(Dataset(tmp_path / "d")) == [0, 1, 2, 3]


def test_metadata_that_are_no_number_are_the_same_again(tmp_path: Path) -> None:
    for first in (0, 4):
        write(tmp_path / "d", first, first + 4, expert={"success": math.nan, "hidden": (8, 8)})
    assert numbers(Dataset(tmp_path / "d")) == list(range(8))


# --- recording and cloning -----------------------------------------------------------------------------


def test_recording(slider: Any, expert: Any, tmp_path: Path) -> None:
    config = RecordingConfig(frames=8 * 6 * 3, chunk_frames=8 * 4)  # 18 steps, in chunks of 4: 20
    assert record(slider(8), expert, tmp_path / "d", config, seed=0) == 8 * 20
    dataset = Dataset(tmp_path / "d")
    values = dataset.read(0, dataset.steps)
    # Episodes have 6 steps; all end in the same ones.
    assert values["started"].all(1).nonzero().flatten().tolist() == [0, 6, 12, 18]
    assert values["ended"].all(1).nonzero().flatten().tolist() == [5, 11, 17]
    assert not (values["started"].any(1) & ~values["started"].all(1)).any()
    x, goal = values["obs/privileged"].unbind(-1)
    torch.testing.assert_close(values["task"][..., 0].float(), goal)
    torch.testing.assert_close(values["expert/mean"][..., 0], (goal - x) / 0.3)
    torch.testing.assert_close(values["action"], values["expert/mean"].clamp(-1, 1))
    # x moves by 0.3 m times the action, and the reward is minus the distance then.
    after = x + 0.3 * values["action"][..., 0]
    torch.testing.assert_close(values["reward"], -(after - goal).abs(), atol=1e-5, rtol=0)
    torch.testing.assert_close(after[:5], x[1:6], atol=1e-5, rtol=0)
    assert values["success"].equal(values["ended"])
    assert values["time_out"].equal(values["ended"])
    assert values["by_expert"].all()
    assert (dataset.episodes, dataset.success) == (24, 1.0)
    assert dataset.fields["obs/front/rgb"] == ((8, 32, 32, 3), "uint8")
    told = dataset.metadata
    assert told["cameras"] == {"front": {"width": 32, "height": 32, "modalities": ["rgb"]}}
    assert (told["seed"], told["beta"], told["task_space"]["bounds"]) == (0, 1.0, {"goal": [-0.8, 0.8]})
    assert told["versions"]["torch"] == torch.__version__

    # The same command has nothing to do; with more frames it goes on, with other episodes.
    assert record(slider(8), expert, tmp_path / "d", config, seed=0) == 0
    more = RecordingConfig(frames=8 * 24, chunk_frames=8 * 4)
    assert record(slider(8), expert, tmp_path / "d", more, seed=0) == 8 * 4
    goals = Dataset(tmp_path / "d").read(0, 24, ["task"])["task"]
    assert not goals[0].equal(goals[20])


def test_a_mixture_records_who_acted(slider: Any, expert: Any, new_student: Any, tmp_path: Path) -> None:
    task = slider(64)
    student = new_student(task)
    config = RecordingConfig(frames=64 * 6, beta=0.25, noise=0.1, chunk_frames=64)
    record(task, expert, tmp_path / "d", config, 0, student)
    values = Dataset(tmp_path / "d").read(0, 6)
    by_expert = values["by_expert"]
    assert abs(by_expert.float().mean() - 0.25) < 4 * (0.25 * 0.75 / 384) ** 0.5
    inputs = {view: values[f"obs/{view}"].flatten(0, 1) for view in student.config.views}
    acts = student.act(inputs, student.start(384))[0].view(6, 64, 1)
    torch.testing.assert_close(values["action"][~by_expert], acts[~by_expert], atol=1e-4, rtol=0)
    jitter = (values["action"] - values["expert/mean"].clamp(-1, 1))[by_expert].abs()
    assert 0 < jitter.max() < 0.6  # the noise of 0.1
    with pytest.raises(ValueError, match=r"with beta=0\.25 a student acts too"):
        record(task, expert, tmp_path / "e", config, 0)


def test_values_that_are_not_always_told(slider: Any, expert: Any, tmp_path: Path) -> None:
    """A router's are None in steps in which one of the experts that are asked has no critic."""

    class Sometimes:
        view, num_actions, queries = "privileged", 1, 0

        def advise(self, obs_dict: Any) -> Any:
            self.queries += 1
            return expert.advise(obs_dict)._replace(value=torch.ones(4) if self.queries % 2 else None)

    record(slider(4), Sometimes(), tmp_path / "d", RecordingConfig(frames=4 * 4, chunk_frames=16), seed=0)
    values = Dataset(tmp_path / "d").read(0, 4)["expert/value"]
    assert values.isnan().all(1).tolist() == [False, True, False, True]


@pytest.fixture
def recorded(slider: Any, expert: Any, tmp_path: Path) -> Dataset:
    config = RecordingConfig(frames=16 * 24, noise=0.5, chunk_frames=16 * 4)
    record(slider(16, modalities=("rgb", "depth")), expert, tmp_path / "recorded", config, seed=0)
    return Dataset(tmp_path / "recorded")


STUDENTS: list[dict[str, Any]] = [
    {},
    {"frames": 3, "head": "gaussian"},
    {"memory": 8, "images": ("front/rgb", "front/depth")},
]


@pytest.mark.parametrize("options", STUDENTS)
def test_cloning_equals_learning_from_memory(
    options: dict[str, Any], recorded: Dataset, slider: Any, expert: Any, new_student: Any
) -> None:
    task = slider(16, modalities=("rgb", "depth"))
    student, twin = (new_student(task, seed=3, **options) for _ in range(2))
    learning = LearningConfig(batch_size=32, sequence_length=6, burn_in=2, threads=1)
    config = CloningConfig(updates=12, learning=learning, round_updates=5)
    reports: list[Any] = []
    cost = clone_from(recorded, student, config, seed=7, on_progress=reports.append)

    # The same frames, rolled out again, in memory.
    learner = Learner(twin, learning, torch.Generator().manual_seed(7))
    seeds = np.random.default_rng([0, 0]).integers(0, 2**31, 17).tolist()
    noise = torch.Generator().manual_seed(seeds.pop())
    task.seed(seeds)
    obs_dict, started = task.reset(), torch.ones(16, dtype=torch.bool)
    buffer = FrameBuffer(16 * 24, 16, learner.fields(obs_dict, task.actions, task.actions), "cpu")
    for _ in range(24):
        advice = expert.advise(obs_dict)
        buffer.add(learner.fields(obs_dict, advice.mean, advice.std), started)
        torch.rand(16, generator=noise)  # who acts
        jitter = torch.randn(16, 1, generator=noise)
        obs_dict, _, dones, _ = task.step((advice.mean.clamp(-1, 1) + 0.5 * jitter).clamp(-1, 1))
        started = dones.bool()
    losses = []
    for done in (0, 5, 10):
        learner.decay(done / 12)
        losses.append([learner.update(buffer)[0] for _ in range(min(5, 12 - done))])
    for name, value in twin.state_dict().items():
        assert value.equal(student.state_dict()[name]), name
    assert [report.loss for report in reports] == [float(torch.stack(part).mean()) for part in losses]
    assert (cost.frames, cost.queries, cost.updates) == (384, 384, 12)
    assert reports[0].episodes == 64  # 4 of each environment
    assert all(report.action_error.isnan().all() for report in reports)


def test_a_dataset_larger_than_the_ring_is_read_again_and_again(
    recorded: Dataset, slider: Any, new_student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    class Watched(FrameBuffer):
        def __init__(self, capacity: int, *others: Any) -> None:
            assert capacity == 16 * 8
            super().__init__(capacity, *others)

        def add(self, fields: Any, started: torch.Tensor) -> None:
            super().add(fields, started)
            same = (recorded.read(0, 24, ["obs/policy"])["obs/policy"] == fields["policy"]).all((1, 2))
            seen.append([*same.nonzero().flatten().tolist(), bool(started.all())])

    monkeypatch.setattr(dataset_cloning, "FrameBuffer", Watched)
    student = new_student(slider(16))
    learning = LearningConfig(batch_size=64, threads=1)
    # 8 steps fill the ring. 6 updates of 64 frames, each drawn twice: 192 frames, 12 steps a round.
    config = CloningConfig(42, None, learning, round_updates=6, buffer_frames=16 * 8, samples_per_frame=2.0)
    cost = clone_from(recorded, student, config, seed=0)
    assert len(seen) == 8 + 6 * 12
    assert (cost.frames, cost.queries) == (384, 384)  # each counted once
    steps = [step for step, _ in seen]
    passes = [steps[k : k + 24] for k in range(0, 72, 24)]
    assert all(sorted(part) == list(range(24)) for part in passes)
    assert len({tuple(part) for part in passes}) == 3  # each in another order
    begins = set(range(0, 24, 6))  # of episodes
    for (before, _), (step, started) in itertools.pairwise(seen):
        assert step == before + 1 or step % 4 == 0  # whole chunks
        assert started == (step in begins or step != before + 1)


def test_cloning_learns(slider: Any, expert: Any, new_student: Any, tmp_path: Path, better: Any) -> None:
    from tutelage.students.distillation.machinery.evaluation import evaluate_student

    record(
        slider(32),
        expert,
        tmp_path / "d",
        RecordingConfig(frames=32 * 32, noise=0.5, chunk_frames=256),
        seed=0,
    )
    task = slider(64, seed=5)
    student = new_student(task)
    before = evaluate_student(task, student, 128, seed=1)
    clone_from(
        Dataset(tmp_path / "d"),
        student,
        CloningConfig(100, learning=LearningConfig(batch_size=128, threads=1)),
        seed=0,
    )
    assert better(evaluate_student(task, student, 128, seed=1), before)


def test_what_does_not_fit_is_named(recorded: Dataset, slider: Any, new_student: Any, tmp_path: Path) -> None:
    config = CloningConfig(updates=1)
    student = new_student(slider(16))
    large = type(student)(student.config, {"front/rgb": (64, 64, 3), "policy": (1,)}, 1)
    with pytest.raises(
        ValueError, match=r"'obs/front/rgb' of .* has shape \(32, 32, 3\), and the student takes"
    ):
        clone_from(recorded, large, config, 0)
    other = type(student.config)(images=("fronts/rgb",), hidden=(8,))
    strange = type(student)(other, {"fronts/rgb": (32, 32, 3), "policy": (1,)}, 1)
    with pytest.raises(ValueError, match="unknown field 'obs/fronts/rgb'; did you mean 'obs/front/rgb'"):
        clone_from(recorded, strange, config, 0)
    write(tmp_path / "empty", 0, 1)
    with pytest.raises(ValueError, match="lacks what the student learns from"):
        clone_from(Dataset(tmp_path / "empty"), student, config, 0)
    with pytest.raises(ValueError, match="updates must be above 0"):
        CloningConfig(updates=0)
    with pytest.raises(ValueError, match="seconds must be above 0"):
        CloningConfig(seconds=0.0)
    with pytest.raises(ValueError, match=r"need beta in \[0, 1\]"):
        RecordingConfig(beta=1.5)


@pytest.mark.gpu
def test_recording_and_cloning_on_a_gpu(slider: Any, expert: Any, new_student: Any, tmp_path: Path) -> None:
    task = slider(64, device="cuda")
    config = RecordingConfig(frames=64 * 24, beta=0.5, noise=0.5, chunk_frames=64 * 4)
    record(task, expert, tmp_path / "d", config, 0, new_student(task))
    dataset = Dataset(tmp_path / "d")
    _, goal = dataset.read(0, 24)["obs/privileged"].unbind(-1)
    torch.testing.assert_close(dataset.read(0, 24)["task"][..., 0].float(), goal)
    student = new_student(task)
    cost = clone_from(dataset, student, CloningConfig(60, buffer_frames=64 * 8), 0)
    assert cost.history[-1].loss < 0.5
    assert student.device.type == "cuda"
