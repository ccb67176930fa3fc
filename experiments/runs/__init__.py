"""The machinery of runs: cells, grids, processes, records, resume."""
