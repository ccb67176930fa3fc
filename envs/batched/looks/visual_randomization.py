"""Randomised looks: colours, textures, lights and cameras of every environment, drawn anew at each reset.

What a camera sees then differs between episodes in all that a policy must not rely on (Tobin et al. 2017,
"Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real World"). Noise, blur
and the like, of the picture and not of the scene, are in `tutelage.envs.batched.looks.image_augmentation`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import TEXTURE_FIELDS, VISUAL_FIELDS
from tutelage.envs.batched.looks.colours import ColourRanges, GeomColours, Range, deviations, find_kept_geoms
from tutelage.envs.batched.looks.placements import (
    ModelPoses,
    quaternion_product,
    random_vectors,
    rotate,
    to_quaternion,
)
from tutelage.envs.batched.looks.texture_patterns import PATTERNS, TextureFamily
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.streams import RandomStreams

if TYPE_CHECKING:
    import mujoco

    from tutelage.envs.batched.simulators.simulator import Simulator

_LIMITS = {
    "hue": 0.5,
    "saturation": 0.5,
    "brightness": 0.5,
    "light_offset": math.inf,
    "light_intensity": 1.0,
    "camera_offset": math.inf,
    "camera_rotation": 180.0,
    "camera_fovy": 30.0,
}
"""The ranges, and how large each can be."""


@dataclass(frozen=True)
class VisualRandomization:
    """Ranges within which the looks of an episode deviate from those of the model.

    Ranges are ``(least, most)`` deviations, uniform between the two, from the model's own values, which are
    the base at every reset: nothing adds up. A least deviation above 0 keeps away from the familiar: that is
    how `held_out` differs from what `mild` and `strong` show in training::

        Reach(256, cameras=[CameraConfig("front")], visuals=VisualRandomization.strong())

    Geoms that have one colour in the model are of one colour in every episode (a table's top and edge).
    The hue of `keep_hue` stays, and other colours are kept `HUE_CLEARANCE` away
    from it, so that a red goal remains the red thing: a hue that would come too near is turned the other way.

    Same streams, same looks, on both simulators and in any company. All settings draw as many numbers, so
    that equal seeds play equal episodes under `none` and under `held_out`.

    Textures are grey patterns that colours multiply (`texture_patterns`), drawn for
    geoms of one colour together, which otherwise keep the model's own; never for those of `keep_hue`, and not
    for meshes. They must be in the model before it is compiled: `VecTask` calls `prepare`. What is behind
    everything (`BACKGROUND`) is fixed: give the model a wall to vary it.

    Attributes:
        hue: of colours, in turns of the colour wheel, up to 0.5.
        saturation, brightness: S and V of colours, up to 0.5, within [0, 1] of which they stay by going the
            other way.
        replaced: probability that a colour is drawn anew rather than varied, with saturation from 0.2 and
            brightness from 0.35 on.
        replaced_hues: hues of those, an interval in turns: 0 and 1 red, 1/3 green, 2/3 blue.
        keep_hue: names of geoms; shell patterns, which may match none, are allowed.
        textured: probability that geoms of one colour get a texture, in place of their own if they have one.
        texture_family: which textures those are, ``training`` or ``held_out``: no type of pattern is in both.
        light_offset: distance that a light is moved, in metres, in any direction.
        light_intensity: relative: 0.2 is 20 % more or less.
        camera_offset: distance that a camera is moved, in metres, in any direction.
        camera_rotation: angle about a random axis, in degrees; a camera that aims at a body goes on aiming.
        camera_fovy: of the vertical field of view, in degrees.
        mounted_scale: what part of offset and rotation applies to cameras that are mounted on moving bodies,
            small and close to what they see; not to those that track a body from afar.

    Raises:
        ValueError: when a range is not 0 <= least <= most <= its limit, a probability is none, or there is no
            such family of textures.
    """

    hue: Range = (0.0, 0.0)
    saturation: Range = (0.0, 0.0)
    brightness: Range = (0.0, 0.0)
    replaced: float = 0.0
    replaced_hues: Range = (0.0, 1.0)
    keep_hue: tuple[str, ...] = ("goal*", "target*")
    textured: float = 0.0
    texture_family: TextureFamily = "training"
    light_offset: Range = (0.0, 0.0)
    light_intensity: Range = (0.0, 0.0)
    camera_offset: Range = (0.0, 0.0)
    camera_rotation: Range = (0.0, 0.0)
    camera_fovy: Range = (0.0, 0.0)
    mounted_scale: float = 0.2

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            least, most = getattr(self, name)
            if not 0 <= least <= most <= limit:
                raise ValueError(
                    f"{name} must be (least, most) with 0 <= least <= most <= {limit:g}, not {least, most}"
                )
        for name in ("replaced", "textured"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability from 0 to 1, not {getattr(self, name):g}")
        if self.texture_family not in PATTERNS:
            near = difflib.get_close_matches(str(self.texture_family), PATTERNS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"there is no texture_family {self.texture_family!r}{hint} (known: {', '.join(PATTERNS)})"
            )
        if not 0 <= self.mounted_scale <= 1:
            raise ValueError(f"mounted_scale must be from 0 to 1, not {self.mounted_scale:g}")
        low, high = self.replaced_hues
        if not 0 <= low < high <= 1:
            raise ValueError(f"replaced_hues must be (low, high), 0 <= low < high <= 1, not {low, high}")

    @staticmethod
    def none() -> VisualRandomization:
        """The model's own looks in every episode."""
        return VisualRandomization()

    @staticmethod
    def mild() -> VisualRandomization:
        """Return the differences between two days with a robot: light, shades, a knock at the camera."""
        return replace(VisualRandomization.strong().scaled(0.3), replaced=0.0, textured=0.0)

    @staticmethod
    def strong() -> VisualRandomization:
        """Other rooms and other cameras; most colours are drawn anew, from red to blue.

        Three of four are on textures of the training family.
        """
        return VisualRandomization(
            hue=(0.0, 0.06),
            saturation=(0.0, 0.2),
            brightness=(0.0, 0.2),
            replaced=0.8,
            replaced_hues=(0.0, 0.64),
            textured=0.75,
            light_offset=(0.0, 0.6),
            light_intensity=(0.0, 0.3),
            camera_offset=(0.0, 0.06),
            camera_rotation=(0.0, 4.0),
            camera_fovy=(0.0, 4.0),
        )

    @staticmethod
    def held_out() -> VisualRandomization:
        """For evaluation alone: colours, textures and lights none has with `strong`, cameras any could have.

        All colours but those of `keep_hue` are drawn anew, with hues from violet to pink, which none has with
        `strong`, unless the model itself has a colour of a hue from 0.68 to 0.98 (our tasks have none), and
        all are on textures of the held-out family. Those of `keep_hue` differ in saturation and brightness.
        Lights are farther off. Cameras are displaced
        within the ranges of `strong`: where a picture was taken from decides what it tells of the scene, so
        that other poses are another task, not another look; see `beyond`.
        """
        strong = VisualRandomization.strong()
        return replace(
            VisualRandomization.beyond(),
            camera_offset=strong.camera_offset,
            camera_rotation=strong.camera_rotation,
            camera_fovy=strong.camera_fovy,
        )

    @staticmethod
    def beyond() -> VisualRandomization:
        """For evaluation alone: as `held_out`, and cameras too deviate more than with `strong`."""
        return VisualRandomization(
            hue=(0.065, 0.1),
            saturation=(0.21, 0.28),
            brightness=(0.21, 0.28),
            replaced=1.0,
            replaced_hues=(0.74, 0.92),
            textured=1.0,
            texture_family="held_out",
            light_offset=(0.65, 0.85),
            light_intensity=(0.31, 0.4),
            camera_offset=(0.065, 0.085),
            camera_rotation=(4.5, 6.0),
            camera_fovy=(4.5, 6.0),
        )

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> VisualRandomization:
        """Build from the JSON values of ``dataclasses.asdict``.

        Raises:
            ValueError: for an unknown name; suggests the nearest.
        """
        known = [field.name for field in fields(VisualRandomization)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"no looks are called {name!r}{hint} (known: {', '.join(known)})")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return VisualRandomization(**plain)

    def scaled(self, strength: float) -> VisualRandomization:
        """All deviations, and probabilities of new colours and textures, times `strength`; up to limits."""
        scaled: dict[str, Any] = {
            name: tuple(min(strength * end, limit) for end in getattr(self, name))
            for name, limit in _LIMITS.items()
        }
        for name in ("replaced", "textured"):
            scaled[name] = min(strength * getattr(self, name), 1.0)
        return replace(self, **scaled)

    def prepare(self, spec: mujoco.MjSpec) -> tuple[str, ...]:
        """Add the textures to a model, if any are to be drawn; call it before the model is compiled.

        Returns:
            Fields of the model that differ between environments, for the simulator's `model_fields`.

        Raises:
            ValueError: when the model has no geom of a name in `keep_hue`.
        """
        if not self.textured:
            return VISUAL_FIELDS
        from tutelage.envs.batched.looks.textures import add_textures

        model = spec.compile()
        added = add_textures(spec, model, find_kept_geoms(self.keep_hue, model))
        return (*VISUAL_FIELDS, *TEXTURE_FIELDS) if added else VISUAL_FIELDS

    def apply(self, sim: Simulator, streams: RandomStreams, rows: Rows) -> None:
        """Draw the looks of new episodes and write them; a task may then overwrite what it decides itself.

        Args:
            sim: of a model from a spec that was prepared; has the fields that `prepare` returned per
                environment.
            streams: whose numbers are used, as many in every call.
            rows: environments that begin an episode.

        Raises:
            ValueError: when the model has no geom of a name in `keep_hue`, no hue is left to draw, or the
                model was not prepared for textures.
        """
        base = _BASES.get(sim)
        if base is None or base.config != self:
            base = _BASES[sim] = _Base(self, sim.model, sim.device)
        unit = streams.uniform(rows, base.draws)
        colours, lights, cameras, textures = unit.split(base.split, 1)
        sim.write_model("geom_rgba", base.colours.draw(colours.view(rows.n, -1, 4)), rows)
        if base.textures.any:
            fields = base.textures.draw(textures.view(rows.n, -1, 3))
            for name, values in zip(TEXTURE_FIELDS, fields, strict=True):
                sim.write_model(name, values, rows)
        if base.lights.count:
            moves = lights.view(rows.n, -1, 4)
            base.lights.move(sim, rows, random_vectors(moves[..., :3], base.light_offset))
            factor = 1 + deviations(moves[..., 3:], self.light_intensity)
            sim.write_model("light_diffuse", base.light_diffuse * factor, rows)
        if base.cameras.count:
            moves = cameras.view(rows.n, -1, 7)
            base.cameras.move(sim, rows, random_vectors(moves[..., :3], base.camera_offset))
            turns = random_vectors(moves[..., 3:6], base.camera_rotation)
            base.turn_cameras(sim, rows, turns)
            fovy = base.cam_fovy + deviations(moves[..., 6], self.camera_fovy)
            sim.write_model("cam_fovy", fovy.clamp(1.0, 179.0), rows)


class _Base:
    """The looks of a model, as constants on the device: what each reset starts from."""

    def __init__(self, config: VisualRandomization, model: mujoco.MjModel, device: torch.device) -> None:
        from tutelage.envs.batched.looks.textures import GeomTextures

        def constant(values: Any) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.config = config
        ranges = ColourRanges(**{field.name: getattr(config, field.name) for field in fields(ColourRanges)})
        self.colours = GeomColours(ranges, model, device)
        self.textures = GeomTextures(self.colours, config.textured, config.texture_family, model, device)
        self.lights, self.cameras = (ModelPoses(kind, model, device) for kind in ("light", "cam"))
        self.light_diffuse = constant(model.light_diffuse)
        self.cam_quat, self.cam_fovy = constant(model.cam_quat), constant(model.cam_fovy)
        self.axes = torch.eye(3, device=device)
        moving = constant(model.body_weldid[model.cam_bodyid] != 0)
        mounted = (moving * ~self.cameras.tracking)[:, None]
        scale = 1 - mounted * (1 - config.mounted_scale)
        self.light_offset = constant(config.light_offset)
        self.camera_offset = scale * constant(config.camera_offset)
        self.camera_rotation = scale * constant(config.camera_rotation) * (math.pi / 180)
        self.split = [4 * self.colours.groups, 4 * model.nlight, 7 * model.ncam, 3 * self.colours.groups]
        self.draws = sum(self.split)

    def turn_cameras(self, sim: Simulator, rows: Rows, turns: Tensor) -> None:
        """Turn cameras, in their own frames, by rotation vectors ``(n, ncam, 3)`` in radians."""
        turned = quaternion_product(self.cam_quat, to_quaternion(turns))
        sim.write_model("cam_quat", turned, rows)
        if self.cameras.any_tracks:
            columns = rotate(quaternion_product(self.cameras.frames, turned)[..., None, :], self.axes)
            sim.write_model("cam_mat0", columns.mT.flatten(2), rows)


_BASES: WeakKeyDictionary[Simulator, _Base] = WeakKeyDictionary()
