"""Warp kernels that run within the captured graphs of `tutelage.envs.batched.simulators.warp_simulator`."""

# Warp compiles these functions from their source, and its arrays have no members for a type checker to see.
# mypy: disable-error-code="attr-defined, index, arg-type, misc"

import mujoco
import warp as wp

wp.set_module_options({"enable_backward": False})

_LIMIT = wp.constant(float(mujoco.mjMAXVAL))


@wp.func
def _is_bad(values: wp.array2d[float], world: int) -> bool:
    for i in range(values.shape[1]):  # noqa: SIM110 - Warp has no generators
        if not wp.abs(values[world, i]) <= _LIMIT:  # NaN compares false
            return True
    return False


@wp.kernel
def note_divergence(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    qacc: wp.array2d[float],
    overflow: wp.array[int],
    diverged: wp.array[bool],
    overflow_seen: wp.array[int],
) -> None:
    """Remember worlds whose motion is NaN, infinite or huge (MuJoCo's ``mju_isBad``), and overflow."""
    world = wp.tid()
    if _is_bad(qpos, world) or _is_bad(qvel, world) or _is_bad(qacc, world):
        diverged[world] = True
    overflow_seen[world] = overflow_seen[world] | overflow[world]


@wp.kernel
def zero_columns(columns: wp.array[int], values: wp.array2d[float]) -> None:
    """Zero some columns of a matrix with a row for each world."""
    world, i = wp.tid()
    values[world, columns[i]] = 0.0


@wp.func
def _rotation(quaternion: wp.quat) -> wp.quat:
    """MuJoCo's order of components, (w, x, y, z), to Warp's."""
    return wp.quat(quaternion[1], quaternion[2], quaternion[3], quaternion[0])


@wp.kernel
def place_geoms(
    geoms: wp.array[int],
    geom_bodyid: wp.array[int],
    geom_pos: wp.array2d[wp.vec3],
    geom_quat: wp.array2d[wp.quat],
    xpos: wp.array2d[wp.vec3],
    xquat: wp.array2d[wp.quat],
    geom_xpos: wp.array2d[wp.vec3],
    geom_xmat: wp.array2d[wp.mat33],
) -> None:
    """Poses of some geoms from those of their bodies; mujoco_warp leaves out geoms that cannot move."""
    world, i = wp.tid()
    geom = geoms[i]
    body = geom_bodyid[geom]
    body_turn = _rotation(xquat[world, body])
    geom_turn = _rotation(geom_quat[world % geom_quat.shape[0], geom])
    position = geom_pos[world % geom_pos.shape[0], geom]
    geom_xpos[world, geom] = xpos[world, body] + wp.quat_rotate(body_turn, position)
    geom_xmat[world, geom] = wp.quat_to_matrix(body_turn * geom_turn)
