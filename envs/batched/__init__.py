"""Batched MuJoCo environments: one task code on CPU threads and on GPUs, with cameras."""
