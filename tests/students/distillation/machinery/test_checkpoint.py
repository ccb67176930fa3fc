"""Checkpoints: a distillation that was killed goes on as if nothing had happened; nothing is ever lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
from tutelage.envs.contract.state import StateError
from tutelage.students.distillation.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from tutelage.students.distillation.dagger import Dagger, DaggerConfig
from tutelage.students.distillation.machinery import checkpoint
from tutelage.students.distillation.machinery.checkpoint import load_checkpoint, save_checkpoint
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationProgress
from tutelage.students.distillation.on_policy import OnPolicy, OnPolicyConfig

LEARNING = LearningConfig(
    batch_size=24, sequence_length=4, burn_in=1, threads=1, augmentation=ImageAugmentation(shift=2)
)
ROUND = 5 * 8  # steps of environments
BUDGET = Budget(frames=7 * ROUND)
METHODS: dict[str, Any] = {
    "dagger": (Dagger, DaggerConfig(BUDGET, LEARNING, rollout_steps=5, updates=3, buffer_frames=96)),
    "bc": (
        BehaviourCloning,
        BehaviourCloningConfig(BUDGET, LEARNING, 5, updates=3, buffer_frames=96, disturb="dart"),
    ),
    "on_policy": (OnPolicy, OnPolicyConfig(BUDGET, LEARNING, rollout_steps=5)),
}


def make(method: str, slider: Any, expert: Any, new_student: Any, **student: Any) -> Any:
    """A method with a task and a student of its own; the ring of 12 steps holds less than 3 rounds of 5."""
    cls, config = METHODS[method]
    task = slider(num_envs=8)
    return cls(task, expert, new_student(task, **student), config, seed=3)


def weights(method: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in method.student.parameters()])


def curve(history: Any) -> list[str]:
    """Everything in the reports that does not depend on the machine; as text, where NaN equals NaN."""
    timed = ("seconds", "rolled_per_second", "trained_per_second")
    names = [field.name for field in fields(DistillationProgress) if field.name not in timed]
    return [
        json.dumps([getattr(report, name) for name in names], default=Tensor.tolist) for report in history
    ]


def stop_after(rounds: int) -> Any:
    left = iter(range(rounds - 1, -1, -1))
    return lambda progress: next(left) > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("student", [{}, {"memory": 8}, {"frames": 3, "head": "gaussian"}])
def test_a_killed_run_goes_on_to_the_same_numbers(
    method: str, student: dict[str, Any], slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    whole = make(method, slider, expert, new_student, **student)
    wanted = whole.run()
    assert wanted.frames == 7 * ROUND

    for stopped in (2, 3):  # killed after 2 rounds, and after 3 more: the ring has been full since round 3
        part = make(method, slider, expert, new_student, **student)
        assert load_checkpoint(tmp_path, part) == (stopped > 2)
        part.run(stop_after(stopped))
        save_checkpoint(tmp_path, part)
        part.run(stop_after(1))  # and a round that is lost
    last = make(method, slider, expert, new_student, **student)
    for parameter in last.student.parameters():
        parameter.data.fill_(7.0)
    assert load_checkpoint(tmp_path, last)
    found = last.run()

    assert torch.equal(weights(last), weights(whole))
    assert curve(found.history) == curve(wanted.history)
    assert (found.frames, found.queries, found.updates) == (wanted.frames, wanted.queries, wanted.updates)
    assert torch.equal(last.generator.get_state(), whole.generator.get_state())
    for name, view in whole.rolling.obs_dict.items():
        assert torch.equal(last.rolling.obs_dict[name], view)


def test_a_state_in_memory_is_by_value(slider: Any, expert: Any, new_student: Any) -> None:
    one, other = (make("dagger", slider, expert, new_student, memory=8) for _ in range(2))
    one.run(stop_after(3))
    state = one.state_dict()
    wanted = one.run()
    other.load_state_dict(state)
    found = other.run()
    assert torch.equal(weights(one), weights(other))
    assert curve(found.history) == curve(wanted.history)


def test_every_frame_is_written_once_and_what_left_the_ring_is_deleted(
    slider: Any, expert: Any, new_student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make("dagger", slider, expert, new_student)
    step = 8 * (32 * 32 * 3 + 4 * (1 + 1 + 1 + 1))  # of 8 environments: pixels, joint, label, deviation, age
    assert method.buffer.step_bytes == step
    monkeypatch.setattr(checkpoint, "SEGMENT_BYTES", 3 * step + 1)

    def frames() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("frames-*"))

    def segments() -> list[list[int]]:
        return [segment[1:] for segment in json.loads((tmp_path / "checkpoint.json").read_text())["segments"]]

    wanted = [  # 5 steps a round, at most 3 in a file, 12 in the ring
        [[0, 3], [3, 5]],
        [[0, 3], [3, 5], [5, 8], [8, 10]],
        [[3, 5], [5, 8], [8, 10], [10, 13], [13, 15]],
        [[8, 10], [10, 13], [13, 15], [15, 18], [18, 20]],
    ]
    inodes: dict[str, int] = {}
    for files in wanted:
        method.run(stop_after(1))
        save_checkpoint(tmp_path, method)
        assert segments() == files
        assert len(frames()) == len(files)
        now = {name: (tmp_path / name).stat().st_ino for name in frames()}
        assert all(inodes[name] == now[name] for name in inodes.keys() & now.keys())
        inodes = now
    assert len(list(tmp_path.iterdir())) == 5 + 2  # the state and the manifest
    # Saved twice in the same round: nothing to add
    save_checkpoint(tmp_path, method)
    assert segments() == wanted[-1]


def test_a_run_begun_anew_takes_over_no_frames_of_the_one_before(
    slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    for rounds in (2, 1):
        method = make("dagger", slider, expert, new_student)
        method.run(stop_after(rounds))
        save_checkpoint(tmp_path, method)
    (name,) = (path.name for path in tmp_path.glob("frames-*"))
    assert name == "frames-000002-000.safetensors"
    other = make("dagger", slider, expert, new_student)
    assert load_checkpoint(tmp_path, other)
    assert (other.buffer.added, other.buffer.size) == (5, 5)


def test_a_folder_that_another_run_has_written_to_is_written_anew(
    slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    one, other, last = (make("dagger", slider, expert, new_student) for _ in range(3))
    one.run(stop_after(1))
    save_checkpoint(tmp_path, one)
    other.run(stop_after(1))
    other.buffer._fields["policy"].zero_()
    save_checkpoint(tmp_path, other)
    one.run(stop_after(1))
    save_checkpoint(tmp_path, one)
    assert load_checkpoint(tmp_path, last)
    wanted, found = one.buffer.state_dict()["frames"], last.buffer.state_dict()["frames"]
    assert all(torch.equal(values, found[name]) for name, values in wanted.items())


def test_a_run_that_was_put_back_in_memory_can_be_saved(
    slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    """To before its last checkpoint, whose frames are then not its own."""
    method, last = (make("dagger", slider, expert, new_student) for _ in range(2))
    method.run(stop_after(1))
    state = method.state_dict()
    method.run(stop_after(1))
    save_checkpoint(tmp_path, method)
    method.load_state_dict(state)
    save_checkpoint(tmp_path, method)
    assert load_checkpoint(tmp_path, last)
    assert (last.buffer.added, last.counts.frames) == (5, ROUND)


def test_a_kill_while_writing_leaves_the_checkpoint_before(
    slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    """A process of its own saves after 2 rounds, and is killed in the middle of the checkpoint after 4."""
    script = f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parent)]!r}
        import conftest, test_checkpoint
        from tutelage.envs.batched.cameras.camera_config import CameraConfig
        from tutelage.students.distillation.machinery import checkpoint
        from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

        slider = lambda num_envs: conftest.Slider(
            num_envs, seed=0, threads=1, cameras=[CameraConfig("front", 32, 32)]
        )
        new_student = lambda task: VisionStudent.of_task(VisionConfig(hidden=(64,)), task, 0)
        method = test_checkpoint.make("dagger", slider, conftest.Pointing(), new_student)
        method.run(test_checkpoint.stop_after(2))
        checkpoint.save_checkpoint({str(tmp_path)!r}, method)
        method.run(test_checkpoint.stop_after(2))
        write = checkpoint._write

        def half(path, tensors):
            write(path, tensors)
            if path.name.startswith("state"):
                with path.open("rb+") as stream:
                    stream.truncate(path.stat().st_size // 2)
                print("writing", flush=True)
                time.sleep(600)

        checkpoint._write = half
        checkpoint.save_checkpoint({str(tmp_path)!r}, method)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*-000002*"))) == 2  # frames, whole, and half a state
    killed = make("dagger", slider, expert, new_student)
    assert load_checkpoint(tmp_path, killed)
    assert len(killed.counts.history) == 2
    found = killed.run(stop_after(2))
    save_checkpoint(tmp_path, killed)
    assert len(list(tmp_path.iterdir())) == 2 + 2  # rounds 1 and 2, 3 and 4, the state, the manifest

    whole = make("dagger", slider, expert, new_student)
    assert curve(whole.run(stop_after(4)).history) == curve(found.history)
    assert torch.equal(weights(whole), weights(killed))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write more into a file, in the middle of it, as when a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [50_000, 200_000])  # frames take 123,160 bytes, the state more than 200,000
def test_a_full_disk_keeps_the_checkpoint_before(
    size: int, slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    method = make("dagger", slider, expert, new_student)
    method.run(stop_after(1))
    folder = tmp_path / "run"
    with (
        files_of_at_most(size),
        pytest.raises(OSError, match=r"could be written to .*run \(.*\); there is none yet"),
    ):
        save_checkpoint(folder, method)
    assert list(folder.iterdir()) == []
    assert not load_checkpoint(folder, method)

    save_checkpoint(folder, method)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    method.run(stop_after(1))
    with files_of_at_most(size), pytest.raises(OSError, match="the one before it is kept"):
        save_checkpoint(folder, method)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    # With room again, nothing is missing.
    save_checkpoint(folder, method)
    other = make("dagger", slider, expert, new_student)
    assert load_checkpoint(folder, other)
    for each in (method, other):
        each.run()
    assert torch.equal(weights(other), weights(method))


@pytest.mark.parametrize("kind", ["checkpoint", "state", "frames"])
@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(
    kind: str, damage: str, slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    method = make("dagger", slider, expert, new_student)
    method.run(stop_after(1))
    save_checkpoint(tmp_path, method)
    (path,) = tmp_path.glob(f"{kind}*")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-50] if damage == "cut" else b'{"version": 3}')
    other = make("dagger", slider, expert, new_student)
    if (kind, damage) == ("checkpoint", "gone"):
        assert not load_checkpoint(tmp_path, other)
        return
    before, ring = weights(other).clone(), {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(StateError, match=r"cannot be continued: .*; to begin anew, delete it"):
        load_checkpoint(tmp_path, other)
    assert torch.equal(weights(other), before)
    assert other.counts.frames == other.buffer.added == 0
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == ring


def test_a_checkpoint_of_another_run_is_refused(
    slider: Any, expert: Any, new_student: Any, tmp_path: Path
) -> None:
    method = make("dagger", slider, expert, new_student)
    method.run(stop_after(1))
    save_checkpoint(tmp_path, method)
    with pytest.raises(StateError, match="the state is of Dagger; this is OnPolicy"):
        load_checkpoint(tmp_path, make("on_policy", slider, expert, new_student))
    with pytest.raises(StateError, match=r"another student: 'actor.0.weight' has shape \(64, 129\) there"):
        load_checkpoint(tmp_path, make("dagger", slider, expert, new_student, memory=8))
    for num_envs, frames, message in (
        (8, 40, "a ring whose steps are 12, those of this one are 5"),
        (4, 48, "a ring whose num_envs are 8, those of this one are 4"),
    ):
        task = slider(num_envs=num_envs)
        config = replace(METHODS["dagger"][1], buffer_frames=frames)
        other = Dagger(task, expert, new_student(task), config, 3)
        with pytest.raises(StateError, match=message):
            load_checkpoint(tmp_path, other)


def test_nothing_is_saved_within_a_round(slider: Any, expert: Any, new_student: Any, tmp_path: Path) -> None:
    method = make("dagger", slider, expert, new_student)
    method.round()
    with pytest.raises(RuntimeError, match=r"saved between rounds alone, e\.g\. in on_progress"):
        save_checkpoint(tmp_path, method)
    assert not load_checkpoint(tmp_path, method)


def test_what_a_method_adds_must_be_plain(slider: Any, expert: Any, new_student: Any, tmp_path: Path) -> None:
    method = make("dagger", slider, expert, new_student)
    method.own_state = lambda: {"rounds": 1, "parts": [{"who": object()}]}
    with pytest.raises(TypeError, match="entry '/own/parts/0/who' is a object; save tensors, arrays"):
        save_checkpoint(tmp_path, method)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu(method: str, slider: Any, expert: Any, new_student: Any, tmp_path: Path) -> None:
    cls, config = METHODS[method]
    one, other = (
        cls(task, expert, new_student(task, memory=8, frames=2), config, seed=3)
        for task in (slider(num_envs=8, device="cuda") for _ in range(2))
    )
    one.run(stop_after(3))
    save_checkpoint(tmp_path, one)
    assert load_checkpoint(tmp_path, other)
    assert torch.equal(weights(one), weights(other))
    state, loaded = one.state_dict(), other.state_dict()
    for part in (state, loaded):
        del part["rolling"]["task"], part["method"]
        part["ring"] = part["ring"]["frames"]
    torch.testing.assert_close(loaded, state, rtol=0, atol=0, equal_nan=True)
    assert other.run().frames == BUDGET.frames
