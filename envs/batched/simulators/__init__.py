"""MuJoCo on CPU threads and on Warp behind one protocol."""
