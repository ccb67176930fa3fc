"""PointMassGate: a point mass that must pass a gate; its physics, single and batched."""
