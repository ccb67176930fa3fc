"""Both simulators keep the protocol, and agree, on a model with a bit of everything."""

import sys
import warnings

import mujoco
import pytest
import torch

from tutelage.envs.batched.simulators import simulator as protocol
from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator
from tutelage.envs.batched.simulators.factory import make_simulator
from tutelage.envs.batched.simulators.simulator import SimulatorError, SimulatorWarning
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.worlds.stump_walker import StumpWalker

pytest.importorskip("mujoco_warp")
pytestmark = pytest.mark.xdist_group("warp")

N, STEP = 6, 0.005
MODEL_FIELDS = (
    *("geom_pos", "geom_quat", "geom_size", "body_mass", "body_inertia", "cam_pos", "light_pos"),
    "opt.gravity",
)
XML = f"""
<mujoco>
  <option timestep="{STEP}" integrator="implicitfast"><flag midphase="disable"/></option>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="world" pos="0 -2 1"/>
    <geom name="floor" type="plane" size="5 5 .1"/>
    <geom name="platform" type="box" size=".5 .5 .1" pos="0 0 -.3"/>
    <body name="target" mocap="true" pos="1 2 3"><geom size=".01" contype="0" conaffinity="0"/></body>
    <body name="box" pos="0 0 .3">
      <freejoint/>
      <geom type="box" size=".1 .1 .1" mass="1"/>
      <site name="box" pos=".1 0 0"/>
      <camera name="eye" pos="0 0 .2"/>
    </body>
    <body name="sledge" pos="3 0 1" gravcomp="1">
      <joint name="sledge" type="slide" axis="1 0 0"/>
      <geom size=".1" mass="2" contype="0" conaffinity="0"/>
    </body>
    <body name="thigh" pos="-2 0 .75">
      <joint name="hip" axis="0 1 0" damping="1"/>
      <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".05" mass="1" contype="0" conaffinity="0"/>
      <body name="shin" pos="0 0 -.3">
        <joint name="knee" axis="0 1 0" damping="1"/>
        <joint name="slide" type="slide" axis="0 0 1" damping="20"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".05" mass="1"/>
        <site name="foot" pos="0 0 -.3" size=".06"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="sledge"/>
    <position joint="knee" kp="20"/>
    <general joint="hip" dyntype="filter" dynprm=".02" gainprm="20" biastype="affine" biasprm="0 -20 0"/>
  </actuator>
  <sensor>
    <framepos objtype="site" objname="box"/>
    <touch site="foot"/>
    <gyro site="foot"/>
    <accelerometer site="foot"/>
  </sensor>
</mujoco>
"""
POSITION, TOUCH, GYRO, ACCELERATION = slice(0, 3), 3, slice(4, 7), slice(7, 10)  # of sensordata
SLEDGE = 7  # index of the sledge's position, after the box's seven


def make(backend: str, n: int = N, **options) -> protocol.Simulator:
    model = mujoco.MjModel.from_xml_string(XML)
    return make_simulator(model, n, backend=backend, model_fields=MODEL_FIELDS, threads=1, **options)


@pytest.fixture(scope="module")
def simulators():
    made = {backend: make(backend) for backend in ("batch", "warp")}
    originals = {
        backend: {name: sim.read_model(name).clone() for name in MODEL_FIELDS}
        for backend, sim in made.items()
    }
    return made, originals


@pytest.fixture
def clean(simulators):
    """Both simulators, as if made just now."""
    made, originals = simulators
    for backend, sim in made.items():
        for name, values in originals[backend].items():
            sim.write_model(name, values)
        sim.set_constants()
        sim.reset(Rows.all(N))
        sim.forward()
        sim.take_diverged()
    return made


@pytest.fixture(params=["batch", "warp"])
def sim(request, clean):
    return clean[request.param]


@pytest.fixture
def batch(clean):
    return clean["batch"]


def some(*indices: int) -> Rows:
    return Rows.of_indices(torch.tensor(indices), N)


def masked(*indices: int) -> Rows:
    mask = torch.zeros(N, dtype=torch.bool)
    mask[list(indices)] = True
    return Rows.of_mask(mask)


def random_start(sim, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    qpos = sim.read("qpos").clone()
    qpos[:, :3] += 0.05 * torch.randn(N, 3, generator=generator)
    qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(N, 4, generator=generator), dim=1)
    qpos[:, 8:] += 0.2 * torch.randn(N, 3, generator=generator)
    sim.write("qpos", qpos)
    sim.write("qvel", 0.5 * torch.randn(N, 10, generator=generator))


def drive(sim, steps: int, seed: int = 1, substeps: int = 4, force: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        sim.write("ctrl", force * torch.randn(N, 3, generator=generator))
        sim.step(substeps)


def test_both_simulators_agree(clean):
    for each in clean.values():
        random_start(each)
        drive(each, 40)
    bounds = {"qpos": 2e-3, "qvel": 2e-2, "site_xpos": 2e-3, "act": 1e-5, "time": 1e-5, "cam_xpos": 2e-3}
    for name, bound in bounds.items():
        one, other = clean["batch"].read(name), clean["warp"].read(name)
        assert one.shape == other.shape
        assert float((one - other).abs().max()) < bound, name
    assert float(clean["batch"].read("sensordata")[:, TOUCH].max()) > 1  # feet were on the ground
    assert float((clean["batch"].read("qpos") - clean["batch"].model.qpos0).abs().max()) > 0.1


def test_fields_have_the_same_shapes_and_start_equal(clean):
    names = (*protocol.STATE_FIELDS, *protocol.DERIVED_FIELDS, *protocol.FORCE_FIELDS, "cfrc_ext")
    for each in clean.values():
        random_start(each)
        each.forward()
    for name in names:
        one, other = clean["batch"].read(name), clean["warp"].read(name)
        assert one.shape == other.shape, name
        assert one.dtype == other.dtype == torch.float32
        assert torch.allclose(one, other, atol=2e-4, rtol=1e-5), name


def test_a_reset_brings_back_the_initial_state_of_chosen_environments(sim):
    random_start(sim)
    sim.write("mocap_pos", torch.zeros(N, 1, 3))
    sim.write("xfrc_applied", torch.ones(N, sim.model.nbody, 6))
    drive(sim, 3)
    names = ("qpos", "qvel", "act", "ctrl", "mocap_pos", "xfrc_applied", "qacc", "time", "sensordata")
    before = {name: sim.read(name).clone() for name in names}
    for rows in (some(1, 4), masked(2)):
        sim.reset(rows)
        sim.forward(rows)
    fresh = [1, 2, 4]
    others = [0, 3, 5]
    assert torch.equal(sim.read("qpos")[fresh], torch.tensor(sim.model.qpos0).float().expand(3, -1))
    assert sim.read("mocap_pos")[fresh].tolist() == [[[1.0, 2.0, 3.0]]] * 3
    for name in ("qvel", "act", "ctrl", "xfrc_applied", "qacc", "time"):
        assert not sim.read(name)[fresh].any(), name
    for name in names:
        assert torch.equal(sim.read(name)[others], before[name][others]), name


def test_writing_by_index_and_by_mask_is_the_same(sim):
    values = torch.arange(N * 10.0).view(N, 10)
    sim.write("qvel", values[[1, 3]], some(1, 3))
    sim.write("qvel", values, masked(4))
    expected = torch.zeros(N, 10)
    expected[[1, 3, 4]] = values[[1, 3, 4]]
    assert torch.equal(sim.read("qvel"), expected)


def test_forward_follows_the_state_and_leaves_forces_alone(sim):
    drive(sim, 30, force=0.1)
    forces = ("actuator_force", "qacc", "qfrc_constraint", "cfrc_ext")
    before = {name: sim.read(name).clone() for name in (*forces, "sensordata")}
    assert float(before["sensordata"][:, TOUCH].min()) > 0.1
    assert len(before["actuator_force"].unique()) > N  # of one simulation at least unlike another's
    rows = some(0, 2)
    qpos = sim.read("qpos")[[0, 2]].clone()
    qpos[:, 0] += 1.0
    sim.write("qpos", qpos, rows)
    sim.forward(rows)
    moved = torch.tensor([1.0, 0, 1, 0, 0, 0])
    sensors = sim.read("sensordata")
    for axis, shift in zip(range(3), (moved, 0 * moved, 0 * moved), strict=True):
        assert torch.allclose(sensors[:, axis] - before["sensordata"][:, axis], shift, atol=1e-5)
    for columns in (TOUCH, ACCELERATION):
        assert torch.equal(sensors[:, columns], before["sensordata"][:, columns])
    for name in forces:
        assert torch.equal(sim.read(name), before[name]), name
    sim.reset(rows)
    sim.forward(rows)
    assert not sim.read("sensordata")[[0, 2], TOUCH].any()
    assert not sim.read("actuator_force")[[0, 2]].any()
    assert torch.equal(sim.read("actuator_force")[1], before["actuator_force"][1])


def test_velocity_sensors_follow_a_forward(sim):
    sim.write("qvel", torch.tensor([0.0] * 8 + [3.0, 0.0]).expand(N, 10))  # the knee turns at 3 rad/s
    sim.forward()
    assert torch.allclose(sim.read("sensordata")[:, GYRO], torch.tensor([0.0, 3.0, 0.0]), atol=1e-5)
    assert torch.allclose(sim.read("actuator_velocity"), torch.tensor([0.0, 3.0, 0.0]), atol=1e-5)


def test_masses_differ_between_environments(sim):
    mass = sim.read_model("body_mass").clone()
    inertia = sim.read_model("body_inertia").clone()
    sledge = mujoco.mj_name2id(sim.model, mujoco.mjtObj.mjOBJ_BODY, "sledge")
    factors = torch.tensor([2.0, 4.0])
    mass[[1, 2], sledge] *= factors
    inertia[[1, 2], sledge] *= factors[:, None]
    sim.write_model("body_mass", mass[[1, 2]], some(1, 2))
    sim.write_model("body_inertia", inertia, masked(1, 2))
    sim.set_constants(some(1, 2))
    sim.write("ctrl", torch.tensor([3.0, 0, 0]).expand(N, 3))
    sim.step(10)
    # v = F t / m; F = 3 N, t = 10 * 0.005 s, m = 2, 4, 8 kg
    expected = torch.tensor([0.075, 0.0375, 0.01875, 0.075, 0.075, 0.075])
    assert torch.allclose(sim.read("qvel")[:, 6], expected, atol=1e-6)
    assert torch.equal(sim.read_model("body_mass"), mass)


def test_gravity_differs_between_environments(sim):
    gravity = torch.zeros(N, 3)
    gravity[1, 2], gravity[2, 0] = -2.0, 1.0
    sim.write_model("opt.gravity", gravity)
    start = torch.tensor(sim.model.qpos0).float()
    sim.step(10)
    # semi-implicit: v_k = g h k, so the way is g h^2 (1 + ... + 10) = g h^2 55
    way = 55 * STEP**2
    moved = sim.read("qpos")[:, :3] - start[:3]
    expected = torch.zeros(N, 3)
    expected[1, 2], expected[2, 0] = -2.0 * way, 1.0 * way
    assert torch.allclose(moved, expected, atol=2e-6)


def test_geometry_differs_between_environments(sim):
    position = sim.read_model("geom_pos").clone()
    platform = mujoco.mj_name2id(sim.model, mujoco.mjtObj.mjOBJ_GEOM, "platform")
    position[:, platform, 2] = torch.linspace(-0.3, 0.1, N)
    sim.write_model("geom_pos", position)
    for _ in range(60):
        sim.step(5)
    top = position[:, platform, 2].clamp(min=-0.1) + 0.1  # the floor is at 0
    assert torch.allclose(sim.read("qpos")[:, 2], top + 0.1, atol=2e-3)
    assert torch.allclose(sim.read("geom_xpos")[:, platform], position[:, platform])
    # A quarter turn about y: x' = -z, z' = x; columns of the matrix are the turned axes.
    turns = sim.read_model("geom_quat").clone()
    turns[1:3, platform] = torch.tensor([0.5**0.5, 0, 0.5**0.5, 0])
    sim.write_model("geom_quat", turns)
    sim.forward()
    turned = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    assert torch.allclose(sim.read("geom_xmat")[1, platform].view(3, 3), turned, atol=1e-6)
    assert torch.allclose(sim.read("geom_xmat")[3, platform].view(3, 3), torch.eye(3), atol=1e-6)


STATIC_BODY = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"><flag midphase="disable"/></option>
  <worldbody>
    <body name="shelf"><geom name="shelf" type="box" size=".5 .5 .1"/></body>
    <body pos="0 0 .3"><freejoint/><geom size=".1" mass="1"/></body>
  </worldbody>
  {sensor}
</mujoco>
"""


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "with-sensors-read"])
def test_static_bodies_are_hit_where_they_were_moved(slow):
    """The shelf is raised by 0.15 m into the ball, 0.1 m above it: it pushes in the very next step."""
    sensor = '<sensor><framepos objtype="body" objname="shelf"/></sensor>' if slow else ""
    model = mujoco.MjModel.from_xml_string(STATIC_BODY.format(sensor=sensor))
    speeds, places = [], []
    for backend in ("batch", "warp"):
        sim = make_simulator(model, 2, backend=backend, model_fields=("body_pos",), threads=1)
        if slow:
            sim.read("sensordata")
        raised = sim.read_model("body_pos").clone()
        raised[1, 1, 2] = 0.15
        sim.write_model("body_pos", raised)
        sim.step(1)
        speeds.append(sim.read("qvel")[:, 2].clone())
        places.append(sim.read("geom_xpos")[:, 0].clone())
    assert speeds[0][0] == pytest.approx(-9.81 * 0.01)
    assert speeds[0][1] > 0.1
    assert torch.allclose(speeds[1], speeds[0], atol=1e-4)
    assert torch.allclose(places[1], places[0])
    assert places[0][:, 2].tolist() == pytest.approx([0.0, 0.15])


def test_sizes_differ_between_environments(sim):
    sizes = sim.read_model("geom_size").clone()
    box = int(sim.model.body("box").geomadr[0])
    sizes[[1, 3], box] = torch.tensor([[0.1, 0.1, 0.2], [0.1, 0.3, 0.25]])
    sim.write_model("geom_size", sizes)
    sim.set_constants(some(1, 3))
    for _ in range(60):
        sim.step(5)
    assert torch.allclose(sim.read("qpos")[:, 2], sizes[:, box, 2], atol=2e-3)


def test_centres_of_mass_differ_only_where_the_compiler_left_them_free():
    def model(simple: bool) -> mujoco.MjModel:
        spec = mujoco.MjSpec()
        body = spec.worldbody.add_body(name="puck", simple=simple)
        body.add_freejoint()
        body.add_geom(size=[0.1, 0, 0], mass=1)
        return spec.compile()

    with pytest.raises(SimulatorError, match=r"\['puck'\].*simple=False"):
        make_simulator(model(True), 1, model_fields=("body_ipos",), threads=1)
    make_simulator(model(False), 1, model_fields=("body_ipos",), threads=1)


def test_cameras_and_lights_differ_between_environments(sim):
    for name, pose in (("cam_pos", "cam_xpos"), ("light_pos", "light_xpos")):
        values = sim.read_model(name).clone()
        values[1:] += torch.arange(1.0, N)[:, None, None]
        sim.write_model(name, values)
        sim.forward()
        assert torch.allclose(sim.read(pose)[:, -1] - sim.read(pose)[0, -1], torch.arange(0.0, N)[:, None])


@pytest.mark.parametrize("choose", [some, masked])
def test_restored_environments_go_on_bit_for_bit(sim, choose):
    random_start(sim)
    sim.write("xfrc_applied", torch.full((N, sim.model.nbody, 6), 0.1))
    drive(sim, 5)
    saved = sim.save()
    assert saved.dtype == torch.float64
    assert torch.equal(sim.save(some(1, 3)), saved[[1, 3]])
    names = ("qpos", "qvel", "site_xpos", "act", "qacc", "sensordata", "actuator_force")
    now = {name: sim.read(name).clone() for name in names}
    drive(sim, 5, seed=2)
    later = {name: sim.read(name).clone() for name in names}
    drive(sim, 5, seed=3)
    latest = {name: sim.read(name).clone() for name in names}
    rows = choose(1, 3)
    sim.restore(rows.take(saved), rows)
    chosen, others = [1, 3], [0, 2, 4, 5]
    for name in names:
        assert torch.equal(sim.read(name)[chosen], now[name][chosen]), name
        assert torch.equal(sim.read(name)[others], latest[name][others]), name
    drive(sim, 5, seed=2)
    for name in names:
        assert torch.equal(sim.read(name)[chosen], later[name][chosen]), name


def test_restoring_refuses_other_states(sim):
    with pytest.raises(ValueError, match=r"states.*shape \(2, 3\), not \(6, \d+\)"):
        sim.restore(torch.zeros(2, 3))


def test_one_environment_that_diverges_leaves_the_others_alone(sim, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def run(bad: bool) -> torch.Tensor:
        sim.reset(Rows.all(N))
        random_start(sim)
        drive(sim, 3)
        assert not sim.take_diverged().any()
        if bad:
            for row, value in ((2, float("nan")), (4, 1e11)):
                qvel = sim.read("qvel")[row : row + 1].clone()
                qvel[:, 8] = value
                sim.write("qvel", qvel, some(row))
        drive(sim, 3, seed=2)
        return sim.read("qpos").clone()

    capfd.readouterr()
    well, ill = run(bad=False), run(bad=True)
    assert sim.take_diverged().tolist() == [False, False, True, False, True, False]
    assert not sim.take_diverged().any()
    others = [0, 1, 3, 5]
    assert torch.equal(well[others], ill[others])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    # A reset mends it altogether.
    assert torch.equal(run(bad=False), well)


def test_threads_do_not_change_results():
    def run(threads: int) -> torch.Tensor:
        sim = BatchSimulator(mujoco.MjModel.from_xml_string(XML), N, threads=threads)
        random_start(sim)
        drive(sim, 10)
        return sim.save()

    assert torch.equal(run(1), run(3))


def test_a_failure_of_mujoco_names_the_environments():
    sim = BatchSimulator(mujoco.MjModel.from_xml_string(XML), N, ("opt.integrator",), threads=1)
    sim.write_model("opt.integrator", torch.full((2,), 77), some(1, 4))
    with pytest.raises(SimulatorError, match=r"environments \[1, 4\]"):
        sim.step(1)


def test_a_users_handler_of_warnings_keeps_working(batch):
    heard: list[str] = []
    mujoco.set_mju_user_warning(lambda text: heard.append(str(text)))
    try:
        batch.write("qpos", torch.full((N, 11), float("nan")))
        batch.step(1)
    finally:
        mujoco.set_mju_user_warning(None)
    assert heard
    assert "QPOS" in heard[0]


def test_what_does_not_fit_is_named_once():
    sim = make("warp", max_contacts=1, max_constraints=2)
    sim.step(100)
    with pytest.warns(SimulatorWarning) as caught:
        sim.check()
    messages = " ".join(str(warning.message) for warning in caught)
    assert "max_constraints= (now 2)" in messages
    assert "max_contacts= (now 1)" in messages
    known = len(caught)
    assert known == len({str(warning.message) for warning in caught})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sim.step(1)
        sim.check()


def test_every_kind_of_overflow_is_told_or_left_alone_on_purpose(clean):
    import mujoco_warp as mjw

    from tutelage.envs.batched.simulators.warp_model import OVERFLOWS, UNREMARKABLE

    told, left = set(OVERFLOWS), set(UNREMARKABLE)
    kinds = {kind.name for kind in mjw.OverflowType if kind and kind is not mjw.OverflowType.ALL}
    assert told | left == kinds
    assert not told & left

    sim = clean["warp"]
    sim._warned.clear()
    sim._overflow_view.fill_(int(mjw.OverflowType.HFIELD | mjw.OverflowType.ITERATIONS))
    with pytest.warns(SimulatorWarning, match=f"height field did not fit in {N} .*coarser") as caught:
        sim.check()
    assert len(caught) == 1
    sim._overflow_view.zero_()


def test_wrong_names_and_shapes(sim):
    with pytest.raises(AttributeError, match="did you mean 'site_xpos'"):
        sim.read("site_xpoz")
    with pytest.raises(AttributeError, match="computed for sensors alone"):
        sim.read("subtree_linvel")
    with pytest.raises(AttributeError, match="'xpos' cannot be written"):
        sim.write("xpos", torch.zeros(N, 3))
    with pytest.raises(AttributeError, match="did you mean 'ctrl'"):
        sim.write("ctr", torch.zeros(N, 3))
    with pytest.raises(ValueError, match=r"'ctrl' have shape \(3,\), not \(6, 3\)"):
        sim.write("ctrl", torch.zeros(3))
    with pytest.raises(ValueError, match=r"not \(2, 3\)"):
        sim.write("ctrl", torch.zeros(N, 3), some(1, 2))
    with pytest.raises(AttributeError, match=r"'geom_margin' is shared.*now: geom_pos"):
        sim.write_model("geom_margin", torch.zeros(N, 3))


def test_body_forces_need_a_sensor_that_computes_them():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint/><geom size='1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(AttributeError, match="add_sensor"):
        BatchSimulator(model, 1, threads=1).read("cfrc_ext")


@pytest.mark.parametrize("backend", ["batch", "warp"])
def test_fields_and_models_that_cannot_be(backend):
    model = mujoco.MjModel.from_xml_string(XML)
    with pytest.raises(SimulatorError, match="geom_pos"):
        make_simulator(model, 2, backend=backend, model_fields=("geom_poss",))
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    with pytest.raises(SimulatorError, match="mjENBL_SLEEP"):
        make_simulator(model, 2, backend=backend)


def test_warp_names_what_it_lacks():
    model = mujoco.MjModel.from_xml_string(XML)
    with pytest.raises(SimulatorError, match="geom_contype"):
        make_simulator(model, 2, backend="warp", model_fields=("geom_contype",))
    with pytest.raises(SimulatorError, match=r"opt\.solver"):
        make_simulator(model, 2, backend="warp", model_fields=("opt.solver",))
    model.opt.solver = mujoco.mjtSolver.mjSOL_PGS
    with pytest.raises(SimulatorError, match="mjSOL_NEWTON"):
        make_simulator(model, 2, backend="warp")


def test_a_missing_gpu_or_package_is_named_with_its_cure(monkeypatch):
    model = mujoco.MjModel.from_xml_string(XML)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(SimulatorError, match=r"pip install .*torch.*whl/cu"):
        make_simulator(model, 2, device="cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    with pytest.raises(SimulatorError, match=r"R580 or newer, .*nvidia-smi"):
        make_simulator(model, 2, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SimulatorError, match="cuda:3"):
        make_simulator(model, 2, device="cuda:3")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("warp.is_cuda_available", lambda: False)
    with pytest.raises(SimulatorError, match=r"R580 or newer.*Turing.*\+cu12"):
        make_simulator(model, 2, device="cuda")
    monkeypatch.delitem(sys.modules, "tutelage.envs.batched.simulators.warp_simulator", raising=False)
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(SimulatorError, match=r"tutelage\[warp\]"):
        make_simulator(model, 2, backend="warp")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "mps"}, "'cpu' or 'cuda'"),
        ({"device": "cuda", "backend": "batch"}, "backend='warp'"),
        ({"backend": "brax"}, "known: batch, warp"),
    ],
)
def test_arguments_that_contradict(options, message):
    with pytest.raises(ValueError, match=message):
        make_simulator(mujoco.MjModel.from_xml_string(XML), 2, **options)


def test_the_users_model_is_not_changed():
    model = mujoco.MjModel.from_xml_string(XML.replace('midphase="disable"', ""))
    sim = BatchSimulator(model, 2, ("geom_pos",), threads=1)
    midphase = mujoco.mjtDisableBit.mjDSBL_MIDPHASE
    assert not model.opt.disableflags & midphase
    assert sim.model.opt.disableflags & midphase


@pytest.fixture(scope="module")
def walkers():
    options = {"num_envs": N, "seed": 7, "threads": 1}
    made = [StumpWalker(**options, backend=backend) for backend in ("batch", "warp", "warp")]
    by_mask = made[2]
    by_mask._rows_of = Rows.of_mask  # as on a GPU
    for walker in made:
        walker.max_episode_length = 12
    return made


def test_a_task_runs_alike_on_both_simulators_and_by_mask(walkers):
    on_batch, on_warp, by_mask = walkers
    generator = torch.Generator().manual_seed(0)
    observations = [walker.reset()["obs"] for walker in walkers]
    for step in range(30):
        actions = 2 * torch.rand(N, on_batch.num_actions, generator=generator) - 1
        results = [walker.step(actions) for walker in walkers]
        observations = [result[0]["obs"] for result in results]
        for walker in (on_warp, by_mask):
            assert torch.equal(walker.tasks, on_batch.tasks)
            assert torch.equal(walker.streams.positions, on_batch.streams.positions)
            assert torch.equal(walker.reset_buf, on_batch.reset_buf)
        assert torch.equal(observations[1], observations[2])
        assert torch.equal(results[1][1], results[2][1])
        assert float((observations[0] - observations[1]).abs().max()) < 1e-2, step
    assert len(on_batch.tasks.unique(dim=0)) == N
    assert torch.equal(on_warp.sim.save(), by_mask.sim.save())


@pytest.mark.gpu
def test_on_a_gpu_as_on_the_cpu():
    on_cpu, on_gpu = (
        make("batch"),
        make_simulator(mujoco.MjModel.from_xml_string(XML), N, device="cuda", model_fields=MODEL_FIELDS),
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        controls = torch.randn(N, 3, generator=generator)
        on_cpu.write("ctrl", controls)
        on_gpu.write("ctrl", controls.cuda())
        on_cpu.step(4)
        on_gpu.step(4)
    assert float((on_cpu.read("qpos") - on_gpu.read("qpos").cpu()).abs().max()) < 2e-3
    mask = torch.zeros(N, dtype=torch.bool, device="cuda")
    mask[2] = True
    before = on_gpu.read("qpos").clone()
    on_gpu.reset(Rows.of_mask(mask))
    on_gpu.forward()
    expected = before.clone()
    expected[2] = torch.tensor(on_gpu.model.qpos0, device="cuda")
    assert torch.equal(on_gpu.read("qpos"), expected)
