import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.util import tensor_util

from tutelage.experiments.tensorboard import event_reading
from tutelage.experiments.tensorboard.event_log import RunLog, masked_crc32c
from tutelage.experiments.tensorboard.event_reading import POINTS, Curve, RunReader


def read(folder: Path) -> RunReader:
    reader = RunReader(folder)
    while reader.update():
        pass
    return reader


def points(reader: RunReader, tag: str) -> list[tuple[int, float]]:
    curve = reader.curves[tag]
    return list(zip(curve.steps, curve.values, strict=True))


def shown(folder: Path, tag: str) -> list[tuple[int, float]]:
    """The curve as TensorBoard's own loader has it."""
    seen = EventAccumulator(str(folder), {"tensors": 0}).Reload().Tensors(tag)
    return [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in seen]


def write(folder: Path, steps: range, offset: float, purge_step: int | None = None) -> None:
    with RunLog(folder, purge_step) as log:
        for step in steps:
            log.scalars({"a": step + offset, "b": -step}, step)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + sums[0] + data + sums[1]


def test_checksums_are_those_of_tensorboard() -> None:
    for data in (b"", b"\0" * 8, bytes(range(256))):
        assert masked_crc32c(data) == pywrap_tensorflow.masked_crc32c(data)


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, reader = RunLog(tmp_path), RunReader(tmp_path)
    log.scalars({"a": 1.5}, 10)
    log.flush()
    assert reader.update()
    assert points(reader, "a") == [(10, 1.5)]
    assert not reader.update()
    log.scalars({"a": 2.5, "b": float("nan")}, 20)
    log.flush()
    sizes: list[int] = []
    records = event_reading._records
    monkeypatch.setattr(
        event_reading, "_records", lambda data, there: sizes.append(len(data)) or records(data, there)
    )
    assert reader.update()
    assert 0 < sum(sizes) < log.path.stat().st_size / 2  # the one record that was added
    assert points(reader, "a") == [(10, 1.5), (20, 2.5)]
    assert "b" not in reader.curves
    log.close()


def test_resumed_runs_read_as_tensorboard_shows_them(tmp_path: Path) -> None:
    write(tmp_path, range(0, 101, 10), 0.0)
    reader = read(tmp_path)
    [first] = tmp_path.glob("*tfevents*")
    with first.open("ab") as stream:  # a kill in the middle of a record
        stream.write(record(b"x" * 30)[:25])
    write(tmp_path, range(60, 91, 10), 0.5, purge_step=60)
    assert reader.update()
    wanted = [(s, s + (0.5 if s >= 60 else 0.0)) for s in range(0, 91, 10)]
    assert points(reader, "a") == wanted == shown(tmp_path, "a")
    assert points(read(tmp_path), "a") == wanted
    write(tmp_path, range(0, 30, 10), 0.25)  # begun anew: all of before is void
    reader.update()
    assert points(reader, "a") == [(0, 0.25), (10, 10.25), (20, 20.25)]


def test_half_a_record_waits_for_its_other_half(tmp_path: Path) -> None:
    write(tmp_path / "whole", range(3), 0.0)
    [whole] = (tmp_path / "whole").iterdir()
    data = whole.read_bytes()
    for cut in range(1, len(data)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / whole.name).write_bytes(data[:cut])
        reader = RunReader(folder)
        reader.update()
        with (folder / whole.name).open("ab") as stream:
            stream.write(data[cut:])
        reader.update()
        assert points(reader, "a") == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_damage_costs_a_record_or_the_rest_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, range(3), 0.0)
    [path] = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    begins, position = [], 0
    while position < len(data):
        begins.append(position)
        position += 16 + struct.unpack_from("<Q", data, position)[0]
    step_1 = begins[3]  # after the version, the session start and step 0
    data[step_1 + 14] ^= 1
    path.write_bytes(data)
    assert points(read(tmp_path), "a") == [(0, 0.0), (2, 2.0)]
    data[step_1 + 1] ^= 1  # its length
    path.write_bytes(data)
    assert points(read(tmp_path), "a") == [(0, 0.0)]


def test_bytes_of_anyone_do_no_harm(tmp_path: Path) -> None:
    rng = random.Random(0)
    write(tmp_path / "run", range(50), 0.0)
    [path] = (tmp_path / "run").iterdir()
    data = path.read_bytes()
    for _ in range(200):
        spoilt = bytearray(data)
        for _ in range(rng.randrange(1, 20)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        path.write_bytes(spoilt)
        read(tmp_path / "run")
    # valid checksums around nonsense, and a length of 2^63 bytes
    length = struct.pack("<Q", 1 << 63)
    end = length + struct.pack("<I", masked_crc32c(length))
    path.write_bytes(record(rng.randbytes(300)) + record(b"") + data + end)
    assert len(points(read(tmp_path / "run"), "a")) == 50


def test_long_records_are_passed_over(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.scalars({"a": 1.0}, 1)
        log.text("note", "x" * 5_000_000, 1)
        log.scalars({"a": 2.0}, 2)
    assert points(read(tmp_path), "a") == [(1, 1.0), (2, 2.0)]


def tensor(dtype: int, size: tuple[int, ...] = (), plugin: str = "", **fields: object) -> summary_pb2.Summary:
    shape = tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=s) for s in size]
    )
    data = tensor_pb2.TensorProto(dtype=dtype, tensor_shape=shape, **fields)
    described = summary_pb2.SummaryMetadata(plugin_data={"plugin_name": plugin}) if plugin else None
    return summary_pb2.Summary.Value(tag="t", tensor=data, metadata=described)


def test_scalars_in_the_form_of_tensors(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.summary([tensor(types_pb2.DT_FLOAT, float_val=[9.0])], 0)  # of an unknown plugin
        log.summary([tensor(types_pb2.DT_FLOAT, plugin="scalars", float_val=[1.5])], 1)
        log.summary([tensor(types_pb2.DT_DOUBLE, double_val=[2.5])], 2)  # the plugin is named once
        log.summary([tensor(types_pb2.DT_INT64, int64_val=[3])], 3)
        log.summary([tensor(types_pb2.DT_FLOAT, (1,), tensor_content=np.float32(4.5).tobytes())], 4)
        log.summary([tensor(types_pb2.DT_FLOAT, (1 << 40,), float_val=[5.0])], 5)  # a tera of fives
        log.summary([tensor(types_pb2.DT_FLOAT, tensor_content=b"xyz")], 6)
        log.summary([tensor(types_pb2.DT_STRING, string_val=[b"7"])], 7)
        log.text("note", "hello", 8)
    reader = read(tmp_path)
    assert points(reader, "t") == [(1, 1.5), (2, 2.5), (3, 3.0), (4, 4.5)]
    assert list(reader.curves) == ["t"]


def test_files_of_torch_and_of_stable_baselines(tmp_path: Path) -> None:
    from stable_baselines3.common.logger import configure
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "torch")) as writer:  # rsl_rl and skrl log through it
        for step in range(5):
            writer.add_scalar("Train/mean_reward", 2.0 * step, step)
            writer.add_scalar("new", 3.0 * step, step, new_style=True)
            writer.add_histogram("weights", np.arange(5.0), step)
    with SummaryWriter(str(tmp_path / "torch"), purge_step=3, filename_suffix=".2") as writer:
        writer.add_scalar("Train/mean_reward", 7.0, 3)
    reader = read(tmp_path / "torch")
    assert points(reader, "Train/mean_reward") == [(0, 0.0), (1, 2.0), (2, 4.0), (3, 7.0)]
    assert points(reader, "new") == [(0, 0.0), (1, 3.0), (2, 6.0)]
    assert len(reader.curves) == 2

    logger = configure(str(tmp_path / "sb3"), ["tensorboard"])
    for step in (100, 200):
        logger.record("rollout/ep_rew_mean", step / 100)
        logger.dump(step)
    logger.close()
    assert points(read(tmp_path / "sb3"), "rollout/ep_rew_mean") == [(100, 1.0), (200, 2.0)]


def test_steps_that_go_back_without_a_session_start_replace(tmp_path: Path) -> None:
    curve = Curve()
    for step, value in ((0, 0.0), (10, 1.0), (20, 2.0), (10, 5.0), (15, 6.0)):
        curve.append(step, value)
    assert list(curve.steps) == [0, 10, 15]
    assert list(curve.values) == [0.0, 5.0, 6.0]


def test_long_curves_are_thinned_evenly_and_keep_their_last_point() -> None:
    curve = Curve()
    for step in range(10_000):
        curve.append(step, float(step))
        assert len(curve.steps) <= POINTS
        assert curve.steps[-1] == step
    gaps = np.diff(np.asarray(curve.steps))
    assert len(curve.steps) > POINTS // 2 - 1
    assert set(gaps[:-1].tolist()) == {32}  # 10,000 / 512, the next power of two
    curve.purge(5000)
    for step in range(5000, 5100):
        curve.append(step, -1.0)
    assert curve.steps[-1] == 5099
    assert all(value == step for step, value in zip(curve.steps, curve.values, strict=True) if step < 5000)
    assert [v for s, v in zip(curve.steps, curve.values, strict=True) if s >= 5000] == [-1.0] * 4


def test_tags_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_reading, "TAGS", 3)
    with RunLog(tmp_path) as log:
        log.scalars({"x" * 600: 0.0, **{f"t{i}": 0.0 for i in range(5)}}, 0)
    assert list(read(tmp_path).curves) == ["t0", "t1", "t2"]


def test_reading_in_pieces_gives_the_same(tmp_path: Path) -> None:
    write(tmp_path, range(300), 0.0)
    write(tmp_path, range(200, 400), 0.5, purge_step=200)
    reader, rounds = RunReader(tmp_path), 0
    while reader.update(most_bytes=1):
        rounds += 1
    assert rounds == 2  # a file each
    assert points(reader, "a") == points(read(tmp_path), "a") == shown(tmp_path, "a")


def test_links_pipes_and_missing_folders_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", range(3), 0.0)
    [secret] = (tmp_path / "elsewhere").iterdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / secret.name).symlink_to(secret)
    os.mkfifo(run / "pipe.tfevents")
    (run / "folder.tfevents").mkdir()
    reader = RunReader(run)
    assert not reader.update()
    assert reader.curves == {}
    assert not RunReader(tmp_path / "nowhere").update()


def test_replaced_files_begin_the_curves_anew(tmp_path: Path) -> None:
    write(tmp_path, range(3), 0.0)
    reader = read(tmp_path)
    [path] = tmp_path.iterdir()
    path.unlink()
    write(tmp_path, range(2), 0.5)
    reader.update()
    assert points(reader, "a") == [(0, 0.5), (1, 1.5)]
