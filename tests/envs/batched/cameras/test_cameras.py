"""Cameras on CPU threads: numbers computed by hand, and agreement with MuJoCo's own rays."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.cameras.factory import make_cameras
from tutelage.envs.batched.cameras.shading import BACKGROUND
from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator
from tutelage.envs.batched.task.rows import Rows

ALL = ("rgb", "depth", "segmentation")

# A camera 1 m above a plane looks straight down on a ball; with 5 pixels and 90 degrees, the slopes of the
# rays are -0.8, -0.4, 0, 0.4, 0.8, and only the middle one hits the ball.
DOWN = """
<mujoco>
  <visual><headlight active="0"/></visual>
  <asset>
    <material name="blue" rgba="0 0 .8 1"/>
    <texture name="checker" type="2d" builtin="checker" rgb1="1 0 0" rgb2="0 0 1" width="8" height="8"/>
    <material name="checker" texture="checker"/>
  </asset>
  <worldbody>
    {light}
    <camera name="down" pos="0 0 1" fovy="90"/>
    <geom name="floor" type="plane" size="0 0 1" rgba="1 .5 0 1"/>
    {geoms}
  </worldbody>
</mujoco>"""
SUN = '<light type="directional" dir="0 0 -1" diffuse=".5 .5 .5" ambient="0 0 0"/>'
BALL = '<geom name="ball" size=".2" pos="0 0 .2" {}/>'

# Every kind of primitive, in a heap that a ball joint turns; a camera rides on a body.
HEAP = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="2 1.5 1" pos="0 0 -.4"/>
    <camera name="front" pos="1.4 0 .8" xyaxes="0 1 0 -.5 0 .9" fovy="55"/>
    <camera name="lens" pos="1.4 0 .8" xyaxes="0 1 0 -.5 0 .9" resolution="60 40"
            sensorsize=".03 .02" focal=".025 .03" principal=".002 -.001"/>
    <body name="heap" pos="0 0 .1">
      <joint type="ball"/>
      <geom type="sphere" size=".15" pos="0 .45 0"/>
      <geom type="capsule" size=".08 .2" pos=".3 .25 0" euler="40 20 30"/>
      <geom type="cylinder" size=".1 .15" pos=".3 0 .1" euler="70 10 50"/>
      <geom type="ellipsoid" size=".08 .16 .05" pos=".3 -.25 0" euler="20 50 10"/>
      <geom type="box" size=".1 .15 .07" pos="0 -.5 0" euler="40 20 30"/>
      <geom type="capsule" size=".05 .3" pos="-.2 0 .2"/>
      <geom type="box" size=".02 .4 .02" pos="-.1 0 -.1" euler="0 0 20"/>
      <camera name="rider" pos="0 0 1.2" xyaxes="1 .1 0 0 1 .2" fovy="70"/>
    </body>
  </worldbody>
</mujoco>"""


def simulate(xml, num_envs=1, threads=1, **options):
    return BatchSimulator(mujoco.MjModel.from_xml_string(xml), num_envs, threads=threads, **options)


def look_down(light=SUN, geoms="", size=5, **options):
    sim = simulate(DOWN.format(light=light, geoms=geoms), **options)
    pictures = make_cameras(sim, [CameraConfig("down", size, size, ALL)]).render()
    return [pictures[f"down/{kind}"].numpy() for kind in ALL]


def turn(sim, seed=0):
    quaternions = torch.from_numpy(np.random.default_rng(seed).normal(size=(sim.num_envs, 4))).float()
    sim.write("qpos", quaternions / quaternions.norm(dim=1, keepdim=True))
    sim.forward()


def cast_by_mujoco(sim, env, camera, slopes_x, slopes_y):
    """Depth and geoms by mj_multiRay, from the state of an environment."""
    data = mujoco.MjData(sim.model)
    data.qpos[:] = sim.read("qpos")[env].numpy()
    mujoco.mj_forward(sim.model, data)
    camera = sim.model.camera(camera).id
    x, y = np.meshgrid(slopes_x, slopes_y)
    rays = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3) @ data.cam_xmat[camera].reshape(3, 3).T
    geom, depth = np.zeros(x.size, np.int32), np.zeros(x.size)
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    mujoco.mj_multiRay(
        *(sim.model, data, data.cam_xpos[camera], rays.flatten(), groups, True, -1),
        *(geom, depth, None, x.size, mujoco.mjMAXVAL),
    )
    return np.where(geom >= 0, depth, np.inf).reshape(x.shape), geom.reshape(x.shape)


def slopes(fovy, width, height):
    half = np.tan(np.deg2rad(fovy / 2))
    x = (2 * np.arange(width) + 1) / width - 1
    y = 1 - (2 * np.arange(height) + 1) / height
    return x * half * width / height, y * half


def assert_same_as_mujoco(depth, segmentation, expected_depth, expected_geom):
    assert (segmentation == expected_geom).mean() >= 0.999
    same = segmentation == expected_geom
    np.testing.assert_allclose(depth[same], expected_depth[same], rtol=1e-4)


def test_depth_is_along_the_cameras_axis_and_segmentation_is_the_geom():
    _, depth, segmentation = look_down(geoms=BALL.format(""))
    expected = np.ones((5, 5))  # the plane is 1 m below everywhere; the ball's top at 1 - 0.4
    expected[2, 2] = 0.6
    np.testing.assert_allclose(depth[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(segmentation[0], (expected < 1).astype(int))


def test_nothing_is_infinitely_far_and_of_the_background_colour():
    sim = simulate('<mujoco><worldbody><camera name="up" xyaxes="1 0 0 0 -1 0"/></worldbody></mujoco>')
    pictures = make_cameras(sim, [CameraConfig("up", 3, 2, ALL)]).render()
    assert pictures["up/depth"].isinf().all()
    assert (pictures["up/segmentation"] == -1).all()
    assert (pictures["up/rgb"] == torch.tensor(BACKGROUND, dtype=torch.uint8)).all()
    assert pictures["up/rgb"].shape == (1, 2, 3, 3)


def test_what_lies_beyond_zfar_is_not_seen():
    xml = DOWN.format(light="", geoms="").replace('active="0"/>', 'active="0"/><map zfar="{}"/>')
    xml = xml.replace("<mujoco>", '<mujoco><statistic extent="2"/>')
    for zfar, seen in ((0.51, True), (0.49, False)):  # x extent 2: 1.02 and 0.98; the plane is at 1
        pictures = make_cameras(simulate(xml.format(zfar)), [CameraConfig("down", 5, 5, ALL)]).render()
        assert bool((pictures["down/segmentation"] == 0).all()) is seen


def test_directional_light_on_colours_and_materials():
    rgb, _, _ = look_down(geoms=BALL.format('rgba=".2 .4 1 1"'))
    assert rgb[0, 2, 2].tolist() == [25, 51, 127]  # 255 * 0.5 * (0.2, 0.4, 1), cut off
    assert rgb[0, 0, 0].tolist() == [127, 63, 0]
    rgb, _, _ = look_down(geoms=BALL.format('material="blue"'))
    assert rgb[0, 2, 2].tolist() == [0, 0, 102]  # the material's, as the geom says nothing
    rgb, _, _ = look_down(geoms=BALL.format('material="blue" rgba="1 0 0 1"'))
    assert rgb[0, 2, 2].tolist() == [127, 0, 0]  # the geom's own colour comes first


@pytest.mark.parametrize("invisible", ['rgba="1 0 0 0"', 'group="3"'])
def test_transparent_geoms_and_hidden_groups_are_not_seen(invisible):
    _, _, segmentation = look_down(geoms=BALL.format(invisible))
    assert (segmentation == 0).all()


def test_point_light_with_attenuation():
    light = '<light type="point" pos="0 0 2" diffuse=".9 .9 .9" attenuation="1 .2 .3" ambient="0 0 0"/>'
    rgb, _, _ = look_down(light)
    square = 0.8**2 + 0.8**2 + 2**2  # from the light to the corner pixel's point (-0.8, 0.8, 0)
    cosine = 2 / square**0.5
    strength = 0.9 * cosine / (1 + 0.2 * square**0.5 + 0.3 * square)
    assert rgb[0, 0, 0].tolist() == [int(255 * strength), int(255 * 0.5 * strength), 0]


@pytest.mark.parametrize("exponent", [0, 7, 2.5])
def test_spot_light_falls_off_and_ends_at_its_cutoff(exponent):
    light = f'<light pos="0 0 2" dir="0 0 -1" diffuse=".9 .9 .9" cutoff="20" exponent="{exponent}"/>'
    rgb, _, _ = look_down(light)
    cosine = 2 / (0.4**2 + 2**2) ** 0.5  # 11.3 degrees at (0.4, 0), 15.8 at (0.4, 0.4), 21.8 at (0.8, 0)
    assert rgb[0, 2, 3, 0] == int(255 * 0.9 * cosine * cosine**exponent)
    assert rgb[0, 1, 3, 0] > 0
    assert rgb[0, 2, 4].tolist() == [0, 0, 0]


def test_headlight_and_ambient_light():
    xml = DOWN.format(light='<light diffuse="0 0 0" ambient=".1 .2 .3"/>', geoms="")
    xml = xml.replace('active="0"', 'ambient=".2 .2 .2" diffuse=".4 .4 .4"')
    rgb = make_cameras(simulate(xml), [CameraConfig("down", 5, 5)]).render()["down/rgb"]
    # it shines along the camera's axis, so all of the plane gets ambient 0.3, 0.4, 0.5 + diffuse 0.4
    np.testing.assert_allclose(rgb[0].reshape(-1, 3), [[255 * 0.7, 255 * 0.5 * 0.8, 0]] * 25, atol=1)


def test_checker_texture_on_a_plane():
    floor = '<geom type="plane" size="1 1 1" pos="0 0 .1" material="checker"/>'
    xml = DOWN.format(light=SUN, geoms=floor).replace('pos="0 0 1"', 'pos="0 0 1.1"')
    sim = simulate(xml)
    # 4 pixels at x, y = -0.75, -0.25, 0.25, 0.75 of [-1, 1]: texels 1, 3, 5, 7 of 8, within the squares
    rgb = make_cameras(sim, [CameraConfig("down", 4, 4)]).render()["down/rgb"][0].numpy()
    texels = sim.model.tex_data.reshape(8, 8, 3)[1::2, 1::2]
    np.testing.assert_allclose(rgb, texels * 0.5, atol=1)
    assert {tuple(colour) for colour in rgb.reshape(-1, 3).tolist()} == {(127, 0, 0), (0, 0, 127)}


@pytest.mark.parametrize("camera", ["front", "rider"])
def test_primitives_are_where_mujocos_rays_find_them(camera):
    sim = simulate(HEAP, 6)
    turn(sim)
    pictures = make_cameras(sim, [CameraConfig(camera, 60, 40, ("depth", "segmentation"))]).render()
    x, y = slopes(sim.model.cam_fovy[sim.model.camera(camera).id], 60, 40)
    expected = [cast_by_mujoco(sim, env, camera, x, y) for env in range(6)]
    depth, geom = (np.array(arrays) for arrays in zip(*expected, strict=True))
    assert len(np.unique(geom)) == 9 if camera == "front" else len(np.unique(geom)) >= 8
    assert_same_as_mujoco(
        pictures[f"{camera}/depth"].numpy(), pictures[f"{camera}/segmentation"].numpy(), depth, geom
    )


def test_a_lens_replaces_the_field_of_view():
    sim = simulate(HEAP)
    pictures = make_cameras(sim, [CameraConfig("lens", 60, 40, ("depth", "segmentation"))]).render()
    # pixel centres on the sensor of 0.03 x 0.02 m, from the principal point, over the focal lengths
    x = ((np.arange(60) + 0.5) / 60 * 0.03 - 0.015 + 0.002) / 0.025
    y = (0.01 - (np.arange(40) + 0.5) / 40 * 0.02 + 0.001) / 0.03
    depth, geom = cast_by_mujoco(sim, 0, "lens", x, y)
    assert_same_as_mujoco(
        pictures["lens/depth"][0].numpy(), pictures["lens/segmentation"][0].numpy(), depth, geom
    )


def test_meshes_and_height_fields_join_primitives():
    xml = HEAP.replace(
        "<worldbody>",
        """<asset>
             <mesh name="tetrahedron" vertex="0 0 0 .5 0 0 0 .5 0 0 0 .5"/>
             <hfield name="hills" nrow="12" ncol="9" size=".8 .6 .3 .1"/>
           </asset>
           <worldbody><geom type="hfield" hfield="hills" pos="0 0 -.39"/>""",
    ).replace("<joint", '<geom type="mesh" mesh="tetrahedron" pos="0 0 .3" rgba="1 0 0 1"/><joint')
    model = mujoco.MjModel.from_xml_string(xml)
    model.hfield_data[:] = np.random.default_rng(0).uniform(size=12 * 9)
    sim = BatchSimulator(model, 3, threads=1)
    turn(sim)
    cameras = make_cameras(sim, [CameraConfig("front", 60, 40, ALL)])
    pictures = cameras.render()
    x, y = slopes(55, 60, 40)
    expected = [cast_by_mujoco(sim, env, "front", x, y) for env in range(3)]
    depth, geom = (np.array(arrays) for arrays in zip(*expected, strict=True))
    mesh, hills = (int(np.flatnonzero(model.geom_type == kind)[0]) for kind in (7, 1))
    assert (geom == mesh).sum() > 50
    assert (geom == hills).sum() > 50
    assert_same_as_mujoco(
        pictures["front/depth"].numpy(), pictures["front/segmentation"].numpy(), depth, geom
    )
    red = pictures["front/rgb"].numpy()[pictures["front/segmentation"].numpy() == mesh]
    assert (red[:, 0] > 10).all()
    assert (red[:, 1:] == 0).all()


def test_each_environment_has_its_own_looks():
    fields = {
        "geom_rgba": ([0.2, 0.9, 0.4, 1.0], 1),
        "geom_size": ([0.3, 0.0, 0.0], 1),
        "light_pos": ([0.3, 0.1, 1.5], 0),
        "light_diffuse": ([0.3, 0.4, 0.9], 0),
        "cam_fovy": (70.0, 0),
        "cam_pos": ([0.1, 0.0, 1.1], 0),
    }
    xml = DOWN.format(light='<light type="point" pos="0 0 2"/>', geoms=BALL.format(""))
    sim = simulate(xml, len(fields) + 1, model_fields=tuple(fields))
    for env, (name, (value, index)) in enumerate(fields.items()):
        values = sim.read_model(name).clone()
        values[env, index] = torch.tensor(value)
        sim.write_model(name, values)
    sim.forward()
    pictures = make_cameras(sim, [CameraConfig("down", 20, 20, ALL)]).render()
    plain = simulate(xml)
    unchanged = make_cameras(plain, [CameraConfig("down", 20, 20, ALL)]).render()
    for env, (name, (value, index)) in enumerate(fields.items()):
        changed = mujoco.MjModel.from_xml_string(xml)
        getattr(changed, name)[index] = value
        alone = make_cameras(
            BatchSimulator(changed, 1, threads=1), [CameraConfig("down", 20, 20, ALL)]
        ).render()
        for picture, image in pictures.items():
            assert torch.equal(image[env], alone[picture][0]), (name, picture)
        assert not torch.equal(pictures["down/rgb"][env], unchanged["down/rgb"][0]), name
    assert torch.equal(pictures["down/rgb"][-1], unchanged["down/rgb"][0])


def test_only_chosen_rows_are_taken_and_memory_is_shared():
    sim = simulate(HEAP, 5)
    turn(sim, seed=1)
    cameras = make_cameras(sim, [CameraConfig("front", 30, 20, ALL)])
    before = {name: image.clone() for name, image in cameras.render().items()}
    turn(sim, seed=2)
    for rows in (
        Rows.of_indices(torch.tensor([1, 3]), 5),
        Rows.of_mask(torch.tensor([True, False, False, False, False])),
    ):
        taken = cameras.render(rows)
    for name, image in taken.items():
        assert torch.equal(image[[2, 4]], before[name][[2, 4]])
        assert all(not torch.equal(image[env], before[name][env]) for env in (0, 1, 3))
    everything = cameras.render()
    assert all(everything[name] is image for name, image in taken.items())
    assert torch.equal(cameras.render()["front/rgb"], everything["front/rgb"])


def test_threads_and_modalities_do_not_change_pictures():
    pictures = []
    for threads, kinds in ((1, ALL), (2, ("segmentation", "rgb")), (2, ("depth",))):
        sim = simulate(HEAP, 5, threads)
        turn(sim)
        configs = [CameraConfig("front", 30, 20, kinds), CameraConfig("rider", 16, 24, kinds)]
        pictures.append({name: image.clone() for name, image in make_cameras(sim, configs).render().items()})
        assert pictures[-1].keys() == {f"{camera}/{kind}" for camera in ("front", "rider") for kind in kinds}
    for others in pictures[1:]:
        for name, image in others.items():
            assert torch.equal(image, pictures[0][name]), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CameraConfig("fornt"), r"no camera 'fornt'; did you mean 'front'\? \(known: front, lens, rider\)"),
        (CameraConfig("front", modalities=("deph",)), "unknown modality 'deph'; did you mean 'depth'"),
        (CameraConfig("front", width=0), "no pixels: 0 x 64; give width and height >= 1"),
        (CameraConfig("front", modalities=()), r"give a tuple, as \('rgb',\)"),
        (CameraConfig("front", modalities="rgb"), r"give a tuple, as \('rgb',\)"),
        (CameraConfig("front", modalities=("rgb", "rgb")), "'front/rgb' is configured twice"),
    ],
)
def test_wrong_configurations_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        make_cameras(simulate(HEAP), [config])


def test_what_cannot_be_rendered_is_named():
    flat = HEAP.replace('name="front"', 'name="front" projection="orthographic"')
    with pytest.raises(ValueError, match="'front' is orthographic; only perspective"):
        make_cameras(simulate(flat), [CameraConfig("front")])


def test_kernels_compile_where_nothing_can_be_cached(tmp_path):
    # numba looks for a folder to cache in when a module is imported, so that needs a process of its own
    code = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from tutelage.envs.batched.cameras.ray_caster import kernel\n"
        "print(kernel(lambda x: x + 1)(41))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "none")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == "42\n", result.stderr
