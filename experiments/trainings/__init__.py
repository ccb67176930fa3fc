"""What a cell of each command trains."""
