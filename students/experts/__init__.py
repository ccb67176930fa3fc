"""Training and loading experts."""
