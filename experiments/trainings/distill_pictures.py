"""Pictures of a student at work: its views, the expert's knowledge beside them, both acting side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.looks.contact_sheet import contact_sheet, png_bytes, to_rgb
from tutelage.envs.contract.state import atomic_file
from tutelage.experiments.distill import DistillConfig, make_task
from tutelage.experiments.trainings.distill_presets import main_looks
from tutelage.experiments.trainings.expert import EVALUATION_SEED
from tutelage.students.distillation.machinery.evaluation import deterministic
from tutelage.students.torch_tools.play import play

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import MLPExpert

Picture = NDArray[np.uint8]
"""``(height, width, 3)``."""

SHOWN = 8  # environments on a contact sheet
KNOWN = 4  # environments beside what the expert knows
CLIP_STARTS = 3  # columns of a clip
BAR = 6  # pixels, the height of a bar
WIDTH = 150  # pixels, of bars in full, from -LIMIT to LIMIT
LIMIT = 3.0  # standard deviations of its training that the expert's bars reach
_INK, _RULE = (34, 34, 34), (220, 220, 220)
_EXPERT, _STUDENT = (0, 114, 178), (213, 94, 0)


def write_png(path: Path, picture: Picture) -> None:
    """Write a picture, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as part:
        part.write_bytes(png_bytes(picture))


def sheet(images: Sequence[str], obs_dict: Mapping[str, Tensor]) -> Picture:
    """Pictures of students: a row for each kind of picture, a column for each of the first environments."""
    seen = [obs_dict[name][:SHOWN] for name in images]
    columns = len(seen[0])
    labels = [label for name in images for label in [name, *[""] * (columns - 1)]]
    return contact_sheet(seen, columns, labels)


def knowledge(images: Sequence[str], task: VecTask, expert: MLPExpert, student: VisionStudent) -> Picture:
    """The student's pictures, beside the expert's view and the actions of both, as bars.

    The expert's view is shown as its network has it: in standard deviations of its training, by index. A
    student with memory answers as at the start of an episode.
    """
    from PIL import Image, ImageDraw, ImageFont

    obs_dict = {name: view[:KNOWN] for name, view in task.obs_dict.items()}
    known = ((obs_dict[expert.view] - expert.actor.mean) / expert.actor.scale).float().cpu()
    queries = expert.queries
    wanted = expert.act(obs_dict).cpu()
    expert.queries = queries  # looking on is not charged
    done, _ = student.act(obs_dict, student.start(len(known)))
    pictures = [to_rgb(obs_dict[name]).numpy() for name in images]
    scale = max(1, 128 // pictures[0].shape[1])
    height, width = (scale * size for size in pictures[0].shape[1:3])
    rows = known.shape[1] + 3 + 3 * wanted.shape[1]
    block = (len(images) * (width + 4) + WIDTH + 44, max(height, rows * (BAR + 2)) + 22)
    columns = 2 if len(known) > 1 else 1
    page = Image.new("RGB", (columns * block[0], -(-len(known) // columns) * block[1]), (255, 255, 255))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(10)
    for i in range(len(known)):
        left, top = i % columns * block[0], i // columns * block[1] + 16
        for j, picture in enumerate(pictures):
            enlarged = Image.fromarray(picture[i]).resize((width, height), Image.Resampling.NEAREST)
            page.paste(enlarged, (left + 2 + j * (width + 4), top))
        x = left + len(images) * (width + 4) + 20
        draw.text((x, top - 15), f"{expert.view}: the expert's knowledge", fill=_INK, font=font)
        for k, value in enumerate(known[i].tolist()):
            _bar(draw, font, (x, top + k * (BAR + 2)), value / LIMIT, _EXPERT, str(k) if k % 5 == 0 else "")
        y = top + (known.shape[1] + 2) * (BAR + 2)
        draw.text((x, y - 9), "actions: expert's (blue), student's", fill=_INK, font=font)
        for k, pair in enumerate(zip(wanted[i].tolist(), done[i].cpu().tolist(), strict=True)):
            for value, colour, down in zip(pair, (_EXPERT, _STUDENT), (1, 2), strict=True):
                _bar(
                    draw,
                    font,
                    (x, y + (3 * k + down) * (BAR + 2)),
                    value,
                    colour,
                    str(k) if down == 1 else "",
                )
    return np.asarray(page)


def _bar(
    draw: ImageDraw,
    font: FreeTypeFont | ImageFont,
    at: tuple[int, int],
    value: float,
    colour: tuple[int, int, int],
    label: str,
) -> None:
    """A bar from the middle to the left or right, for a value from -1 to 1, in a frame."""
    x, y = at
    middle = x + WIDTH // 2
    end = middle + round(max(-1.0, min(1.0, value)) * WIDTH / 2)
    draw.line((x, y + BAR // 2, x + WIDTH, y + BAR // 2), fill=_RULE)
    draw.rectangle((min(middle, end), y, max(middle, end), y + BAR - 1), fill=colour)
    if label:
        draw.text((x - 14, y - 3), label, fill=_INK, font=font)


def clip(config: DistillConfig, seed: int, expert: MLPExpert | None, student: VisionStudent) -> list[Picture]:
    """Expert (above) and student (below) on the same starts in the same looks: those of the main test set.

    Without an expert, the student alone.
    """
    starts = CLIP_STARTS
    actors = {**({"expert": deterministic(expert)} if expert is not None else {})}
    actors["student"] = deterministic(student)
    rows = len(actors)
    looks = main_looks(config.task, config.training_looks)
    task = make_task(config, rows * starts, looks, seed, also_rgb=True)
    rng = np.random.default_rng(EVALUATION_SEED)
    tasks = np.tile(task.task_space.sample(rng, starts), (rows, 1))
    labels = [label for name in actors for label in [name, *[""] * (starts - 1)]]
    frames: list[Picture] = []

    def watch(obs_dict: Mapping[str, Tensor], actions: Tensor, running: Tensor) -> None:
        frames.append(contact_sheet(obs_dict[f"{config.cameras[0]}/rgb"], starts, labels, scale=3))

    def act(obs_dict: Mapping[str, Tensor], started: Tensor) -> Tensor:
        answers = [actor(dict(obs_dict), started) for actor in actors.values()]
        return torch.cat([a[i * starts : (i + 1) * starts] for i, a in enumerate(answers)])

    play(task, act, tasks, [*range(starts)] * rows, watch)
    task.close()
    return frames


def action_errors(task: VecTask, student: VisionStudent, expert: MLPExpert, seed: int) -> list[float]:
    """How far the student's actions are from the expert's, where the student gets: a mean for each action.

    Mean absolute difference of clipped actions over the steps of one episode in each environment; the
    expert's answers are not charged.
    """
    count = task.num_envs
    rng = np.random.default_rng([seed, 2])
    tasks, seeds = task.task_space.sample(rng, count), rng.integers(0, 2**31, count).tolist()
    total = torch.zeros(task.num_actions, dtype=torch.float64, device=task.device)
    queries = expert.queries

    def watch(obs_dict: Mapping[str, Tensor], actions: Tensor, running: Tensor) -> None:
        nonlocal total
        total += ((actions - expert.act(obs_dict)).abs() * running[:, None]).sum(0)

    episodes = play(task, deterministic(student), tasks, seeds, watch)
    expert.queries = queries
    errors: list[float] = (total / int(episodes.lengths.sum())).tolist()
    return errors
