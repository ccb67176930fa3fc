"""Short clips of a student at work, for TensorBoard: which tasks to show, the frames, and the GIF."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray


def clip_tasks(tasks: NDArray[Any], mastery: ArrayLike) -> dict[str, int]:
    """Choose three test tasks to show, by what the student just achieved on them.

    Args:
        tasks: the test tasks, shape ``(n, ...)``, at least one.
        mastery: success (0 to 1) or return on each, shape ``(n,)``; NaN counts as the worst.

    Returns:
        Rows of `tasks`: ``easy``, where the student is best; ``current``, nearest to half-way between its
        best and its worst: the border of what it can do; ``hard``, where it is worst. Among equals,
        ``easy`` and ``hard`` take those farthest from tasks of the other kind, and ``current`` the one
        nearest to both kinds, so that the border is found where success is only yes or no.
    """
    values = np.asarray(mastery, dtype=np.float64)
    if len(values) != len(tasks) or len(values) == 0:
        raise ValueError(
            f"{len(tasks)} test tasks, but mastery of {len(values)}; need one for each, at least one"
        )
    worst = np.nanmin(values) if np.isfinite(values).any() else 0.0
    values = np.where(np.isfinite(values), values, worst)
    spread = np.ptp(values) or 1.0
    level = (values - values.min()) / spread  # 0 worst, 1 best

    points = np.asarray(tasks, dtype=np.float64).reshape(len(tasks), -1)
    points = (points - points.min(axis=0)) / np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1.0)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    # For each task, how good the student is around it: mean level weighted by nearness.
    near = np.exp(-((distance / 0.15) ** 2))
    around = near @ level / near.sum(axis=1)
    return {
        "easy": int(np.lexsort((-around, -level))[0]),
        "current": int(np.argmin(np.abs(around - 0.5))),
        "hard": int(np.lexsort((around, level))[0]),
    }


def record_clip(
    env: gym.Env[Any, Any],
    policy: Callable[[Any], Any],
    task: Any,
    seed: int,
    max_frames: int = 150,
    frame_skip: int = 4,
    width: int = 200,
) -> list[NDArray[np.uint8]]:
    """Play one episode of a task and return its frames; the environment is closed.

    Args:
        env: task environment with ``render_mode="rgb_array"``.
        policy: maps one observation to one action.
        task: what to start, one row of the test tasks.
        seed: of the episode.
        max_frames: the clip ends there, even when the episode goes on.
        frame_skip: environment steps from one frame to the next; the last state is always shown.
        width: of the frames in pixels; the height follows. Frames that are narrower stay as they are.

    Returns:
        Frames ``(height, width, 3)``, uint8: the first state, every `frame_skip`-th, the last.

    Raises:
        ValueError: when the environment renders no pictures.
    """
    frames: list[NDArray[np.uint8]] = []
    try:
        observation, _ = env.reset(seed=seed, options={"task": task})
        frames.append(_small_frame(env, width))
        step, done = 0, False
        while not done and len(frames) < max_frames:
            observation, _, terminated, truncated, _ = env.step(policy(observation))
            step, done = step + 1, bool(terminated or truncated)
            if done or step % frame_skip == 0:
                frames.append(_small_frame(env, width))
    finally:
        env.close()
    return frames


def encode_gif(frames: Sequence[NDArray[np.uint8]], fps: float = 25.0) -> bytes:
    """Encode frames ``(height, width, 3)`` of uint8 as an endless GIF, its last frame held for a second.

    All frames share one palette of 64 colours, taken from some of them, without dithering: colours stay
    calm and files small.

    Raises:
        ValueError: when there is no frame, or frames differ in shape.
    """
    from PIL import Image

    if len(frames) == 0 or len({frame.shape for frame in frames}) != 1:
        raise ValueError(
            f"a clip needs frames of one shape, at least one; got {[f.shape for f in frames][:5]}"
        )
    some = np.concatenate([frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, 6).astype(int))])
    palette = Image.fromarray(some).quantize(64, dither=Image.Dither.NONE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    # GIF counts in hundredths of a second, and players slow down what is below two of them.
    duration = max(20, 10 * round(100 / fps))
    stream = io.BytesIO()
    images[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[duration] * (len(images) - 1) + [max(1000, duration)],
        loop=0,
        optimize=False,
    )
    return stream.getvalue()


def _small_frame(env: gym.Env[Any, Any], width: int) -> NDArray[np.uint8]:
    from PIL import Image

    frame = env.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise ValueError(
            f"the environment renders {type(frame).__name__}; make it with render_mode='rgb_array'"
        )
    if frame.shape[1] <= width:
        return np.array(frame[..., :3], dtype=np.uint8)
    height = max(1, round(frame.shape[0] * width / frame.shape[1]))
    image = Image.fromarray(frame[..., :3].astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
