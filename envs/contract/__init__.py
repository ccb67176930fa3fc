"""The contract of task environments: task spaces, episodes, the taught vector environment, saved state."""
