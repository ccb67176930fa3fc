"""Cameras of both simulators take the same pictures."""

import mujoco
import numpy as np
import pytest
import torch

pytest.importorskip("mujoco_warp")

from tutelage.envs.batched.cameras.camera_config import TEXTURE_FIELDS, VISUAL_FIELDS, CameraConfig
from tutelage.envs.batched.cameras.factory import make_cameras
from tutelage.envs.batched.cameras.shading import BACKGROUND
from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator
from tutelage.envs.batched.simulators.warp_simulator import WarpSimulator
from tutelage.envs.batched.task.rows import Rows

pytestmark = pytest.mark.xdist_group("warp")

ALL = ("rgb", "depth", "segmentation")

# Every kind of geom and light, textured and plain; colours of geoms and materials, emission, transparency.
SCENE = """
<mujoco>
  <option integrator="implicitfast"><flag contact="disable"/></option>
  <visual><headlight ambient=".1 .15 .1" diffuse=".2 .2 .3"/></visual>
  <asset>
    <texture name="checker" type="2d" builtin="checker" rgb1=".2 .3 .4" rgb2=".9 .8 .7" width="64"
             height="32"/>
    <texture name="gradient" type="2d" builtin="gradient" rgb1=".9 .9 .9" rgb2=".2 .2 .2" width="32"
             height="32"/>
    <texture name="cube" type="cube" builtin="gradient" rgb1="1 0 0" rgb2="0 0 1" width="32" height="32"/>
    <material name="floor" texture="checker" texrepeat="5 4"/>
    <material name="tiles" texture="checker" texrepeat="3 2" rgba="1 .7 .7 1" emission=".2"/>
    <material name="metric" texture="checker" texrepeat="9 12" texuniform="true"/>
    <material name="cube" texture="cube" rgba=".3 .9 .5 1"/>
    <mesh name="tetrahedron" vertex="0 0 0 .5 0 0 0 .5 0 0 0 .5"/>
    <hfield name="hills" nrow="12" ncol="9" size=".8 .6 .3 .1"/>
  </asset>
  <worldbody>
    <light name="spot" pos=".5 .3 2" dir="-.1 0 -1" diffuse=".5 .5 .4"/>
    <light name="sun" type="directional" dir=".3 .2 -1" diffuse=".3 .3 .3" ambient=".05 .1 .1"/>
    <light name="bulb" type="point" pos="1 1 1" diffuse=".6 .3 .1" attenuation="1 .2 .3"/>
    <geom type="plane" size="2 1.5 1" pos="0 0 -.4" material="floor"/>
    <geom type="hfield" hfield="hills" pos="-.7 -.7 -.39" material="tiles"/>
    <camera name="front" pos="1.4 0 .8" xyaxes="0 1 0 -.5 0 .9" fovy="55"/>
    <camera name="lens" pos="1.4 0 .8" xyaxes="0 1 0 -.5 0 .9" resolution="60 40"
            sensorsize=".03 .02" focal=".025 .03" principal=".002 -.001"/>
    <body pos="0 0 .1">
      <joint type="ball"/>
      <geom type="sphere" size=".15" pos="0 .45 0" material="tiles"/>
      <geom type="capsule" size=".1 .2" pos=".3 .25 0" euler="40 20 30" material="tiles"/>
      <geom type="cylinder" size=".1 .15" pos=".3 0 .1" euler="70 10 50" material="tiles"/>
      <geom type="ellipsoid" size=".1 .2 .08" pos=".3 -.25 0" euler="20 50 10" material="metric"/>
      <geom type="box" size=".15 .2 .1" pos="0 -.5 0" euler="40 20 30" material="metric"/>
      <geom type="box" size=".1 .15 .1" pos="-.2 .1 .4" euler="10 50 30" material="cube"/>
      <geom type="cylinder" size=".1 .1" pos="-.2 -.2 .1" rgba=".2 .3 .9 .5" material="cube"/>
      <geom type="mesh" mesh="tetrahedron" pos="0 0 .3" rgba="1 .3 .1 1"/>
      <geom type="sphere" size=".3" pos=".5 0 .2" rgba="1 1 1 0"/>
      <camera name="rider" pos="0 0 1.4" xyaxes="1 .1 0 0 1 .2" fovy="70"/>
    </body>
  </worldbody>
</mujoco>"""

CONFIGS = (
    CameraConfig("front", 96, 64, ALL),
    CameraConfig("rider", 40, 60, ("segmentation", "rgb")),
    CameraConfig("lens", 60, 50, ("depth",)),
)


def build():
    model = mujoco.MjModel.from_xml_string(SCENE)
    model.hfield_data[:] = np.random.default_rng(0).uniform(size=12 * 9)
    return model


def randomise(sim, seed):
    """New poses and looks, the same on every simulator."""
    rng = np.random.default_rng(seed)

    def near(name, scale):
        values = torch.from_numpy(np.asarray(getattr(sim.model, name), np.float32))
        noise = torch.from_numpy(rng.uniform(-scale, scale, (sim.num_envs, *values.shape)).astype(np.float32))
        return (values + noise).to(sim.device)

    for name, scale in (("light_pos", 0.3), ("light_diffuse", 0.1), ("cam_pos", 0.1), ("cam_fovy", 8.0)):
        sim.write_model(name, near(name, scale))
    rgba = near("geom_rgba", 0.2).clamp(0, 1)
    rgba[:, ::2] = torch.from_numpy(sim.model.geom_rgba[::2]).to(sim.device)  # those keep their materials
    rgba[:, -1, 3] = 0
    sim.write_model("geom_rgba", rgba)
    sim.write_model("geom_size", near("geom_size", 0.02).clamp(min=0))
    texid = torch.from_numpy(sim.model.mat_texid).repeat(sim.num_envs, 1, 1)
    flat, drawn = [sim.model.mat(name).id for name in ("floor", "tiles", "metric")], np.arange(-1, 2)
    texid[:, flat, 1] = torch.from_numpy(rng.choice(drawn, (sim.num_envs, 3)).astype(np.int32))
    texid[:, sim.model.mat("cube").id] = -1
    sim.write_model("mat_texid", texid.to(sim.device))
    sim.write_model("mat_texrepeat", near("mat_texrepeat", 1.0))
    quaternion = torch.from_numpy(rng.normal(size=(sim.num_envs, 4)).astype(np.float32)).to(sim.device)
    sim.write("qpos", quaternion / quaternion.norm(dim=1, keepdim=True))
    sim.forward()


def assert_same_pictures(ours, theirs):
    assert ours.keys() == theirs.keys()
    for camera in ("front", "rider"):
        segmentation = theirs[f"{camera}/segmentation"].cpu().numpy()
        same = ours[f"{camera}/segmentation"].numpy() == segmentation
        assert same.mean() >= 0.999
        assert len(np.unique(segmentation)) >= 9
        difference = ours[f"{camera}/rgb"].numpy().astype(int) - theirs[f"{camera}/rgb"].cpu().numpy()
        assert (abs(difference).max(-1)[same] <= 2).mean() >= 0.999
    for camera in ("front", "lens"):
        depth, other = ours[f"{camera}/depth"].numpy(), theirs[f"{camera}/depth"].cpu().numpy()
        assert 0.3 < np.isfinite(depth).mean() <= 1
        assert np.isclose(depth, other, rtol=1e-4).mean() >= 0.999  # infinite equals infinite


def compare(device):
    fields = (*VISUAL_FIELDS, *TEXTURE_FIELDS, "geom_size")
    batch = BatchSimulator(build(), 4, model_fields=fields, threads=1)
    warp = WarpSimulator(build(), 4, device=device, model_fields=fields)
    cpu_cameras, warp_cameras = make_cameras(batch, CONFIGS), make_cameras(warp, CONFIGS)
    for sim in (batch, warp):  # the model's own textures at first, of which one is not drawn
        sim.forward()
    assert_same_pictures(cpu_cameras.render(), warp_cameras.render())
    for seed in (0, 1):  # twice, as the second time a captured graph meets new values
        randomise(batch, seed)
        randomise(warp, seed)
        assert_same_pictures(cpu_cameras.render(), warp_cameras.render())
    first = warp_cameras.render()
    again = warp_cameras.render(Rows.of_mask(torch.tensor([True, False, False, False], device=device)))
    assert all(first[name].data_ptr() == image.data_ptr() for name, image in again.items())


def test_both_renderers_take_the_same_pictures():
    compare("cpu")


@pytest.mark.gpu
def test_both_renderers_take_the_same_pictures_on_a_gpu():
    compare("cuda")


def test_nothing_is_infinitely_far_and_of_the_background_colour():
    camera = '<camera name="up" pos="0 0 1" xyaxes="1 0 0 0 -1 0"/>'
    xml = f'<mujoco><worldbody><geom size=".1"/>{camera}</worldbody></mujoco>'
    sim = WarpSimulator(mujoco.MjModel.from_xml_string(xml), 2, device="cpu")
    pictures = make_cameras(sim, [CameraConfig("up", 3, 2, ALL)]).render()
    assert pictures["up/depth"].isinf().all()
    assert (pictures["up/segmentation"] == -1).all()
    assert (pictures["up/rgb"] == torch.tensor(BACKGROUND, dtype=torch.uint8)).all()
