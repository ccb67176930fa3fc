"""Isaac Gym's state tensors on a simulator of ours: for those who port tasks from it.

Isaac Gym hands out three tensors and fills them on ``refresh``: states of actors' roots, of joints, and of
rigid bodies. `IsaacTensors` has them in the same layouts and converts where MuJoCo differs:

=====================  ====================================  =========================================
quantity               Isaac Gym                             MuJoCo
=====================  ====================================  =========================================
quaternion             (x, y, z, w)                          (w, x, y, z)
angular velocity       world frame                           body frame in a free joint's ``qvel``
linear velocity        of the body's origin, world frame     ``cvel``: about the tree's centre of mass
=====================  ====================================  =========================================
"""

from __future__ import annotations

from typing import Literal

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.simulators.simulator import Simulator
from tutelage.envs.batched.task.rows import Rows

_FREE, _HINGE, _SLIDE = (
    int(kind)
    for kind in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
)
_JOINT = int(mujoco.mjtTrn.mjTRN_JOINT)


def xyzw(quaternions: Tensor) -> Tensor:
    """Isaac Gym's order of MuJoCo's (w, x, y, z) quaternions, shape ``(..., 4)``."""
    return quaternions.roll(-1, dims=-1)


def wxyz(quaternions: Tensor) -> Tensor:
    """MuJoCo's order of Isaac Gym's (x, y, z, w) quaternions, shape ``(..., 4)``."""
    return quaternions.roll(1, dims=-1)


def rotate(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """Turn vectors by unit quaternions (x, y, z, w): from the body frame to the world frame.

    Computes ``v + 2 w (u x v) + 2 u x (u x v)`` with ``q = (u, w)``.
    """
    u, w = quaternions[..., :3], quaternions[..., 3:]
    once = torch.linalg.cross(u, vectors)
    return vectors + 2 * (w * once + torch.linalg.cross(u, once))


def rotate_inverse(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """Turn vectors back: from the world frame to the body frame."""
    return rotate(torch.cat([-quaternions[..., :3], quaternions[..., 3:]], -1), vectors)


class IsaacTensors:
    """Root, joint and rigid-body states of a simulator, as Isaac Gym lays them out.

    An *actor* is a body that hangs on the world directly, with all below it, in the order of the model. A
    *DoF* is a hinge or slide joint; free and ball joints are none. The world is no rigid body here: body *i*
    of an environment is MuJoCo's body ``i + 1``. Rows are grouped by environment, so that
    ``root_states.view(num_envs, n_actors, 13)`` and the like work, and stay valid through refreshes.

    ::

        isaac = IsaacTensors(self.sim)                              # in setup()
        isaac.refresh_actor_root_state()                            # in post_physics_step()
        base_height = isaac.root_states[:, 2]

    Setters follow Isaac Gym's: "indexed" ones take the whole tensor and the flat indices, ``env * n_actors +
    actor``, of the actors to which its rows are applied. They take effect in the next step, and derived
    fields (so a refresh) follow at the next `Simulator.forward` or step. In the environments that they touch,
    all of ``qpos`` and ``qvel`` passes through float32, also that of other actors.

    Args:
        sim: the simulator.

    Attributes:
        num_envs, n_actors, ndof, nbody: environments, and how many of each one environment has.
        actor_names, dof_names, body_names: their names in the model, in order.
        root_states: float32 ``(num_envs * n_actors, 13)``: position, quaternion (x, y, z, w), linear
            velocity, angular velocity, all in the world frame, of the roots' frames.
        dof_state: float32 ``(num_envs * ndof, 2)``: position (rad or m) and velocity.
        rigid_body_states: float32 ``(num_envs * nbody, 13)``, as `root_states`.
    """

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        model, device = sim.model, sim.device
        self.num_envs = sim.num_envs
        self._roots = [i for i in range(1, model.nbody) if model.body_parentid[i] == 0]
        self._joints = [j for j in range(model.njnt) if int(model.jnt_type[j]) in (_HINGE, _SLIDE)]
        self.n_actors, self.ndof, self.nbody = len(self._roots), len(self._joints), model.nbody - 1
        self.actor_names = [model.body(i).name for i in self._roots]
        self.dof_names = [model.joint(j).name for j in self._joints]
        self.body_names = [model.body(i).name for i in range(1, model.nbody)]
        self.root_states = torch.zeros(self.num_envs * self.n_actors, 13, device=device)
        self.dof_state = torch.zeros(self.num_envs * self.ndof, 2, device=device)
        self.rigid_body_states = torch.zeros(self.num_envs * self.nbody, 13, device=device)

        def indices(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        self._everyone = torch.ones(self.num_envs, self.n_actors, dtype=torch.bool, device=device)
        self._root_ids = indices(self._roots)
        self._placing = [self._how_placed(body) for body in self._roots]
        self._free, self._mocap = (
            indices([actor for actor, how in enumerate(self._placing) if how == kind])
            for kind in ("free", "mocap")
        )
        self._body_ids = torch.arange(1, model.nbody, device=device)
        self._tree_of_body = indices([int(i) for i in model.body_rootid])
        self._qpos_of_dof = indices([int(model.jnt_qposadr[j]) for j in self._joints])
        self._qvel_of_dof = indices([int(model.jnt_dofadr[j]) for j in self._joints])
        trees = [int(model.body_rootid[model.jnt_bodyid[j]]) for j in self._joints]
        self._actor_of_dof = indices([self._roots.index(tree) for tree in trees])
        self._servo_dofs, self._servos, self._servo_scale = self._find_servos()
        self.refresh_actor_root_state()
        self.refresh_dof_state()
        self.refresh_rigid_body_state()

    def refresh_actor_root_state(self) -> None:
        """Fill `root_states` from the simulator."""
        self.root_states.copy_(self._body_states(self._root_ids).flatten(0, 1))

    def refresh_dof_state(self) -> None:
        """Fill `dof_state` from the simulator."""
        position = self.sim.read("qpos")[:, self._qpos_of_dof]
        velocity = self.sim.read("qvel")[:, self._qvel_of_dof]
        self.dof_state.copy_(torch.stack([position, velocity], 2).flatten(0, 1))

    def refresh_rigid_body_state(self) -> None:
        """Fill `rigid_body_states` from the simulator."""
        self.rigid_body_states.copy_(self._body_states(self._body_ids).flatten(0, 1))

    def set_actor_root_state_tensor_indexed(self, root_states: Tensor, actor_indices: Tensor) -> None:
        """Place some actors, and set their roots' velocities.

        Works on actors whose root has a free joint, and on mocap bodies (whose velocities are ignored).

        Args:
            root_states: ``(num_envs * n_actors, 13)``; only the rows of `actor_indices` are used.
            actor_indices: integers, flat: ``env * n_actors + actor``.

        Raises:
            ValueError: when no actor of the model can be placed; set fixed ones by ``body_pos``, and those on
                slides and hinges by `set_dof_state_tensor_indexed`.
        """
        if not len(self._free) and not len(self._mocap):
            raise ValueError(
                f"none of the actors {self.actor_names} has a free joint or is a mocap body; set fixed ones "
                "by the model field body_pos, those on slides and hinges by set_dof_state_tensor_indexed"
            )
        model = self.sim.model
        chosen = self._chosen(actor_indices)
        states = root_states.view(self.num_envs, self.n_actors, 13)
        qpos, qvel = self.sim.read("qpos").clone(), self.sim.read("qvel").clone()
        mocap_pos, mocap_quat = self.sim.read("mocap_pos").clone(), self.sim.read("mocap_quat").clone()
        for actor, (body, how) in enumerate(zip(self._roots, self._placing, strict=True)):
            state, mask = states[:, actor], chosen[:, actor, None]
            pos, quat, linear, angular = state.split([3, 4, 3, 3], 1)
            if how == "mocap":
                mocap_id = int(model.body_mocapid[body])
                mocap_pos[:, mocap_id] = torch.where(mask, pos, mocap_pos[:, mocap_id])
                mocap_quat[:, mocap_id] = torch.where(mask, wxyz(quat), mocap_quat[:, mocap_id])
            elif how == "free":
                joint = int(model.body_jntadr[body])
                p, v = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
                new = torch.cat([pos, wxyz(quat)], 1)
                qpos[:, p : p + 7] = torch.where(mask, new, qpos[:, p : p + 7])
                new = torch.cat([linear, rotate_inverse(quat, angular)], 1)
                qvel[:, v : v + 6] = torch.where(mask, new, qvel[:, v : v + 6])
        if len(self._free):
            rows = Rows.of_mask(chosen[:, self._free].any(1))
            self.sim.write("qpos", qpos, rows)
            self.sim.write("qvel", qvel, rows)
        if len(self._mocap):
            rows = Rows.of_mask(chosen[:, self._mocap].any(1))
            self.sim.write("mocap_pos", mocap_pos, rows)
            self.sim.write("mocap_quat", mocap_quat, rows)

    def set_dof_state_tensor_indexed(self, dof_state: Tensor, actor_indices: Tensor) -> None:
        """Set positions and velocities of all hinges and slides of some actors.

        Args:
            dof_state: ``(num_envs * ndof, 2)``; only the rows of those actors' joints are used.
            actor_indices: integers, flat: ``env * n_actors + actor``.
        """
        chosen = self._chosen(actor_indices)
        mask = chosen[:, self._actor_of_dof]
        position, velocity = dof_state.view(self.num_envs, self.ndof, 2).unbind(2)
        qpos, qvel = self.sim.read("qpos").clone(), self.sim.read("qvel").clone()
        qpos[:, self._qpos_of_dof] = torch.where(mask, position, qpos[:, self._qpos_of_dof])
        qvel[:, self._qvel_of_dof] = torch.where(mask, velocity, qvel[:, self._qvel_of_dof])
        rows = Rows.of_mask(chosen.any(1))
        self.sim.write("qpos", qpos, rows)
        self.sim.write("qvel", qvel, rows)

    def set_dof_position_target_tensor(self, targets: Tensor) -> None:
        """Set the targets of position-controlled joints; they stay until set again, or reset.

        A joint is position-controlled when a position actuator (MuJoCo's ``position``: an affine bias on the
        joint's own position) acts on it; the targets of other joints are ignored.

        Args:
            targets: ``(num_envs * ndof,)``, rad or m.

        Raises:
            ValueError: when no joint is position-controlled.
        """
        self._set_targets(targets, self._everyone)

    def set_dof_position_target_tensor_indexed(self, targets: Tensor, actor_indices: Tensor) -> None:
        """Set the targets of the position-controlled joints of some actors; see
        `set_dof_position_target_tensor`.

        Args:
            targets: ``(num_envs * ndof,)``, rad or m; only the rows of those actors' joints are used.
            actor_indices: integers, flat: ``env * n_actors + actor``.

        Raises:
            ValueError: when no joint is position-controlled.
        """
        self._set_targets(targets, self._chosen(actor_indices))

    def set_dof_actuation_force_tensor(self, forces: Tensor) -> None:
        """Apply forces to joints, beside actuators, until they are set again or the environment is reset.

        They are written to ``qfrc_applied``, so neither gears nor force ranges of actuators act on them.

        Args:
            forces: ``(num_envs * ndof,)``, N m or N.
        """
        self._apply_forces(forces, self._everyone)

    def set_dof_actuation_force_tensor_indexed(self, forces: Tensor, actor_indices: Tensor) -> None:
        """Apply forces to the joints of some actors; see `set_dof_actuation_force_tensor`.

        Args:
            forces: ``(num_envs * ndof,)``, N m or N; only the rows of those actors' joints are used.
            actor_indices: integers, flat: ``env * n_actors + actor``.
        """
        self._apply_forces(forces, self._chosen(actor_indices))

    def _set_targets(self, targets: Tensor, chosen: Tensor) -> None:
        if not len(self._servos):
            raise ValueError("the model has no position actuator on a hinge or slide joint; add some")
        ctrl = self.sim.read("ctrl").clone()
        wanted = targets.view(self.num_envs, self.ndof)[:, self._servo_dofs] * self._servo_scale
        mask = chosen[:, self._actor_of_dof[self._servo_dofs]]
        ctrl[:, self._servos] = torch.where(mask, wanted, ctrl[:, self._servos])
        self.sim.write("ctrl", ctrl)

    def _apply_forces(self, forces: Tensor, chosen: Tensor) -> None:
        applied = self.sim.read("qfrc_applied").clone()
        mask = chosen[:, self._actor_of_dof]
        new = forces.view(self.num_envs, self.ndof)
        applied[:, self._qvel_of_dof] = torch.where(mask, new, applied[:, self._qvel_of_dof])
        self.sim.write("qfrc_applied", applied)

    def _how_placed(self, body: int) -> Literal["free", "mocap", "fixed"]:
        """What moves an actor's root: a free joint, its being a mocap body, or neither."""
        model, joint = self.sim.model, int(self.sim.model.body_jntadr[body])
        if int(model.body_mocapid[body]) >= 0:
            return "mocap"
        return "free" if joint >= 0 and int(model.jnt_type[joint]) == _FREE else "fixed"

    def _body_states(self, bodies: Tensor) -> Tensor:
        """States of bodies by MuJoCo's ids, ``(num_envs, n, 13)``."""
        position = self.sim.read("xpos")[:, bodies]
        angular, linear = self.sim.read("cvel")[:, bodies].split(3, 2)
        # cvel's linear part is that of the body-fixed point now at the tree's centre of mass.
        centre = self.sim.read("subtree_com")[:, self._tree_of_body[bodies]]
        linear = linear + torch.linalg.cross(angular, position - centre)
        return torch.cat([position, xyzw(self.sim.read("xquat")[:, bodies]), linear, angular], 2)

    def _chosen(self, actor_indices: Tensor) -> Tensor:
        """Mask of actors, bool ``(num_envs, n_actors)``."""
        chosen = torch.zeros(self.num_envs * self.n_actors, dtype=torch.bool, device=self.sim.device)
        # not by assigning True, which a GPU would have to fetch from the host
        chosen.index_fill_(0, actor_indices.to(chosen.device, torch.int64), True)
        return chosen.view(self.num_envs, self.n_actors)

    def _find_servos(self) -> tuple[Tensor, Tensor, Tensor]:
        """Position-controlled DoFs, their actuators, and what control a target of 1 is."""
        model, device = self.sim.model, self.sim.device
        servos: list[tuple[int, int, float]] = []
        for actuator in range(model.nu):
            joint, stiffness = int(model.actuator_trnid[actuator, 0]), -model.actuator_biasprm[actuator, 1]
            on_joint = int(model.actuator_trntype[actuator]) == _JOINT
            if on_joint and joint in self._joints and stiffness != 0:
                # At rest gain * ctrl = stiffness * length, and the length is gear * position.
                scale = stiffness / model.actuator_gainprm[actuator, 0] * model.actuator_gear[actuator, 0]
                servos.append((self._joints.index(joint), actuator, float(scale)))
        dofs, actuators, scales = zip(*servos, strict=True) if servos else ((), (), ())
        return (
            torch.tensor(dofs, dtype=torch.int64, device=device),
            torch.tensor(actuators, dtype=torch.int64, device=device),
            torch.tensor(scales, dtype=torch.float32, device=device),
        )
