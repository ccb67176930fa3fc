"""Experts trained by rsl_rl's PPO, in our loop."""
