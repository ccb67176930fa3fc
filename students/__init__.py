"""Students: Stable-Baselines3 algorithms, students that see a camera, and the methods that train both."""
