"""What learns: unmodified Stable-Baselines3 algorithms, their presets, checkpoints and evaluation."""
