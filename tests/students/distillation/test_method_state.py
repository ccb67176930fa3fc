"""States of distillations by value: the running episodes of a real task, the counts, optimisers."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.students.distillation.dagger import Dagger, DaggerConfig
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.method import load_optimizer, optimizer_state
from tutelage.students.distillation.machinery.progress import Budget, RunCounts
from tutelage.teachers.experts.mlp_expert import Advice


class Still:
    """An expert whose advice follows from what it sees, if from nothing else."""

    view, num_actions, queries = "privileged", 4, 0

    def advise(self, obs_dict: Any) -> Advice:
        mean = torch.tanh(obs_dict[self.view][:, :4])
        return Advice(mean, torch.full_like(mean, 0.3), None)


def test_looks_pictures_and_noise_of_a_real_task_go_on(new_student: Any) -> None:
    """Reach in random looks, seen by two cameras, with noise on a view; episodes of 50 steps end within."""

    def begin() -> Dagger:
        cameras = [CameraConfig(name, 16, 16, ("rgb", "depth")) for name in ("front", "wrist")]
        task = Reach(
            8, threads=1, cameras=cameras, visuals=VisualRandomization.strong(), view_noise={"policy": 0.1}
        )
        images = tuple(f"{name}/{what}" for name in ("front", "wrist") for what in ("rgb", "depth"))
        student = new_student(task, images=images, memory=4, frames=2, predicts="privileged")
        learning = LearningConfig(batch_size=24, sequence_length=4, burn_in=1, threads=1)
        config = DaggerConfig(Budget(frames=8 * 80), learning, rollout_steps=20, updates=2, buffer_frames=400)
        return Dagger(task, Still(), student, config, seed=0)

    whole, part, last = (begin() for _ in range(3))
    whole.run()
    part.run(lambda progress: progress.frames < 8 * 40)
    last.load_state_dict(part.state_dict())
    assert last.task.obs_dict.keys() > {"front/rgb", "front/depth", "wrist/rgb", "wrist/depth"}
    for name, view in part.task.obs_dict.items():  # taken anew, and the same
        assert torch.equal(last.task.obs_dict[name], view)
    last.run()
    assert [report.frames for report in last.counts.history] == [160, 320, 480, 640]
    for one, other in zip(last.counts.history, whole.counts.history, strict=True):
        assert (one.loss, one.episodes) == (other.loss, other.episodes)
        assert torch.equal(one.action_error, other.action_error)
    assert sum(report.episodes for report in last.counts.history) >= 8
    for mine, its in zip(last.student.parameters(), whole.student.parameters(), strict=True):
        assert torch.equal(mine, its)
    for method in (whole, part, last):
        method.task.close()


def test_seconds_and_learning_rate_go_on() -> None:
    counts = RunCounts(Budget(frames=100, seconds=8), 2, torch.device("cpu"))
    counts.seconds = {"rollout": 1.5, "learning": 2.5}
    counts._begin_round()
    counts.add_step(torch.tensor([True, False]), torch.tensor([True, False]), torch.tensor([[0.2, 1.0]] * 2))
    counts.add_update(torch.tensor(2.0), 16)
    assert counts.report(None, 0.5, 1e-3)
    counts.report(None, 0.25, 1e-3)  # no episode ended: NaN
    other = RunCounts(Budget(frames=100, seconds=8), 2, torch.device("cpu"))
    other.load_state_dict(counts.state_dict())
    assert other.spent == 0.5  # 4 of 8 seconds
    assert (other.frames, other.queries, other.updates) == (2, 2, 1)
    one, two = (json.dumps(each.state_dict(), default=Tensor.tolist) for each in (counts, other))
    assert one == two  # as text: NaN is not equal to itself
    assert type(other.history[0].frames) is int
    assert other.history[0].action_error.tolist() == pytest.approx([0.2, 1.0])
    other.add_step(torch.tensor([True, True]), torch.tensor([True, True]), None)
    other.report(None, 0.0, 1e-3)
    assert (other.history[2].frames, other.history[2].episodes, other.history[2].seconds) == (4, 2, 4.0)
    empty = RunCounts(Budget(frames=1), 2, torch.device("cpu"))
    empty.load_state_dict(RunCounts(Budget(frames=1), 2, torch.device("cpu")).state_dict())
    assert empty.history == []


def test_moments_of_channels_last_weights_meet_their_weights() -> None:
    """Fused Adam reads weights and moments by address: both must lie in memory alike."""

    def network() -> tuple[torch.nn.Conv2d, torch.optim.Adam]:
        layer = torch.nn.Conv2d(3, 4, 2, bias=False)
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.nn.init.constant_(layer.weight, 0.5)
        return layer, torch.optim.Adam(layer.parameters(), 0.1, fused=True)

    def step(layer: torch.nn.Conv2d, optimizer: torch.optim.Adam) -> None:
        layer.weight.grad = torch.arange(48.0).view(4, 3, 2, 2).to(memory_format=torch.channels_last) % 7
        optimizer.step()

    (one, its), (other, others) = network(), network()
    step(one, its)
    state = optimizer_state(its)
    moments = state["state"][0]
    moments["exp_avg"] = moments["exp_avg"].contiguous()  # as read from a file
    moments["exp_avg_sq"] = moments["exp_avg_sq"].contiguous()
    with torch.no_grad():
        other.weight.copy_(one.weight)
    load_optimizer(others, state)
    for _ in range(2):
        step(one, its)
        step(other, others)
    assert torch.equal(one.weight, other.weight)
