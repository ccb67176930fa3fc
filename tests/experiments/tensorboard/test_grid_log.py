import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as ServerAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from tensorboard.util import tensor_util

from tutelage.experiments.runs.reading import GridError
from tutelage.experiments.tensorboard import event_log
from tutelage.experiments.tensorboard.event_log import Band, RunLog
from tutelage.experiments.tensorboard.grid_log import GridLog, SB3Output


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """A curve as the loaders see it: the public one, and the one behind TensorBoard's own server."""
    public = [(e.step, e.value) for e in EventAccumulator(str(folder), {"scalars": 0}).Reload().Scalars(tag)]
    server = ServerAccumulator(str(folder), {"tensors": 0}).Reload().Tensors(tag)
    assert public == [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in server]
    return public


def write(folder: Path, steps: range, offset: float, purge_step: int | None = None) -> None:
    with RunLog(folder, purge_step) as log:
        for step in steps:
            log.scalars({"a": step + offset, "b": -step}, step)


def test_resuming_leaves_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, range(0, 101, 10), 0.0)
    write(tmp_path, range(60, 101, 10), 0.5, purge_step=60)
    assert curve(tmp_path, "a") == [(s, s + (0.5 if s >= 60 else 0.0)) for s in range(0, 101, 10)]
    # a second and a third time, further back and further on, within the same second
    write(tmp_path, range(30, 81, 10), 0.25, purge_step=30)
    write(tmp_path, range(70, 121, 10), 0.75, purge_step=70)
    wanted = [(s, s + (0.0 if s < 30 else 0.25 if s < 70 else 0.75)) for s in range(0, 121, 10)]
    assert curve(tmp_path, "a") == wanted
    assert [step for step, _ in curve(tmp_path, "b")] == list(range(0, 121, 10))


def test_beginning_anew_voids_everything_before(tmp_path: Path) -> None:
    write(tmp_path, range(0, 50, 10), 0.0)
    write(tmp_path, range(0, 30, 10), 0.5)
    assert curve(tmp_path, "a") == [(0, 0.5), (10, 10.5), (20, 20.5)]


def test_a_server_that_is_already_reading_follows_a_resumption(tmp_path: Path) -> None:
    run = tmp_path / "ppo" / "alp-gmm" / "seed-0"
    write(run, range(0, 101, 10), 0.0)
    runs = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0})
    runs.AddRunsFromDirectory(str(tmp_path)).Reload()
    write(run, range(60, 101, 10), 0.5, purge_step=60)
    runs.Reload()
    assert [e.step for e in runs.Tensors("ppo/alp-gmm/seed-0", "a")] == list(range(0, 101, 10))


def test_kill_in_the_middle_of_a_record_loses_only_that_record(tmp_path: Path) -> None:
    write(tmp_path, range(0, 101, 10), 0.0)
    [first] = tmp_path.glob("*tfevents*")
    os.truncate(first, first.stat().st_size - 7)
    assert [step for step, _ in curve(tmp_path, "b")] == list(range(0, 100, 10))
    write(tmp_path, range(60, 101, 10), 0.5, purge_step=60)
    assert curve(tmp_path, "a") == [(s, s + (0.5 if s >= 60 else 0.0)) for s in range(0, 101, 10)]


def test_kill_minus_nine(tmp_path: Path) -> None:
    script = (
        "import itertools, sys\n"
        "from tutelage.experiments.tensorboard.grid_log import RunLog\n"
        "log = RunLog(sys.argv[1], flush_seconds=0)\n"
        "for step in itertools.count():\n"
        "    log.scalars({'a': step}, step)\n"
        "    print(step, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(200):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = [step for step, _ in curve(tmp_path, "a")]
    assert before[:200] == list(range(200))
    write(tmp_path, range(100, 120), 0.0, purge_step=100)
    assert [step for step, _ in curve(tmp_path, "a")] == list(range(120))


def test_events_reach_the_file_by_time_size_and_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(event_log.time, "monotonic", lambda: now[0])
    log = RunLog(tmp_path, flush_seconds=10)
    size = log.path.stat().st_size
    log.scalars({"a": 1.0}, 1)
    assert log.path.stat().st_size == size
    now[0] = 11.0
    log.scalars({"a": 1.0}, 2)
    assert (grown := log.path.stat().st_size) > size
    log.scalars({"a": 1.0}, 3)
    log.flush()
    assert (flushed := log.path.stat().st_size) > grown
    log.text("t", "x" * 2_000_000, 3)
    assert log.path.stat().st_size > flushed + 2_000_000
    log.close()
    log.close()


class FullDisk(io.FileIO):
    """Takes 50 bytes more, then is full."""

    room = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data[: self.room])
        type(self).room -= len(part)
        return super().write(part)


def test_full_disk_shows_once_and_leaves_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log.io, "FileIO", FullDisk)
    monkeypatch.setattr(FullDisk, "room", 1000)
    log = RunLog(tmp_path)
    log.scalars({"a": 1.0}, 1)
    log.flush()
    size = log.path.stat().st_size
    monkeypatch.setattr(FullDisk, "room", 50)
    for step in range(2, 12):
        log.scalars({"a": 1.0}, step)
    with pytest.raises(OSError, match="same command again") as caught:
        log.flush()
    assert caught.value.errno == errno.ENOSPC
    assert log.path.stat().st_size == size
    monkeypatch.setattr(FullDisk, "room", 10_000)
    log.scalars({"a": 1.0}, 12)
    log.close()
    assert [step for step, _ in curve(tmp_path, "a")] == [1]


def test_file_names_are_read_in_order_even_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log.time, "time", lambda: 2_000_000_000.0)
    first = RunLog(tmp_path).path
    monkeypatch.setattr(event_log.time, "time", lambda: 1_000_000_000.0)
    assert first.name < RunLog(tmp_path).path.name


def test_images_and_clips_decode_to_what_was_logged(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    frames = [np.full((20, 30, 3), level, np.uint8) for level in (0, 128, 255)]
    with RunLog(tmp_path) as log:
        log.image("picture", picture, 5)
        log.clip("clip", frames, 6, fps=10)
        with pytest.raises(ValueError, match="float64"):
            log.image("wrong", picture / 255, 5)
    seen = EventAccumulator(str(tmp_path), {"images": 0}).Reload()
    [image], [clip] = seen.Images("picture"), seen.Images("clip")
    assert (image.step, image.width, image.height) == (5, 30, 20)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), picture)
    gif = Image.open(io.BytesIO(clip.encoded_image_string))
    assert (gif.format, gif.n_frames, gif.info["duration"]) == ("GIF", 3, 100)


def test_hparams_and_layout_make_no_run_of_their_own(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.hparams({"rate": 3e-4, "teacher": "riac", "clips": True, "none": None, "n": 4})
        log.layout({"Grid": {"band": Band("grid/x"), "lines": ["a/.*", "b"]}})
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    seen = ServerAccumulator(str(tmp_path)).Reload()
    content = seen.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    assert {k: getattr(v, v.WhichOneof("kind")) for k, v in values.items()} == {
        "rate": 3e-4,
        "teacher": "riac",
        "clips": True,
        "n": 4.0,
    }
    [event] = seen.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
    band, lines = layout.category[0].chart
    assert band.margin.series[0].lower == "grid/x/lower"
    assert list(lines.multiline.tag) == ["^a/.*$", "^b$"]


def test_sb3_logger_writes_into_the_same_log(tmp_path: Path) -> None:
    import torch
    from stable_baselines3.common.logger import FormatUnsupportedError, HParam, Logger, Video
    from stable_baselines3.common.logger import Image as SB3Image

    log = RunLog(tmp_path)
    logger = Logger(folder=None, output_formats=[SB3Output(log)])
    logger.record("train/loss", np.float32(0.5))
    logger.record("train/hidden", 1.0, exclude="tensorboard")
    logger.record("note", "hello")
    logger.record("video", Video(torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8), fps=10))
    logger.record("h", HParam({"lr": 0.1}, {"score": 3.0}))
    logger.dump(step=70)
    seen = EventAccumulator(str(tmp_path)).Reload()
    assert set(seen.Tags()["scalars"]) == {"train/loss", "score"}
    assert [(e.step, e.value) for e in seen.Scalars("train/loss")] == [(70, 0.5)]
    assert seen.Tags()["images"] == ["video"]
    logger.record("figure", SB3Image(np.zeros((3, 3, 3)), "HWC"))
    with pytest.raises(FormatUnsupportedError, match="image"):
        logger.dump(step=80)
    logger.close()
    log.scalars({"later": 1.0}, 90)  # SB3 closing its logger does not close the run's log
    log.close()
    assert [step for step, _ in curve(tmp_path, "later")] == [90]


def test_importing_loads_no_torch() -> None:
    module = "tutelage.experiments.tensorboard.grid_log"
    code = f"import sys, {module}; print([n in sys.modules for n in ('torch', 'tensorboard')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False]"


def test_grid_curves_are_means_over_the_seeds_with_bounds(tmp_path: Path) -> None:
    log = GridLog(tmp_path, {"mastered_pct": "mastered"}, write_seconds=1e9)
    for seed, score in enumerate([10.0, 20.0, 30.0, 40.0]):
        log.update(1000, "ppo/riac", {"mastered_pct": {seed: score}})
        log.update(2000, "ppo/riac", {"mastered_pct": {seed: 2 * score}})
    log.update(1000, "ppo/random", {"mastered_pct": {0: 5.0}})
    log.close()
    riac = tmp_path / "_grid" / "ppo" / "riac"
    # the middle half of four runs: (20 + 30) / 2, and twice that
    assert curve(riac, "grid/mastered_pct") == [(1000, 25.0), (2000, 50.0)]
    assert curve(riac, "grid/seeds") == [(1000, 4.0), (2000, 4.0)]
    lower, upper = (curve(riac, f"grid/mastered_pct/{end}")[0][1] for end in ("lower", "upper"))
    assert 10 <= lower < 25 < upper <= 40
    lone = tmp_path / "_grid" / "ppo" / "random"
    assert {curve(lone, f"grid/mastered_pct{end}")[0] for end in ("", "/lower", "/upper")} == {(1000, 5.0)}


def test_grid_updates_are_idempotent_and_in_any_order(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((3, 9))
    values = [(100 + 100 * i, seed, float(scores[i, seed])) for i in range(3) for seed in range(9)]
    curves = []
    for name, order in (("a", values), ("b", values[::-1] + values)):
        log = GridLog(tmp_path / name, {"return": "return"}, write_seconds=0.0)  # writes every time
        for step, seed, value in order:
            log.update(step, "riac", {"return": {seed: value}})
        log.close()
        folder = tmp_path / name / "_grid" / "riac"
        assert len(list(folder.iterdir())) == 1
        curves.append([curve(folder, f"grid/return{end}") for end in ("", "/lower", "/upper")])
    assert curves[0] == curves[1]
    assert [step for step, _ in curves[0][0]] == [100, 200, 300]


def test_grid_voids_the_curves_of_an_earlier_process(tmp_path: Path) -> None:
    for scores in ({0: 1.0, 1: 2.0}, {0: 3.0}):
        log = GridLog(tmp_path, {"return": "return"})
        log.update(10, "riac", {"return": scores})
        log.close()
    assert curve(tmp_path / "_grid" / "riac", "grid/return") == [(10, 3.0)]
    with pytest.raises(GridError, match="did you mean 'return'"):
        GridLog(tmp_path, {"return": "return"}).update(10, "riac", {"retrun": {0: 1.0}})


def test_grid_describes_hyperparameters_of_all_its_runs(tmp_path: Path) -> None:
    log = GridLog(tmp_path, {"return": "return"})
    log.hparams(
        [{"student": "ppo", "n_steps": 8}, {"student": "sac", "tau": 0.005, "n_steps": None}],
        {"evaluation/uniform/return": "return"},
    )
    log.close()
    content = ServerAccumulator(str(tmp_path / "_grid")).Reload().PluginTagToContent("hparams")
    found = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    assert {info.name: info.differs for info in found.hparam_infos} == {
        "student": True,
        "n_steps": False,
        "tau": False,
    }
    assert found.metric_infos[0].name.tag == "evaluation/uniform/return"


def test_the_fast_loader_agrees(tmp_path: Path) -> None:
    """TensorBoard's default loader is another program; ask a running server."""
    import json
    import socket
    import urllib.request

    run = tmp_path / "run"
    write(run, range(0, 101, 10), 0.0)
    [first] = run.glob("*tfevents*")
    os.truncate(first, first.stat().st_size - 7)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={tmp_path}", f"--port={port}"]
    server = subprocess.Popen([*command, "--reload_interval=1"], stderr=subprocess.DEVNULL)

    def served() -> list[tuple[int, float]]:
        try:
            address = f"http://localhost:{port}/data/plugin/scalars/scalars?tag=a&run=run"
            with urllib.request.urlopen(address, timeout=5) as reply:
                return [(step, value) for _, step, value in json.load(reply)]
        except OSError:
            return []

    def wait_for(wanted: list[tuple[int, float]]) -> None:
        deadline = time.monotonic() + 60
        while (found := served()) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.5)

    try:
        wait_for([(s, s) for s in range(0, 100, 10)])
        write(run, range(60, 101, 10), 0.5, purge_step=60)
        wait_for([(s, s + (0.5 if s >= 60 else 0.0)) for s in range(0, 101, 10)])
    finally:
        server.terminate()
        server.wait()
