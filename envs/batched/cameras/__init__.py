"""Cameras of batched tasks: a ray caster for CPUs, MJWarp's renderer for GPUs."""
