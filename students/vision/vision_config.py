"""The config of a vision student: its images, its encoder, its memory, its heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from tutelage.envs.contract.names import unknown_name

Encoder = Literal["fast", "fine", "nature", "impala", "points"]
Fusion = Literal["early", "late"]
Head = Literal["deterministic", "gaussian"]
Precision = Literal["auto", "float32", "bfloat16"]
STUDENT_VIEW = "student"
"""The `critic_view` of critics that see what the actor sees."""


@dataclass(frozen=True)
class VisionConfig:
    """Settings of a `tutelage.students.vision.vision_student.VisionStudent`; JSON values only.

    Attributes:
        images: names in ``obs_dict``: ``<camera>/rgb``, ``<camera>/depth``; ``("front/rgb", "front/depth")``
            is RGB-D. Those that are channels of one input are of one size.
        vector: a view beside them, what the robot feels; None for images alone.
        encoder: one of `tutelage.students.vision.encoders.ENCODERS`.
        fusion: of cameras. ``early``: all images are channels of one input. ``late``: each camera has an
            encoder of its own, and features are joined. The same where there is but one camera. Frames of a
            stack are channels of one input either way (Mnih et al. 2015).
        frames: how many successive images are stacked, at least 1.
        opponents: give the encoder, beside red, green and blue, how far they are apart; see
            `tutelage.students.vision.pixels.opponent_colours`. Students then tell colours that training never
            showed; training takes a sixth longer with this and `predicts`, acting three fifths (`tutelage
            bench distill`, 2 cores). Not for ``points``.
        memory: units of a GRU (Cho et al. 2014) between encoder and head; 0 for none.
        hidden: widths of the head's hidden layers (ELU).
        head: ``deterministic``, or ``gaussian`` with a standard deviation that does not depend on what is
            seen.
        init_std: the first standard deviation.
        predicts: a vector that the student learns to predict beside its actions, in training alone, where it
            learns from labels by `Learner.losses` (not in kickstarting
            nor from rewards); see `tutelage.students.vision.predictor.Predictor`. None for none.
        critic_view: what a critic sees, a vector, and may be what the student does not; ``student``: what the
            actor's head sees, features and memory, which it then shapes too; None for no critic.
        critic_hidden: widths of its hidden layers.
        critic_activation: what stands between them, a class of `torch.nn`.
        critic_clip: what it sees, normalised, is clipped to [-critic_clip, critic_clip]; None: not at all.
        depth_far: metres beyond which depth, infinite too, counts as this.
        fovy: vertical field of view of the camera in degrees, for ``points``.
        precision: of the encoder. ``auto``: bfloat16 where the processor computes faster with it, and never
            for ``points``.

    Raises:
        ValueError: for an unknown name, or a number out of range.
    """

    images: tuple[str, ...] = ("front/rgb",)
    vector: str | None = "policy"
    encoder: Encoder = "fast"
    fusion: Fusion = "late"
    frames: int = 1
    opponents: bool = False
    memory: int = 0
    hidden: tuple[int, ...] = (256, 128)
    head: Head = "deterministic"
    init_std: float = 0.3
    predicts: str | None = None
    critic_view: str | None = None
    critic_hidden: tuple[int, ...] = (256, 128)
    critic_activation: str = "ELU"
    critic_clip: float | None = None
    depth_far: float = 3.0
    fovy: float = 45.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.images, str) or not self.images:
            raise ValueError(f"images are {self.images!r}; give a tuple of names, as ('front/rgb',)")
        if len(set(self.images)) < len(self.images):
            raise ValueError(f"images are {self.images}: name each once, and stack frames by frames=")
        for name, choices in (
            ("encoder", Encoder),
            ("fusion", Fusion),
            ("head", Head),
            ("precision", Precision),
        ):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(unknown_name(name, value, get_args(choices)))
        if self.frames < 1 or self.memory < 0:
            raise ValueError(
                f"frames must be at least 1 and memory at least 0, not {self.frames} and {self.memory}"
            )
        for name in ("init_std", "depth_far", "fovy"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.encoder == "points" and (
            len({*map(camera_of, self.images)}) > 1 or not self.images[-1].endswith("/depth")
        ):
            raise ValueError(
                "the encoder 'points' needs depth of one camera, perhaps after RGB: images=('front/depth',) "
                f"or ('front/rgb', 'front/depth'), not {self.images}"
            )
        if self.encoder == "points" and self.opponents:
            raise ValueError("points have one colour each; use opponents=False with the encoder 'points'")
        if self.encoder == "points" and self.precision == "bfloat16":
            raise ValueError("points in bfloat16 are millimetres off; use precision='auto' with 'points'")

    @property
    def inputs(self) -> tuple[tuple[str, ...], ...]:
        """For each encoder the images that are channels of its input."""
        if self.fusion == "early":
            return (self.images,)
        cameras: dict[str, list[str]] = {}
        for name in self.images:
            cameras.setdefault(camera_of(name), []).append(name)
        return tuple(map(tuple, cameras.values()))

    @property
    def views(self) -> tuple[str, ...]:
        """All names in ``obs_dict`` that the student, in training too, or its critic reads; each once."""
        return tuple(dict.fromkeys([*self.images, *self.vectors]))

    @property
    def vectors(self) -> tuple[str, ...]:
        """The vectors among them: of the student, of its predictor, of its critic."""
        views = dict.fromkeys((self.vector, self.predicts, self.critic_view))
        return tuple(view for view in views if view is not None and view != STUDENT_VIEW)


def camera_of(image: str) -> str:
    """The camera that takes an image, of its name in ``obs_dict``: ``front`` of ``front/rgb``."""
    return image.rpartition("/")[0] or image


def vision_config_from_json(values: Mapping[str, Any]) -> VisionConfig:
    """Make a config of JSON values; the defaults stand for what is missing.

    Raises:
        ValueError: when there is no such setting, which names the nearest; or a value is out of range.
    """
    known = [setting.name for setting in fields(VisionConfig)]
    for name in values:
        if name not in known:
            raise ValueError(unknown_name("setting", name, known))
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return VisionConfig(**plain)
