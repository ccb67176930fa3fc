"""Looks are drawn around the model's own, by hand-computable rules, for just the environments that reset."""

import colorsys
import json
import math
from dataclasses import asdict
from fnmatch import fnmatchcase

import mujoco
import numpy as np
import pytest
import torch

from tutelage.envs.batched.cameras.camera_config import TEXTURE_FIELDS, VISUAL_FIELDS, CameraConfig
from tutelage.envs.batched.looks.colours import GREY, HUE_CLEARANCE, free_hues, hsv_to_rgb
from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator
from tutelage.envs.batched.simulators.simulator import Simulator
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.streams import RandomStreams
from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, make_vec_task

PRESETS = {
    name: getattr(VisualRandomization, name)() for name in ("none", "mild", "strong", "held_out", "beyond")
}
GEOMS = ("goal", "table", "table_edge", "floor", "hand")


FIELDS = (*VISUAL_FIELDS, *TEXTURE_FIELDS)


def make_model(visuals: VisualRandomization = PRESETS["strong"]) -> mujoco.MjModel:
    """With textures to draw from, unless the looks have none."""
    spec = mujoco.MjSpec()
    sphere, world = mujoco.mjtGeom.mjGEOM_SPHERE, spec.worldbody
    spec.add_material(name="green", rgba=[0.2, 0.6, 0.2, 1.0])
    looks = {
        "goal": {"rgba": [0.9, 0.1, 0.1, 1.0]},
        "table": {"rgba": [0.4, 0.4, 0.8, 0.5]},
        "table_edge": {"rgba": [0.4, 0.4, 0.8, 0.5]},
        "floor": {"material": "green"},
    }
    for name, look in looks.items():
        world.add_geom(name=name, type=sphere, size=[0.1, 0, 0], **look)
    world.add_light(pos=[1, 2, 3], diffuse=[0.8, 0.6, 0.4])
    world.add_camera(name="front", pos=[0, -2, 1], xyaxes=[1, 0, 0, 0, 0, 1], fovy=40)
    hand = world.add_body(name="hand", pos=[0, 0, 1])
    hand.add_joint()
    hand.add_geom(name="hand", type=sphere, size=[0.1, 0, 0], rgba=[0.5, 0.5, 0.5, 1.0])
    hand.add_camera(name="wrist", pos=[0, 0, 0.1], fovy=60)
    modes = mujoco.mjtCamLight
    tilted = world.add_body(name="tilted", pos=[1, 0, 1], quat=[0.8, 0.2, -0.4, 0.4])
    tilted.add_freejoint()
    tilted.add_geom(type=sphere, size=[0.1, 0, 0], pos=[0, 0.3, 0], group=5, rgba=[0.5, 0.5, 0.5, 1.0])
    tilted.add_camera(name="fixed", pos=[0.1, 0.2, 0.3], quat=[0.9, 0.3, 0.1, 0.2])
    for name, mode in {"track": modes.mjCAMLIGHT_TRACK, "trackcom": modes.mjCAMLIGHT_TRACKCOM}.items():
        tilted.add_camera(name=name, pos=[1, -2, 1], quat=[0.9, 0.3, 0.1, 0.2], mode=mode)
        tilted.add_light(name=name, pos=[1, -2, 1], mode=mode)
    aiming = tilted.add_camera(name="aiming", pos=[1, 2, 1], mode=modes.mjCAMLIGHT_TARGETBODY)
    aiming.targetbody = "hand"
    visuals.prepare(spec)
    return spec.compile()


def make_sim(n: int = 1) -> BatchSimulator:
    return BatchSimulator(make_model(), n, model_fields=FIELDS, threads=1)


def apply(
    looks: VisualRandomization, sim: Simulator, streams: RandomStreams, rows: Rows | None = None
) -> dict[str, torch.Tensor]:
    looks.apply(sim, streams, rows or Rows.all(sim.num_envs))
    return {name: sim.read_model(name).clone() for name in FIELDS}


class Fixed:
    """Streams whose every number is the same."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniform(self, rows: Rows, count: int) -> torch.Tensor:
        return torch.full((rows.n, count), self.number)


def hues(rgba: torch.Tensor) -> np.ndarray:
    return np.array([[colorsys.rgb_to_hsv(*map(float, geom[:3])) for geom in env] for env in rgba])


def test_no_randomization_is_the_model():
    model, found = make_model(), apply(VisualRandomization.none(), make_sim(), Fixed(0.3))
    expected = model.geom_rgba.copy()
    expected[GEOMS.index("floor")] = [0.2, 0.6, 0.2, 1.0]  # of its material
    torch.testing.assert_close(found["geom_rgba"][0], torch.tensor(expected))
    for name in FIELDS[1:]:
        np.testing.assert_allclose(found[name][0], getattr(model, name), atol=1e-6)


def test_colours_by_hand():
    # Every number 0.75: 2 * 0.75 - 1 = 0.5, so each deviation is least + 0.5 * (most - least).
    looks = VisualRandomization(hue=(0.0, 0.1), saturation=(0.1, 0.3), brightness=(0.0, 0.2))
    rgba = apply(looks, make_sim(), Fixed(0.75))["geom_rgba"][0]
    # The table is (h, s, v) = (2/3, 0.5, 0.8): + (0.05, 0.2, 0.1).
    table = colorsys.hsv_to_rgb(2 / 3 + 0.05, 0.7, 0.9)
    np.testing.assert_allclose(rgba[GEOMS.index("table")], [*table, 0.5], atol=1e-6)
    # The goal is (0, 8/9, 0.9): its hue stays, 8/9 + 0.2 > 1 goes the other way, 0.9 + 0.1 does not.
    goal = colorsys.hsv_to_rgb(0.0, 8 / 9 - 0.2, 1.0)
    np.testing.assert_allclose(rgba[GEOMS.index("goal")], [*goal, 1.0], atol=1e-6)


def test_replaced_colours_by_hand():
    looks = VisualRandomization(replaced=0.3, replaced_hues=(0.5, 0.9))
    rgba = apply(looks, make_sim(), Fixed(0.25))["geom_rgba"][0]  # 0.25 < 0.3: all but the goal
    fresh = colorsys.hsv_to_rgb(0.5 + 0.4 * 0.25, 0.2 + 0.8 * 0.25, 0.35 + 0.65 * 0.25)
    for name in GEOMS[1:]:
        np.testing.assert_allclose(rgba[GEOMS.index(name), :3], fresh, atol=1e-6)
    np.testing.assert_allclose(rgba[GEOMS.index("goal")], [0.9, 0.1, 0.1, 1.0], atol=1e-6)


def test_light_and_cameras_by_hand():
    looks = VisualRandomization(
        light_offset=(0.1, 0.5),
        light_intensity=(0.0, 0.4),
        camera_offset=(0.0, 0.08),
        camera_rotation=(2.0, 6.0),
        camera_fovy=(0.0, 4.0),
        mounted_scale=0.5,
    )
    found = apply(looks, make_sim(), Fixed(0.75))
    # Directions: z = 0.5, angle = 1.5 pi: (0, -sqrt(1 - 0.25), 0.5).
    direction = np.array([0.0, -math.sqrt(0.75), 0.5])
    np.testing.assert_allclose(found["light_pos"][0, 0], [1, 2, 3] + 0.4 * direction, atol=1e-6)
    np.testing.assert_allclose(found["light_diffuse"][0, 0], 1.2 * np.array([0.8, 0.6, 0.4]), atol=1e-6)
    np.testing.assert_allclose(found["cam_pos"][0, 0], [0, -2, 1] + 0.06 * direction, atol=1e-6)
    np.testing.assert_allclose(found["cam_pos"][0, 1], [0, 0, 0.1] + 0.03 * direction, atol=1e-6)
    np.testing.assert_allclose(found["cam_fovy"][0, :2], [42.0, 62.0], atol=1e-5)
    for camera, degrees in ((0, 5.0), (1, 2.5)):
        turn, expected = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, direction, math.radians(degrees))
        mujoco.mju_mulQuat(expected, make_model().cam_quat[camera], turn)
        np.testing.assert_allclose(found["cam_quat"][0, camera], expected, atol=1e-6)


def assert_cameras_and_lights_are_placed(sim: Simulator) -> None:
    """By MuJoCo's rules, of what was drawn: ``pos`` and ``quat``, which are in the frame of the body."""
    model, turned = sim.model, torch.tensor([0.5, 0.1, 0.7, -0.5])
    start = torch.tensor(model.qpos0, dtype=torch.float32, device=sim.device)
    moved = start.clone()
    moved[1:4] += 1.0
    moved[4:8] = turned / turned.norm()
    data, now = mujoco.MjData(model), mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    now.qpos[:] = moved.cpu()
    mujoco.mj_kinematics(model, now)
    mujoco.mj_comPos(model, data)
    mujoco.mj_comPos(model, now)
    sim.write("qpos", moved.repeat(sim.num_envs, 1))
    sim.forward()
    for kind, ids in (("cam", range(model.ncam)), ("light", range(model.nlight))):
        places = sim.read_model(f"{kind}_pos").cpu().double().numpy()
        found = sim.read(f"{kind}_xpos").cpu().numpy()
        for i in ids:
            mode, body = int(getattr(model, f"{kind}_mode")[i]), int(getattr(model, f"{kind}_bodyid")[i])
            tracks = mode in (1, 2)  # the body or its centre of mass, in the orientation of qpos0
            frame = (data if tracks else now).xmat[body].reshape(3, 3)
            expected = now.xpos[body] + places[:, i] @ frame.T
            if mode == 2:
                expected += (now.subtree_com - now.xpos - data.subtree_com + data.xpos)[body]
            np.testing.assert_allclose(found[:, i], expected, atol=1e-5)
            if kind == "cam" and mode != 3:
                quaternions = sim.read_model("cam_quat")[:, i].cpu().double().numpy()
                local = np.zeros((sim.num_envs, 9))
                for matrix, quaternion in zip(local, quaternions, strict=True):
                    mujoco.mju_quat2Mat(matrix, quaternion)
                rotation = sim.read("cam_xmat")[:, i].cpu().numpy().reshape(-1, 3, 3)
                np.testing.assert_allclose(rotation, frame @ local.reshape(-1, 3, 3), atol=1e-5)


def assert_tracking_cameras_move_as_others(sim: Simulator) -> None:
    looks = VisualRandomization(
        camera_offset=(0.05, 0.1), camera_rotation=(3.0, 6.0), light_offset=(0.2, 0.3)
    )
    apply(VisualRandomization.none(), sim, RandomStreams(sim.num_envs, seed=0))
    sim.forward()
    before = {name: sim.read(name).clone() for name in ("cam_xpos", "cam_xmat", "light_xpos")}
    apply(looks, sim, RandomStreams(sim.num_envs, seed=0))
    sim.forward()
    moved = torch.linalg.vector_norm(sim.read("cam_xpos") - before["cam_xpos"], dim=-1)
    old, new = (m.reshape(sim.num_envs, -1, 3, 3) for m in (before["cam_xmat"], sim.read("cam_xmat")))
    angle = torch.rad2deg(torch.arccos((((old * new).sum((-2, -1)) - 1) / 2).clamp(-1, 1)))
    for camera, scale in {"front": 1.0, "fixed": 0.2, "track": 1.0, "trackcom": 1.0}.items():
        i = sim.model.camera(camera).id
        assert moved[:, i].min() > scale * 0.05 - 1e-5
        assert moved[:, i].max() < scale * 0.1 + 1e-5
        assert angle[:, i].min() > scale * 3.0 - 0.05
        assert angle[:, i].max() < scale * 6.0 + 0.05
    shifted = torch.linalg.vector_norm(sim.read("light_xpos") - before["light_xpos"], dim=-1)
    assert shifted.min() > 0.2 - 1e-5
    assert shifted.max() < 0.3 + 1e-5


def assert_constants_change_nothing(sim: Simulator) -> None:
    """A task that sets masses calls `set_constants` after the looks were drawn."""
    found = apply(VisualRandomization.strong(), sim, RandomStreams(sim.num_envs, seed=2))
    sim.set_constants()
    for name, values in found.items():
        torch.testing.assert_close(sim.read_model(name), values, atol=1e-5, rtol=1e-5)


def test_cameras_and_lights_that_track_a_body():
    sim = make_sim(8)
    assert_tracking_cameras_move_as_others(sim)
    assert_cameras_and_lights_are_placed(sim)
    assert_constants_change_nothing(sim)


@pytest.mark.parametrize("task", ["stump-walker", "quadruped-terrain"])
def test_default_cameras_of_walkers_are_moved(task):
    walkers = make_vec_task(task, 6, threads=1, visuals=PRESETS["beyond"])
    walkers.reset()
    camera = walkers.model.camera("side" if task == "stump-walker" else "front").id
    body = walkers.model.cam_bodyid[camera]
    place = (walkers.sim.read("cam_xpos")[:, camera] - walkers.sim.read("xpos")[:, body]).clone()
    moved = torch.linalg.vector_norm(place - torch.tensor(walkers.model.cam_pos0[camera]), dim=1)
    least, most = PRESETS["beyond"].camera_offset
    assert least - 1e-4 < moved.min() <= moved.max() < most + 1e-4
    rotation = walkers.sim.read("cam_xmat")[:, camera].reshape(-1, 9)
    assert len(rotation.unique(dim=0)) == 6


@pytest.mark.parametrize("name", PRESETS)
def test_goal_remains_the_red_thing(name):
    sim = make_sim(400)
    found = hues(apply(PRESETS[name], sim, RandomStreams(400, seed=0))["geom_rgba"])
    goal, others = found[:, 0, 0], found[:, 1:, 0]
    assert np.abs(goal - np.round(goal)).max() < 1e-3
    coloured = found[:, 1:, 1] > 0.02
    assert np.abs(others - np.round(others))[coloured].min() > HUE_CLEARANCE - 1e-3


def test_nothing_adds_up_over_resets():
    sim, streams, looks = make_sim(64), RandomStreams(64, seed=3), VisualRandomization.strong()
    for _ in range(30):
        found = apply(looks, sim, streams)
    model = make_model()
    moved = torch.linalg.vector_norm(found["cam_pos"][:, 0] - torch.tensor(model.cam_pos[0]), dim=1)
    assert moved.min() > 0
    assert moved.max() <= looks.camera_offset[1] + 1e-5
    assert (found["cam_fovy"] - torch.tensor(model.cam_fovy)).abs().max() <= looks.camera_fovy[1] + 1e-4
    edge, table = (found["geom_rgba"][:, GEOMS.index(name)] for name in ("table_edge", "table"))
    assert torch.equal(edge, table)
    assert len(table[:, :3].unique(dim=0)) == 64


def test_looks_beyond_are_outside_of_those_in_training():
    seen, beyond = VisualRandomization.strong(), VisualRandomization.beyond()
    for name, limit in asdict(seen).items():
        if isinstance(limit, tuple) and name not in ("keep_hue", "replaced_hues"):
            assert getattr(beyond, name)[0] > limit[1], name
            assert getattr(VisualRandomization.mild(), name)[1] <= limit[1], name
    assert beyond.replaced_hues[0] > seen.replaced_hues[1]
    sim = make_sim(200)
    found = apply(beyond, sim, RandomStreams(200, seed=1))
    moved = torch.linalg.vector_norm(found["cam_pos"][:, 0] - torch.tensor(make_model().cam_pos[0]), dim=1)
    assert moved.min() > seen.camera_offset[1]


def test_held_out_looks_have_cameras_as_in_training():
    seen, held, beyond = (PRESETS[name] for name in ("strong", "held_out", "beyond"))
    for name, value in asdict(held).items():
        assert value == getattr(seen if name.startswith("camera_") else beyond, name), name
    assert (seen.texture_family, held.texture_family) == ("training", "held_out")
    assert [looks.textured for looks in PRESETS.values()] == [0.0, 0.0, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("task", VEC_TASKS)
def test_held_out_colours_never_occur_in_training(task):
    """Colours have hues that none has in training; of those to keep, saturation and brightness differ."""
    n, keep = 150, VisualRandomization().keep_hue
    found = {}
    for name in ("mild", "strong", "held_out"):
        made = make_vec_task(task, n, threads=1, visuals=PRESETS[name])
        made.reset()
        found[name] = hues(made.sim.read_model("geom_rgba"))
        names = [made.model.geom(i).name for i in range(made.model.ngeom)]
        made.close()
    kept = np.array([any(fnmatchcase(name, sign) for sign in keep) for name in names])
    held = found["held_out"][:, ~kept]
    assert held[..., 0].min() > 0.739
    assert held[..., 0].max() < 0.921
    assert held[..., 1].min() > 0.199
    for name in ("mild", "strong"):
        hue, saturation, _ = found[name][:, ~kept].transpose(2, 0, 1)
        assert not ((hue > 0.73) & (hue < 0.939) & (saturation > GREY)).any()
    base = hues(torch.tensor(made.model.geom_rgba)[None])[0, kept]
    if kept.any():
        change = {name: np.abs(values[:, kept] - base)[..., 1:] for name, values in found.items()}
        assert change["strong"].max() < 0.205 < change["held_out"].min()


@pytest.mark.parametrize("masked", [False, True])
def test_looks_depend_on_the_stream_alone(masked):
    looks, sim, alone = VisualRandomization.strong(), make_sim(6), make_sim(6)
    before = {name: sim.read_model(name).clone() for name in FIELDS}
    chosen = torch.tensor([False, True, False, False, True, False])
    rows = Rows.of_mask(chosen) if masked else Rows.of_indices(chosen.nonzero().flatten(), 6)
    some = apply(looks, sim, RandomStreams(6, seed=5), rows)
    everywhere = apply(looks, alone, RandomStreams(6, seed=5))
    for name in FIELDS:
        assert torch.equal(some[name][~chosen], before[name][~chosen])
        assert torch.equal(some[name][chosen], everywhere[name][chosen])
        assert not torch.equal(some[name][chosen], before[name][chosen])


@pytest.mark.xdist_group("warp")
def test_both_simulators_look_alike():
    from tutelage.envs.batched.simulators.warp_simulator import WarpSimulator

    warp = WarpSimulator(make_model(), 5, device="cpu", model_fields=FIELDS)
    chosen = Rows.of_mask(torch.tensor([True, False, True, True, False]))
    VisualRandomization.strong().apply(warp, RandomStreams(5, seed=7), chosen)
    for name, values in apply(VisualRandomization.strong(), make_sim(5), RandomStreams(5, seed=7)).items():
        assert torch.equal(warp.read_model(name)[chosen.mask].float(), values[chosen.mask])
    assert_tracking_cameras_move_as_others(warp)
    assert_cameras_and_lights_are_placed(warp)
    assert_constants_change_nothing(warp)


@pytest.mark.gpu
@pytest.mark.xdist_group("warp")
def test_resets_do_not_wait_for_the_gpu():
    from tutelage.envs.batched.simulators.warp_simulator import WarpSimulator

    sim = WarpSimulator(make_model(), 5, device="cuda", model_fields=FIELDS)
    rows = Rows.of_mask(torch.tensor([True, False, True, True, False], device="cuda"))
    streams = RandomStreams(5, seed=7, device="cuda")
    PRESETS["strong"].apply(sim, streams, rows)  # makes the constants
    torch.cuda.set_sync_debug_mode("error")
    try:
        PRESETS["strong"].apply(sim, streams, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_tracking_cameras_move_as_others(sim)


def test_as_many_numbers_whatever_the_looks():
    used = set()
    for looks in PRESETS.values():
        streams = RandomStreams(1, seed=0)
        model = make_model(looks)  # with textures only where the looks have any
        assert (model.ntex > 0) == (looks.textured > 0)
        sim = BatchSimulator(model, 1, model_fields=FIELDS, threads=1)
        looks.apply(sim, streams, Rows.all(1))
        used.add(int(streams.positions[0]))
    assert used == {(4 + 3) * 4 + 4 * 3 + 7 * 6}  # four colours and textures, three lights, six cameras


def test_models_without_lights_and_cameras():
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0], rgba=[0.2, 0.4, 0.6, 1])
    VisualRandomization.strong().prepare(spec)
    sim = BatchSimulator(spec.compile(), 3, model_fields=("geom_rgba", *TEXTURE_FIELDS), threads=1)
    VisualRandomization.strong().apply(sim, RandomStreams(3, seed=0), Rows.all(3))
    assert len(sim.read_model("geom_rgba").unique(dim=0)) == 3


def test_hsv_to_rgb_is_that_of_the_standard_library():
    hsv = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    expected = [colorsys.hsv_to_rgb(*map(float, colour)) for colour in hsv]
    torch.testing.assert_close(hsv_to_rgb(hsv), torch.tensor(expected))
    torch.testing.assert_close(hsv_to_rgb(hsv - torch.tensor([1.0, 0, 0])), hsv_to_rgb(hsv))


def test_free_hues():
    # Red (0) takes both ends of the wheel, green (1/3) a part of the middle.
    free = free_hues((0.0, 1.0), [0.0, 0.5])
    np.testing.assert_allclose(free, [(0.06, 0.44), (0.56, 0.94)])
    assert free_hues((0.1, 0.3), [0.5]) == [(0.1, 0.3)]
    with pytest.raises(ValueError, match="widen"):
        free_hues((0.95, 1.0), [0.0])


def test_json():
    looks = VisualRandomization.held_out()
    assert VisualRandomization.from_json(json.loads(json.dumps(asdict(looks)))) == looks
    with pytest.raises(ValueError, match="did you mean 'camera_offset'"):
        VisualRandomization.from_json({"camera_ofset": [0, 1]})


def test_scaled():
    looks = VisualRandomization(hue=(0.1, 0.3), camera_offset=(0.0, 0.1), replaced=0.4, textured=0.3)
    half, triple = looks.scaled(0.5), looks.scaled(3)
    assert (half.hue, half.camera_offset, half.replaced) == ((0.05, 0.15), (0.0, 0.05), 0.2)
    assert triple.hue == pytest.approx((0.3, 0.5))
    assert (half.textured, triple.textured) == pytest.approx((0.15, 0.9))
    assert triple.replaced == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hue": (0.2, 0.1)}, r"hue must be \(least, most\)"),
        ({"brightness": (0.0, 0.6)}, "<= 0.5"),
        ({"camera_offset": (-0.1, 0.1)}, "camera_offset"),
        ({"replaced": 1.5}, "probability"),
        ({"textured": -0.1}, "textured is a probability"),
        ({"texture_family": "trainig"}, "did you mean 'training'"),
        ({"replaced_hues": (0.4, 0.4)}, "low < high"),
        ({"mounted_scale": 2.0}, "mounted_scale"),
    ],
)
def test_wrong_ranges_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VisualRandomization(**options)


def test_unknown_geoms_are_refused():
    looks = VisualRandomization(keep_hue=("gaol",))
    with pytest.raises(ValueError, match="did you mean 'goal'"):
        looks.apply(make_sim(), RandomStreams(1, seed=0), Rows.all(1))


def test_pictures_of_a_task(sliding_mass):
    """End to end: the same episodes under any looks, in the model's colours with `none` alone."""
    cameras = [CameraConfig("front", 16, 16, ("rgb", "segmentation"))]
    none, strong = (
        sliding_mass(16, cameras=cameras, visuals=PRESETS[name], threads=1) for name in ("none", "strong")
    )
    colours = []
    for _ in range(2):  # episodes
        plain, varied = none.reset(), strong.reset()
        assert torch.equal(plain["states"], varied["states"])
        mass = plain["front/segmentation"] == 0
        assert mass.any()
        assert not plain["front/rgb"][mass][:, 1:].any()  # the mass is (1, 0, 0)
        mass = varied["front/segmentation"] == 0
        colours.append(
            [picture[m].float().mean(0) for picture, m in zip(varied["front/rgb"], mass, strict=True)]
        )
    greens = torch.stack([colour for episode in colours for colour in episode])[:, 1]
    seen = greens[~greens.isnan()]
    assert len(seen) > 10
    assert seen.std() > 10
