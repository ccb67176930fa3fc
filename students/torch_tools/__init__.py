"""Torch tools that all our own students share: threads, sharded gradients, running moments."""
