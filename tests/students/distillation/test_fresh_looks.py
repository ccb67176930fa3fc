"""Looks that are drawn anew at every step of a roll-out."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.students.distillation.dagger import Dagger, DaggerConfig
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent
from tutelage.teachers.experts.mlp_expert import Advice


class Still:
    """An expert that never moves."""

    view, num_actions, queries = "privileged", 4, 0

    def advise(self, obs_dict: dict[str, Tensor]) -> Advice:
        n = len(obs_dict[self.view])
        return Advice(torch.zeros(n, 4), torch.ones(n, 4), None)


def colours_seen(fresh_looks: bool, **student: int) -> tuple[int, Tensor]:
    """How many colours the table of one environment had in 5 steps, and where the goal was in the end."""
    cameras = [CameraConfig("front", 16, 16)]
    task = Reach(2, seed=3, threads=1, cameras=cameras, visuals=VisualRandomization.strong())
    learning = LearningConfig(fresh_looks=fresh_looks, batch_size=4, threads=1, sequence_length=2, burn_in=0)
    config = DaggerConfig(budget=Budget(frames=2), learning=learning, rollout_steps=1, updates=1)
    vision = VisionConfig(images=("front/rgb",), **student)
    method = Dagger(task, Still(), VisionStudent.of_task(vision, task), config, seed=0)
    method.config = replace(config, beta_end=1.0, beta="linear", noise=0.0)
    seen = set()
    table = task.model.geom("table").id
    for _ in range(5):
        method.round()
        seen.add(tuple(task.sim.read_model("geom_rgba")[0, table].tolist()))
    goal = task.goal.clone()
    task.close()
    return len(seen), goal


def test_single_frames_show_a_look_each_and_the_episode_goes_on():
    fresh, goal = colours_seen(True)
    kept, same = colours_seen(False)
    assert (fresh, kept) == (5, 1)
    assert torch.equal(goal, same)


def test_students_that_compare_frames_keep_the_look_of_their_episode():
    assert colours_seen(True, frames=2)[0] == 1
    assert colours_seen(True, memory=4)[0] == 1
