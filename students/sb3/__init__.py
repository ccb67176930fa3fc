"""Students that are unmodified Stable-Baselines3 algorithms."""
