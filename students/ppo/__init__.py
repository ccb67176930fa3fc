"""Our own PPO over tensors."""
