"""`VecTask`, the contract of batched MuJoCo tasks, and its parts."""
