"""Textures are coarse grey patterns of two families; episodes draw them, and the shader draws them."""

import math

import mujoco
import numpy as np
import pytest
import torch

from tutelage.envs.batched.cameras.camera_config import TEXTURE_FIELDS, VISUAL_FIELDS, CameraConfig
from tutelage.envs.batched.cameras.factory import make_cameras
from tutelage.envs.batched.looks.texture_patterns import PATTERNS, SIZE, VARIANTS, make_bitmaps
from tutelage.envs.batched.looks.textures import SCALE, tile_geoms, tile_length
from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator
from tutelage.envs.batched.simulators.simulator import Simulator
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.streams import RandomStreams
from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, make_vec_task

RGB = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
ALWAYS = VisualRandomization(textured=1.0)
PLAIN = VisualRandomization()

# Two geoms of one look, one with a texture of its own, one to keep; seen by a camera 2 m above.
SCENE = """
<mujoco>
  <asset>
    <texture name="own" type="2d" builtin="checker" rgb1="1 0 0" rgb2="0 0 1" width="8" height="8"/>
    <material name="own" texture="own" texrepeat="3 5" emission=".2"/>
    <material name="metric" texuniform="true" rgba=".1 .9 .1 1"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="3 0 1" material="own"/>
    <geom name="post" type="capsule" size=".1 .9" pos="1 0 1" rgba=".2 .4 .6 1"/>
    <geom name="box" type="box" size="1 .5 .5" pos="-1 0 .5" rgba=".2 .4 .6 1"/>
    <geom name="goal" size=".1" pos="0 1 1" rgba=".9 .1 .1 1"/>
    <geom name="tiny" size=".01" pos="0 -1 1" rgba=".9 .9 .1 1"/>
    <geom name="metres" type="box" size=".2 .2 .2" pos="0 -2 1" material="metric"/>
    <geom name="unseen" size=".1" group="4" rgba=".2 .4 .6 1"/>
    <camera name="top" pos="0 0 2" fovy="90"/>
  </worldbody>
  <statistic center="0 0 0" extent="3"/>
</mujoco>"""


class Fixed:
    """Streams whose every number is the same."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniform(self, rows: Rows, count: int) -> torch.Tensor:
        return torch.full((rows.n, count), self.number)


def make_sim(looks: VisualRandomization, n: int = 1) -> BatchSimulator:
    spec = mujoco.MjSpec.from_string(SCENE)
    fields = looks.prepare(spec)
    return BatchSimulator(spec.compile(), n, model_fields=fields, threads=1)


def textures(sim: Simulator) -> tuple[np.ndarray, np.ndarray]:
    """Names of the textures of all geoms, and their repetitions."""
    texid = sim.read_model("mat_texid")[:, :, RGB].long()[:, sim.model.geom_matid].numpy()
    names = np.array([*(sim.model.tex(i).name for i in range(sim.model.ntex)), ""])
    texid[:, sim.model.geom_matid < 0] = -1
    return names[texid], sim.read_model("mat_texrepeat")[:, sim.model.geom_matid].numpy()


def geom(sim: Simulator, name: str) -> int:
    return int(sim.model.geom(name).id)


def test_bitmaps_are_coarse_and_grey_and_differ():
    bitmaps = make_bitmaps()
    assert len(bitmaps) == sum(map(len, PATTERNS.values())) * VARIANTS
    assert not set(PATTERNS["training"]) & set(PATTERNS["held_out"])
    assert len({shades.tobytes() for shades in bitmaps.values()}) == len(bitmaps)
    for name, shades in bitmaps.items():
        assert shades.shape == (SIZE, SIZE)
        assert shades.dtype == np.uint8
        assert shades.max() == 255, name
        assert 0.3 * 255 - 1 < shades.min() < 0.6 * 255 + 1, name
        middle = (int(shades.max()) + int(shades.min())) / 2
        for axis in (0, 1):  # with its neighbour across the edge: bitmaps are tiles
            changes = ((shades > middle) != (np.roll(shades, 1, axis) > middle)).sum(axis)
            assert changes.max() <= 10, name


def test_bitmaps_are_the_same_in_every_process():
    first = make_bitmaps()
    make_bitmaps.cache_clear()
    np.random.seed(1)  # noqa: NPY002 - must not matter
    for name, shades in make_bitmaps().items():
        np.testing.assert_array_equal(shades, first[name])
    # Squares of 16 texels: light and dark alternate.
    checker = first["training/checker/0"]
    assert len({int(checker[i, j]) for i in (0, 15) for j in (0, 15)}) == 1
    assert checker[0, 0] == checker[16, 16] != checker[0, 16] == checker[16, 0]


def test_tiles_by_hand():
    model = make_sim(PLAIN).model
    # A picture from 2 m with 90 degrees is 2 * 2 * tan(45) = 4 m high, and 2 tiles fit into it.
    tile = 4 / 2
    assert tile_length(model) == pytest.approx(tile)
    repeats, closed = tile_geoms(model)
    expected = {
        "floor": (6 / tile, 2 / tile),  # 6 m wide, and infinite, where MuJoCo counts in 2 m
        "post": (0.5, 1.8 / tile),  # 0.63 m around is too little for half a tile
        # Faces of 2 x 1, 2 x 1 and 1 x 1 m: (2 * 2 + 2 * 2 + 1 * 1) / 5 = 1.8 m, and 1 m.
        "box": (1.8 / tile, 1 / tile),
        "tiny": (0.5, 0.5),
        "metres": (2 / tile, 2 / tile),  # times half its width
    }
    for name, repeat in expected.items():
        np.testing.assert_allclose(repeats[model.geom(name).id], repeat, err_msg=name)
    assert [bool(closed[model.geom(name).id]) for name in expected] == [False, True, False, True, False]


@pytest.mark.parametrize(("family", "texture"), [("training", "stripes/2"), ("held_out", "marble/2")])
def test_draws_by_hand(family, texture):
    # Every number 0.34: textured, as 0.34 < 0.35; of 20 textures number 6: the second kind, variant 2.
    looks = VisualRandomization(textured=0.35, texture_family=family)
    sim = make_sim(looks)
    looks.apply(sim, Fixed(0.34), Rows.all(1))
    names, repeats = textures(sim)
    scale, tile = 0.7 * 2**0.34, 4 / 2  # from 0.7 to 1.4
    expected = {
        "floor": (6 / tile * scale, 2 / tile * scale),
        "post": (1.0, 1.8 / tile * scale),  # whole around it
        "box": (1.8 / tile * scale, 1 / tile * scale),
        "tiny": (1.0, 0.5 * scale),
        "metres": (2 / tile * scale, 2 / tile * scale),
    }
    for name, repeat in expected.items():
        assert names[0, geom(sim, name)] == f"tutelage/{family}/{texture}", name
        np.testing.assert_allclose(repeats[0, geom(sim, name)], repeat, rtol=1e-5, err_msg=name)
    looks.apply(sim, Fixed(0.36), Rows.all(1))  # not textured: as in the model
    names, repeats = textures(sim)
    assert [names[0, geom(sim, name)] for name in expected] == ["own", "", "", "", ""]
    np.testing.assert_allclose(repeats[0, geom(sim, "floor")], (3, 5))
    np.testing.assert_allclose(
        sim.read_model("geom_rgba")[0, geom(sim, "post")], (0.2, 0.4, 0.6, 1), rtol=1e-6
    )


def test_geoms_of_one_look_share_a_texture_and_a_goal_has_none():
    n, looks = 600, VisualRandomization.strong()
    sim = make_sim(looks, n)
    looks.apply(sim, RandomStreams(n, seed=0), Rows.all(n))
    names, _ = textures(sim)
    post, box, tiny, goal, unseen = (
        names[:, geom(sim, name)] for name in ("post", "box", "tiny", "goal", "unseen")
    )
    assert (post == box).all()
    assert set(goal) == set(unseen) == {""}
    # Three of four of 600, give or take four standard deviations of sqrt(600 p (1 - p)); of both looks
    # together (3/4)^2 = 9/16, whose deviation is larger.
    spread = 4 * math.sqrt(n * 9 / 16 * 7 / 16)
    assert abs((post != "").sum() - n * 3 / 4) < spread
    assert abs((tiny != "").sum() - n * 3 / 4) < spread
    assert abs(((post != "") & (tiny != "")).sum() - n * 9 / 16) < spread
    drawn = set(post) - {""}
    assert drawn == {f"tutelage/{name}" for name in make_bitmaps() if name.startswith("training")}
    _, repeats = textures(sim)
    scale = repeats[post != "", geom(sim, "box"), 1] / 0.5
    assert SCALE[0] <= scale.min() < 0.72
    assert 1.36 < scale.max() <= SCALE[1] + 1e-6


def test_held_out_textures_are_on_everything_and_never_in_training():
    n = 60
    seen = {}
    for name in ("strong", "held_out", "beyond"):
        looks = getattr(VisualRandomization, name)()
        sim = make_sim(looks, n)
        looks.apply(sim, RandomStreams(n, seed=0), Rows.all(n))
        names, _ = textures(sim)
        seen[name] = names[:, [geom(sim, which) for which in ("floor", "post", "box", "tiny", "metres")]]
    for name in ("held_out", "beyond"):
        assert all(texture.startswith("tutelage/held_out/") for texture in seen[name].flat)
    assert not any("held_out" in texture for texture in seen["strong"].flat)


def test_a_prepared_model_moves_and_looks_as_before():
    camera = [CameraConfig("top", 24, 24)]
    before, after = make_sim(PLAIN), make_sim(ALWAYS)
    assert before.model_fields == VISUAL_FIELDS
    assert after.model_fields == (*VISUAL_FIELDS, *TEXTURE_FIELDS)
    for name in ("geom_pos", "geom_size", "geom_rgba", "geom_type", "body_mass", "cam_pos"):
        np.testing.assert_array_equal(getattr(before.model, name), getattr(after.model, name))
    assert before.model.ntex == 1
    pictures = [make_cameras(sim, camera).render()["top/rgb"] for sim in (before, after)]
    assert torch.equal(*pictures)
    ALWAYS.apply(after, Fixed(0.3), Rows.all(1))
    assert not torch.equal(pictures[0], make_cameras(after, camera).render()["top/rgb"])


@pytest.mark.parametrize("task", VEC_TASKS)
def test_tasks_have_materials_for_looks_and_sizes_not_for_geoms(task):
    made = make_vec_task(task, 2, threads=1, visuals=VisualRandomization.held_out())
    model = made.model
    made.close()
    assert model.nmat <= 24  # Quadruped has 119 geoms
    assert model.tex_data.size < 200_000  # bytes, of all environments together


def test_each_environment_has_the_texture_that_was_written():
    """By hand: two bitmaps of one texel each, 0.2 and 0.6 of white, on a plane in ambient light."""
    spec = mujoco.MjSpec()
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.5] * 3, [0.0] * 3
    for name, shade in (("dark", 51), ("light", 153)):
        texture = spec.add_texture(
            name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=1, height=1, nchannel=3
        )
        texture.data = bytes([shade] * 3)
    spec.add_material(name="floor").textures[RGB] = "dark"
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 1], material="floor", rgba=[1, 0.5, 0, 1]
    )
    spec.worldbody.add_camera(name="top", pos=[0, 0, 1])
    sim = BatchSimulator(spec.compile(), 3, model_fields=("mat_texid",), threads=1)
    texid = sim.read_model("mat_texid").clone()
    texid[:, 0, RGB] = torch.tensor([1.0, -1.0, 0.0])
    sim.write_model("mat_texid", texid)
    sim.forward()
    picture = make_cameras(sim, [CameraConfig("top", 2, 2)]).render()["top/rgb"]
    # 255 * 0.5 * (1, 0.5, 0) * 0.6, * 1 and * 0.2, cut off after the point
    expected = torch.tensor([[76, 38, 0], [127, 63, 0], [25, 12, 0]])
    for env in range(3):
        assert (picture[env].long() == expected[env]).all()


def test_repetitions_of_each_environment():
    """A checker of 2 x 2 squares over a plane of 6 m, twice and four times: squares of 1.5 and of 0.75 m."""
    spec = mujoco.MjSpec.from_string(SCENE.replace('size="3 0 1"', 'size="3 3 1"'))
    sim = BatchSimulator(spec.compile(), 2, model_fields=("mat_texrepeat",), threads=1)
    repeat = sim.read_model("mat_texrepeat").clone()
    repeat[:, sim.model.mat("own").id] = torch.tensor([[2.0, 2.0], [4.0, 4.0]])
    sim.write_model("mat_texrepeat", repeat)
    sim.forward()
    pictures = make_cameras(sim, [CameraConfig("top", 64, 64, ("rgb", "segmentation"))]).render()
    assert (pictures["top/segmentation"][:, 60] == 0).all()
    colours = pictures["top/rgb"][:, 60].long()  # 4 m of the floor, from x = -2 to 2
    red = colours[..., 0] > colours[..., 2]
    changes = [(1 + np.flatnonzero(np.diff(env))) / 16 - 2 for env in red.numpy()]
    np.testing.assert_allclose(changes[0], [-1.5, 0, 1.5], atol=1 / 16)
    np.testing.assert_allclose(changes[1], [-1.5, -0.75, 0, 0.75, 1.5], atol=1 / 16)


def test_states_hold_textures():
    options = {
        "threads": 1,
        "cameras": [CameraConfig("front", 24, 24)],
        "visuals": VisualRandomization.held_out(),
    }
    task, other = (make_vec_task("reach", 4, seed=seed, **options) for seed in (1, 2))
    for made in (task, other):
        made.reset()
    assert not torch.equal(task.sim.read_model("mat_texid"), other.sim.read_model("mat_texid"))
    state = task.state_dict()
    other.load_state_dict(state)
    for name in TEXTURE_FIELDS:
        assert torch.equal(task.sim.read_model(name), other.sim.read_model(name))
    assert torch.equal(task.obs_dict["front/rgb"], other.obs_dict["front/rgb"])
    for _ in range(task.max_episode_length):  # on to the next episode
        found, again = task.step(task.zero_actions())[0], other.step(task.zero_actions())[0]
    assert torch.equal(found["front/rgb"], again["front/rgb"])


def test_the_looks_of_an_environment_do_not_depend_on_how_many_there_are():
    camera = [CameraConfig("front", 24, 24)]
    alone, many = (
        make_vec_task("push-cube", n, seed=3, threads=1, cameras=camera, visuals=VisualRandomization.strong())
        for n in (1, 5)
    )
    assert torch.equal(alone.reset()["front/rgb"][0], many.reset()["front/rgb"][0])


def test_a_model_that_was_not_prepared_is_refused():
    sim = make_sim(PLAIN)
    with pytest.raises(ValueError, match=r"call visuals\.prepare\(spec\)"):
        ALWAYS.apply(sim, RandomStreams(1, seed=0), Rows.all(1))
    spec = mujoco.MjSpec.from_string(SCENE)
    with pytest.raises(ValueError, match="did you mean 'goal'"):
        VisualRandomization(textured=1.0, keep_hue=("gaol",)).prepare(spec)


def test_models_with_nothing_to_texture():
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(name="goal", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0])
    assert ALWAYS.prepare(spec) == VISUAL_FIELDS
    sim = BatchSimulator(spec.compile(), 2, model_fields=("geom_rgba",), threads=1)
    ALWAYS.apply(sim, RandomStreams(2, seed=0), Rows.all(2))
    assert sim.model.ntex == sim.model.nmat == 0
