"""Batched tasks as Stable-Baselines3, Gymnasium, rsl_rl, skrl and Isaac Gym expect them."""
